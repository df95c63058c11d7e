//! Values that are written as text: durations, sizes, rates, addresses, hosts, modules.
//!
//! Each is read by one function. Serde, the JSON Schema and the structural check all go through it, so they agree.
//! **Invariant:** the reason for a refusal may quote the text, since it is not shown for text that holds a secret.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_abi::calendar::{self, Unit};
use portcullis_core::rollout::{By, WHOLE};
use portcullis_core::route::HostPattern;
use portcullis_core::upgrade::Upgrade;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use super::granted::{Capability, ModulePattern, Pattern};
use crate::modules::reference::{Prefix, Remote, SCHEMES};
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

fn split_unit(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a whole number".to_owned());
    }
    if unit.starts_with('.') {
        return Err("it has a fraction; use a smaller unit".to_owned());
    }
    let number = number.parse().map_err(|_| "the number is too large".to_owned())?;
    if unit.is_empty() { Err("it has no unit".to_owned()) } else { Ok((number, unit.trim_start())) }
}

fn positive(number: u64) -> Result<u64, String> {
    if number == 0 { Err("it must be more than zero".to_owned()) } else { Ok(number) }
}

impl Written for Duration {
    const FORMAT: &'static str = "duration";
    const WHAT: &'static str = "a duration";
    const EXAMPLES: &'static [&'static str] = &["5s", "250ms", "2m", "1h"];

    fn read(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        let number = positive(number)?;
        let seconds = |each: u64| number.checked_mul(each).map(Self::from_secs).ok_or("it is too long".to_owned());
        match unit {
            "us" => Ok(Self::from_micros(number)),
            "ms" => Ok(Self::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            _ => Err(format!("`{unit}` is not one of the units `us`, `ms`, `s`, `m`, `h`")),
        }
    }

    fn write(&self) -> String {
        match self.as_micros() {
            micros if micros % 1_000_000 == 0 => format!("{}s", micros / 1_000_000),
            micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
            micros => format!("{micros}us"),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Written for Size {
    const FORMAT: &'static str = "size";
    const WHAT: &'static str = "a size";
    const EXAMPLES: &'static [&'static str] = &["16MiB", "64KiB", "1GiB"];

    fn read(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(format!("`{unit}` is not one of the units `B`, `KiB`, `MiB`, `GiB`")),
        };
        let bytes = positive(number)?.checked_mul(1 << shift).ok_or("it is too large".to_owned())?;
        Ok(Self(bytes))
    }

    fn write(&self) -> String {
        match self.0 {
            bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
            bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
            bytes => format!("{bytes}B"),
        }
    }
}

/// A number of events in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In which time.
    pub per: Duration,
}

impl Written for Rate {
    const FORMAT: &'static str = "rate";
    const WHAT: &'static str = "a rate";
    const EXAMPLES: &'static [&'static str] = &["500/s", "1000/m", "20/h"];

    fn read(text: &str) -> Result<Self, String> {
        let (count, per) = text.split_once('/').ok_or("it has no `/`".to_owned())?;
        let count = count.trim().parse().map_err(|_| "it does not begin with a whole number".to_owned())?;
        let per = match per.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            other => return Err(format!("`{other}` is not one of `s`, `m`, `h`")),
        };
        Ok(Self { count: positive(count)?, per: Duration::from_secs(per) })
    }

    fn write(&self) -> String {
        let per = match self.per.as_secs() {
            60 => "m",
            3600 => "h",
            _ => "s",
        };
        format!("{}/{per}", self.count)
    }
}

/// A number of events in a unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// How many.
    pub(crate) count: u64,
    /// In which unit.
    pub(crate) unit: Unit,
}

impl Written for Quota {
    const FORMAT: &'static str = "quota";
    const WHAT: &'static str = "a quota";
    const EXAMPLES: &'static [&'static str] = &["100000/month", "10000/day", "1000/hour"];

    fn read(text: &str) -> Result<Self, String> {
        let (count, unit) = text.split_once('/').ok_or("it has no `/`".to_owned())?;
        let count = count.trim().parse().map_err(|_| "it does not begin with a whole number".to_owned())?;
        let other = || format!("`{}` is not one of `hour`, `day`, `month`", unit.trim());
        Ok(Self { count: positive(count)?, unit: Unit::named(unit.trim()).ok_or_else(other)? })
    }

    fn write(&self) -> String {
        format!("{}/{}", self.count, self.unit.name())
    }
}

/// An offset from UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone(pub(crate) calendar::Zone);

impl Written for Zone {
    const FORMAT: &'static str = "zone";
    const WHAT: &'static str = "an offset from UTC";
    const EXAMPLES: &'static [&'static str] = &["+01:00", "-05:00"];

    fn read(text: &str) -> Result<Self, String> {
        calendar::Zone::parse(text).map(Self).ok_or_else(|| "it is not of the form `+01:00`".to_owned())
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// Processor time in each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuShare(pub(crate) Duration);

impl Written for CpuShare {
    const FORMAT: &'static str = "cpu-share";
    const WHAT: &'static str = "a share of processor time";
    const EXAMPLES: &'static [&'static str] = &["100ms/s", "2s/s"];

    fn read(text: &str) -> Result<Self, String> {
        let share = text.strip_suffix("/s").ok_or("it does not end in `/s`".to_owned())?;
        Duration::read(share.trim()).map(Self)
    }

    fn write(&self) -> String {
        format!("{}/s", self.0.write())
    }
}

/// A number of bytes in each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRate(pub(crate) Size);

impl Written for ByteRate {
    const FORMAT: &'static str = "byte-rate";
    const WHAT: &'static str = "a number of bytes in each second";
    const EXAMPLES: &'static [&'static str] = &["64KiB/s", "1MiB/s"];

    fn read(text: &str) -> Result<Self, String> {
        let size = text.strip_suffix("/s").ok_or("it does not end in `/s`".to_owned())?;
        Size::read(size.trim()).map(Self)
    }

    fn write(&self) -> String {
        format!("{}/s", self.0.write())
    }
}

impl Written for SocketAddr {
    const FORMAT: &'static str = "socket-address";
    const WHAT: &'static str = "an IP address and a port";
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:8080", "127.0.0.1:9901", "[::1]:8080"];

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| match text.rsplit_once(':') {
            None => "it has no port".to_owned(),
            Some((_, port)) if port.parse::<u16>().is_err() => format!("`{port}` is not a port"),
            Some(("", _)) => "it has no address".to_owned(),
            Some((address, _)) => format!("`{address}` is not an IP address"),
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Written for IpNet {
    const FORMAT: &'static str = "network";
    const WHAT: &'static str = "a network or an IP address";
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "192.0.2.7", "fd00::/8"];

    fn read(text: &str) -> Result<Self, String> {
        let address = text.parse::<std::net::IpAddr>().map(Self::from);
        let network = address.or_else(|_| text.parse::<Self>());
        let network =
            network.map_err(|_| "it is neither an address nor an address with `/` and a length".to_owned())?;
        if network.trunc() == network {
            Ok(network)
        } else {
            Err(format!("bits are set behind its prefix; the network is `{}`", network.trunc()))
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// Where an upstream listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address, without brackets, or a DNS name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// To standard output.
    #[default]
    Stdout,
    /// To the end of a file.
    File(PathBuf),
}

impl Written for LogTarget {
    const FORMAT: &'static str = "log-target";
    const WHAT: &'static str = "a place for a log";
    const EXAMPLES: &'static [&'static str] = &["stdout", "off", "file:logs/access.log"];

    fn read(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdout" => Ok(Self::Stdout),
            None if text == "off" => Ok(Self::Off),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("file", _)) => Err("it names no file".to_owned()),
            _ => Err("it is neither `stdout` nor `off`, nor begins with `file:`".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Stdout => "stdout".to_owned(),
            Self::File(path) => format!("file:{}", path.display()),
        }
    }
}

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

/// A share, in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u32);

impl Written for Percent {
    const FORMAT: &'static str = "percent";
    const WHAT: &'static str = "a percentage";
    const EXAMPLES: &'static [&'static str] = &["0.5%", "2%"];

    fn read(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').ok_or("it does not end in `%`".to_owned())?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
        let (Some(whole), Some(_), true) = (digits(whole), digits(part), part.len() <= 2) else {
            return Err("it is not a number with at most two decimals".to_owned());
        };
        let hundredths = digits(&format!("{part:0<2}")).unwrap_or_default();
        match whole.checked_mul(100).and_then(|whole| whole.checked_add(hundredths)) {
            Some(share) if share <= WHOLE => Ok(Self(share)),
            _ => Err("it is more than the whole".to_owned()),
        }
    }

    fn write(&self) -> String {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => format!("{whole}%"),
            (whole, part) => format!("{whole}.{part:02}%"),
        }
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

impl Written for Endpoint {
    const FORMAT: &'static str = "endpoint";
    const WHAT: &'static str = "a host and a port";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:9001", "orders.internal:80", "[::1]:9001"];

    fn read(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("it has a scheme; the upstream's `protocol` says how to speak to it".to_owned());
        }
        let (host, port) = text.rsplit_once(':').ok_or("it has no port".to_owned())?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(format!("`{port}` is not a port")),
            Ok(port) => port,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        if valid {
            Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
        } else {
            Err(format!("`{host}` is not a host"))
        }
    }

    fn write(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// RFC 1123 §2.1 with the underscore that container networks use.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// Where a plugin's module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// In this binary, by name.
    Builtin(String),
    /// In a file.
    File(PathBuf),
    /// On another machine.
    Remote(Remote),
}

impl Default for Module {
    fn default() -> Self {
        Self::File(PathBuf::new())
    }
}

impl Written for Module {
    const FORMAT: &'static str = "module";
    const WHAT: &'static str = "a module";
    const EXAMPLES: &'static [&'static str] = &[
        "builtin:auth",
        "file:plugins/geo.wasm",
        "oci://registry.example/acme/geo:1.4",
        "https://modules.example/geo.wasm",
    ];

    fn read(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("builtin" | "file", "")) => Err("nothing follows the colon".to_owned()),
            Some(("builtin", name)) => Ok(Self::Builtin(name.to_owned())),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            _ if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) => Remote::read(text).map(Self::Remote),
            _ => Err("it begins with none of `builtin:`, `file:`, `oci://` and `https://`".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Builtin(name) => format!("builtin:{name}"),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Remote(remote) => remote.text(),
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
