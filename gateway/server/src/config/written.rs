//! Values that are written as text: durations, sizes, rates, addresses, hosts, modules.
//!
//! Each is read by one function. Serde, the JSON Schema and the structural check all go through it, so they agree.
//! **Invariant:** the reason for a refusal may quote the text, since it is not shown for text that holds a secret.

mod amounts;
mod names;
mod places;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_core::rollout::By;
use portcullis_core::route::HostPattern;
use portcullis_core::upgrade::Upgrade;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use self::amounts::Rate;
pub(crate) use self::amounts::{ByteRate, CpuShare, Percent, Quota, Size, Zone};
pub(crate) use self::names::Digest;
pub use self::names::Token;
pub use self::places::{Endpoint, LogTarget, Module};
use super::granted::{Capability, ModulePattern, Pattern};
use crate::modules::reference::Prefix;
use crate::modules::signature::PublicKey;

/// A value that is written as text.
pub(crate) trait Written: Sized {
    /// Its name in the schema, under `x-format`.
    const FORMAT: &'static str;
    /// What it is, with an article.
    const WHAT: &'static str;
    /// How it may be written, best first; none where one would not help.
    const EXAMPLES: &'static [&'static str];

    /// Reads it.
    ///
    /// # Errors
    /// The reason why `text` is not one, as a clause: `it has no unit`.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes it so that [`Written::read`] understands it.
    fn write(&self) -> String;
}

/// A [`Written`] value in a type that serde and schemars read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T: Written> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        T::read(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<T: Written> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<T: Written> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string", "x-format": T::FORMAT });
        if !T::EXAMPLES.is_empty() {
            schema.insert("examples".to_owned(), T::EXAMPLES.into());
        }
        schema
    }
}

/// One row of [`FORMATS`]: what the structural check needs to know of a [`Written`] type.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) examples: &'static [&'static str],
    pub(crate) problem: fn(&str) -> Option<String>,
}

const fn format<T: Written>() -> Format {
    Format { name: T::FORMAT, what: T::WHAT, examples: T::EXAMPLES, problem: |text| T::read(text).err() }
}

/// Every format that the schema may name.
pub(crate) const FORMATS: &[Format] = &[
    format::<Duration>(),
    format::<Size>(),
    format::<Rate>(),
    format::<Quota>(),
    format::<Zone>(),
    format::<CpuShare>(),
    format::<ByteRate>(),
    format::<SocketAddr>(),
    format::<IpNet>(),
    format::<Endpoint>(),
    format::<Module>(),
    format::<Prefix>(),
    format::<PublicKey>(),
    format::<Digest>(),
    format::<Capability>(),
    format::<Pattern>(),
    format::<ModulePattern>(),
    format::<HostPattern>(),
    format::<Token>(),
    format::<http::Method>(),
    format::<http::HeaderName>(),
    format::<LogTarget>(),
    format::<Upgrade>(),
    format::<By>(),
    format::<Percent>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn every_example_is_read_and_written_back_with_the_same_meaning() {
        fn check<T: Written + PartialEq + std::fmt::Debug>() {
            for example in T::EXAMPLES {
                let value = T::read(example).unwrap();
                assert_eq!(T::read(&value.write()).unwrap(), value, "{example}");
            }
        }
        check::<Duration>();
        check::<Size>();
        check::<Rate>();
        check::<CpuShare>();
        check::<ByteRate>();
        check::<SocketAddr>();
        check::<IpNet>();
        check::<Endpoint>();
        check::<Module>();
        check::<Prefix>();
        check::<Digest>();
        check::<Token>();
        check::<http::Method>();
        check::<Upgrade>();
    }

    #[test]
    fn a_token_is_known_by_its_digest_and_not_shown() {
        let token = Token::read("correct-horse-battery").unwrap();
        assert!(token.is(b"correct-horse-battery") && !token.is(b"correct-horse-batterx") && !token.is(b""));
        assert_eq!(Token::read(&token.write()).unwrap(), token, "its digest stands for it");
        assert_eq!(format!("{token:?}"), "Token(…)");
        for (text, why) in [
            ("short", "it has fewer than 16 characters"),
            ("sixteen letters and spaces", "it has characters that `Authorization: Bearer` cannot carry"),
            ("sha256:9f", "it has 2 characters, not 64"),
        ] {
            assert_eq!(Token::read(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let rows = [
            ("duration", &["5", "s", "5sec", "0s", "1.5s", "99999999999999999999s"][..]),
            ("size", &["16", "16MB", "99999999999GiB"]),
            ("rate", &["500", "500/d", "/s", "0/s"]),
            ("cpu-share", &["100ms", "100/s"]),
            ("socket-address", &["8080", ":8080", "localhost:80", "0.0.0.0:http", "0.0.0.0:70000"]),
            ("network", &["10.0.0.1/8", "10/8", "all"]),
            ("endpoint", &["http://a:1", "a", "a:0", "a b:1", "[::1:1", "-a:1"]),
            ("module", &["auth", "builtin:", "oci:x"]),
            ("sha256", &["9f", &"g".repeat(64)]),
            ("method", &["get", "G T"]),
        ];
        let mut said = String::new();
        for (name, texts) in rows {
            let format = FORMATS.iter().find(|format| format.name == name).unwrap();
            for text in texts {
                let problem = (format.problem)(text).unwrap_or("READ".to_owned());
                said += &format!("{name} {}: {problem}\n", text.get(..24).unwrap_or(text));
            }
        }
        expect![[r#"
            duration 5: it has no unit
            duration s: it does not begin with a whole number
            duration 5sec: `sec` is not one of the units `us`, `ms`, `s`, `m`, `h`
            duration 0s: it must be more than zero
            duration 1.5s: it has a fraction; use a smaller unit
            duration 99999999999999999999s: the number is too large
            size 16: it has no unit
            size 16MB: `MB` is not one of the units `B`, `KiB`, `MiB`, `GiB`
            size 99999999999GiB: it is too large
            rate 500: it has no `/`
            rate 500/d: `d` is not one of `s`, `m`, `h`
            rate /s: it does not begin with a whole number
            rate 0/s: it must be more than zero
            cpu-share 100ms: it does not end in `/s`
            cpu-share 100/s: it has no unit
            socket-address 8080: it has no port
            socket-address :8080: it has no address
            socket-address localhost:80: `localhost` is not an IP address
            socket-address 0.0.0.0:http: `http` is not a port
            socket-address 0.0.0.0:70000: `70000` is not a port
            network 10.0.0.1/8: bits are set behind its prefix; the network is `10.0.0.0/8`
            network 10/8: it is neither an address nor an address with `/` and a length
            network all: it is neither an address nor an address with `/` and a length
            endpoint http://a:1: it has a scheme; the upstream's `protocol` says how to speak to it
            endpoint a: it has no port
            endpoint a:0: `0` is not a port
            endpoint a b:1: `a b` is not a host
            endpoint [::1:1: `[::1` is not a host
            endpoint -a:1: `-a` is not a host
            module auth: it begins with none of `builtin:`, `file:`, `oci://` and `https://`
            module builtin:: nothing follows the colon
            module oci:x: it begins with none of `builtin:`, `file:`, `oci://` and `https://`
            sha256 9f: it has 2 characters, not 64
            sha256 gggggggggggggggggggggggg: it has characters that are not hexadecimal digits
            method get: methods are written in capitals: `GET`
            method G T: it is not a token
        "#]]
        .assert_eq(&said);
    }
}
