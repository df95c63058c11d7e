//! What grants are written with: names and beginnings of names, modules, hosts, functions of the ABI.

use portcullis_core::route::HostPattern;
use portcullis_vm::Capabilities;

use super::names::nearest;
use super::written::{Digest, Written};

/// A name, or what names begin with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Exact(Box<str>),
    /// What stood before the `*`.
    Beginning(Box<str>),
}

impl Pattern {
    /// Whether a name fits. One that leads out of where it begins, as a path with `..` does, does not.
    pub(crate) fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Beginning(start) => name.strip_prefix(&**start).is_some_and(|rest| !rest.contains("..")),
        }
    }
}

impl Written for Pattern {
    const FORMAT: &'static str = "pattern";
    const WHAT: &'static str = "a name, or the beginning of names with `*`";
    const EXAMPLES: &'static [&'static str] = &["orders", "shared-*", "*"];

    fn read(text: &str) -> Result<Self, String> {
        let (start, is_whole) = text.strip_suffix('*').map_or((text, true), |start| (start, false));
        if start.contains('*') {
            return Err("`*` stands at the end only".to_owned());
        }
        match (start, is_whole) {
            ("", true) => Err("it is empty".to_owned()),
            (start, true) => Ok(Self::Exact(start.into())),
            (start, false) => Ok(Self::Beginning(start.into())),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Exact(name) => name.to_string(),
            Self::Beginning(start) => format!("{start}*"),
        }
    }
}

/// Which modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModulePattern {
    /// That of this digest, wherever it is from.
    Digest([u8; 32]),
    /// Those with such a reference.
    Reference(Pattern),
}

impl ModulePattern {
    /// Whether a module fits.
    pub(crate) fn fits(&self, reference: &str, digest: &[u8; 32]) -> bool {
        match self {
            Self::Digest(granted) => granted == digest,
            Self::Reference(pattern) => pattern.fits(reference),
        }
    }
}

impl Written for ModulePattern {
    const FORMAT: &'static str = "module-pattern";
    const WHAT: &'static str = "a module, or the beginning of modules with `*`";
    const EXAMPLES: &'static [&'static str] = &["builtin:auth", "builtin:*", "file:*"];

    fn read(text: &str) -> Result<Self, String> {
        match text.strip_prefix("sha256:") {
            Some(digest) => Digest::read(digest).map(|digest| Self::Digest(digest.0)),
            None => Pattern::read(text).map(Self::Reference),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Digest(digest) => format!("sha256:{}", Digest(*digest).write()),
            Self::Reference(pattern) => pattern.write(),
        }
    }
}

impl Written for HostPattern {
    const FORMAT: &'static str = "host";
    const WHAT: &'static str = "a host";
    const EXAMPLES: &'static [&'static str] = &["acme.example.com", "*.example.com"];

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A function of the ABI that can be granted to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability(pub(crate) &'static str);

impl Written for Capability {
    const FORMAT: &'static str = "capability";
    const WHAT: &'static str = "a function of the ABI that can be granted";
    const EXAMPLES: &'static [&'static str] = &["proxy_http_call", "proxy_on_request_headers", "fd_write"];

    fn read(text: &str) -> Result<Self, String> {
        let known: Vec<&str> = Capabilities::names().collect();
        let found = Capabilities::names().find(|name| *name == text).map(Self);
        found.ok_or_else(|| match nearest(text, &known) {
            Some(near) => format!("`{near}` is close"),
            None => "no function that can be granted has this name".to_owned(),
        })
    }

    fn write(&self) -> String {
        self.0.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        let fits = |pattern: &str, name: &str| Pattern::read(pattern).unwrap().fits(name);
        assert!(fits("orders", "orders") && fits("shared-*", "shared-a") && fits("*", "any"));
        assert!(!fits("orders", "orders-2") && !fits("shared-*", "own-shared-a"));
        assert!(!fits("https://modules.example/acme/*", "https://modules.example/acme/../other/a.wasm"));
        assert_eq!(Pattern::read(""), Err("it is empty".to_owned()));
        assert_eq!(Pattern::read("a*b"), Err("`*` stands at the end only".to_owned()));
        let digest = format!("sha256:{}", "0f".repeat(32));
        let module = ModulePattern::read(&digest).unwrap();
        assert!(module.fits("file:a.wasm", &[15; 32]) && !module.fits(&digest, &[0; 32]));
        for text in [&digest, "builtin:*", "file:plugins/a.wasm"] {
            assert_eq!(ModulePattern::read(text).unwrap().write(), text);
        }
    }

    #[test]
    fn a_capability_is_a_name_of_the_abi() {
        for name in Capability::EXAMPLES {
            assert_eq!(Capability::read(name).unwrap().write(), *name);
        }
        for (text, why) in [
            ("proxy_http_cal", "`proxy_http_call` is close"),
            ("malloc", "no function that can be granted has this name"),
            ("proc_exit", "no function that can be granted has this name"),
        ] {
            assert_eq!(Capability::read(text), Err(why.to_owned()));
        }
    }
}
