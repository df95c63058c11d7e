//! What stands for somebody or something: names of fields and methods, digests, tokens.

use portcullis_core::rollout::By;
use portcullis_core::upgrade::Upgrade;
use sha2::{Digest as _, Sha256};

use super::Written;

impl Written for http::HeaderName {
    const FORMAT: &'static str = "header-name";
    const WHAT: &'static str = "the name of a header field";
    const EXAMPLES: &'static [&'static str] = &["x-tenant", "content-type"];

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "it is empty, or has bytes that no name has".to_owned())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Written for By {
    const FORMAT: &'static str = "rollout-by";
    const WHAT: &'static str = "what a roll-out goes by";
    const EXAMPLES: &'static [&'static str] = &["random", "client", "consumer", "header:x-user"];

    fn read(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "random" => Ok(Self::Random),
            None if text == "client" => Ok(Self::Client),
            None if text == "consumer" => Ok(Self::Header(http::HeaderName::from_static("x-consumer"))),
            Some(("header", name)) => http::HeaderName::read(name).map(Self::Header),
            _ => Err("it is none of `random`, `client` and `consumer`, nor begins with `header:`".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Random => "random".to_owned(),
            Self::Client => "client".to_owned(),
            Self::Header(name) => format!("header:{name}"),
        }
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

impl Written for Digest {
    const FORMAT: &'static str = "sha256";
    const WHAT: &'static str = "a SHA-256 digest, as `sha256sum` prints it";
    const EXAMPLES: &'static [&'static str] = &[];

    fn read(text: &str) -> Result<Self, String> {
        if text.len() != 64 {
            return Err(format!("it has {} characters, not 64", text.chars().count()));
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'));
            *byte = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or("it has characters that are not hexadecimal digits".to_owned())?;
        }
        Ok(Self(digest))
    }

    fn write(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A bearer token, of which only the SHA-256 digest is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; 32]);

/// What a digest is written after, where the token itself shall not be on the machine.
const HASHED: &str = "sha256:";

/// A shorter token could be guessed.
const TOKEN_CHARS: usize = 16;

impl Token {
    /// Whether this is the token. Takes the same time whatever is shown: digests are compared, and all of each.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.iter().zip(shown).fold(0, |differences, (one, other)| differences | (one ^ other)) == 0
    }

    /// Whether a text that holds no secret may stand for a token.
    pub(crate) fn is_hashed(text: &str) -> bool {
        text.starts_with(HASHED)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Written for Token {
    const FORMAT: &'static str = "token";
    const WHAT: &'static str = "a token, or `sha256:` with the digest of one";
    const EXAMPLES: &'static [&'static str] = &["${file:/run/secrets/admin-token}", "${env:ADMIN_TOKEN}"];

    fn read(text: &str) -> Result<Self, String> {
        if let Some(digest) = text.strip_prefix(HASHED) {
            return Digest::read(digest).map(|digest| Self(digest.0));
        }
        if text.chars().count() < TOKEN_CHARS {
            return Err(format!("it has fewer than {TOKEN_CHARS} characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it has characters that `Authorization: Bearer` cannot carry".to_owned());
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    fn write(&self) -> String {
        format!("{HASHED}{}", Digest(self.0).write())
    }
}

impl Written for http::Method {
    const FORMAT: &'static str = "method";
    const WHAT: &'static str = "an HTTP method";
    const EXAMPLES: &'static [&'static str] = &["GET", "POST"];

    fn read(text: &str) -> Result<Self, String> {
        if text.contains(|c: char| c.is_ascii_lowercase()) {
            // RFC 9110 §9.1: methods are case-sensitive, and every registered one is in capitals.
            return Err(format!("methods are written in capitals: `{}`", text.to_ascii_uppercase()));
        }
        text.parse().map_err(|_| "it is not a token".to_owned())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Written for Upgrade {
    const FORMAT: &'static str = "upgrade";
    const WHAT: &'static str = "a protocol to upgrade to";
    const EXAMPLES: &'static [&'static str] = &["websocket"];

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}
