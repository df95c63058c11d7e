//! Where things are: addresses, networks, endpoints, files, modules.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::Written;
use crate::modules::reference::{Remote, SCHEMES};

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
