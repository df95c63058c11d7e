//! References to modules on other machines: what may be written, and what is meant.
//!
//! **Invariant:** a reference has one spelling, [`Remote::text`], by which locks, caches and what tenants may fetch know it.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, Scheme};

use crate::config::{Digest, Written};

/// A module that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// From a registry, `oci://HOST/REPOSITORY:TAG@sha256:DIGEST`.
    Oci(Oci),
    /// From a web server, `https://…` or `http://…`.
    Web(Web),
}

/// An artefact in a registry (OCI Distribution Specification 1.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oci {
    /// The registry: `HOST` or `HOST:PORT`.
    pub(crate) host: String,
    pub(crate) repository: String,
    pub(crate) version: Version,
}

/// Which of a repository's artefacts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Version {
    /// The one that has the tag now.
    Tag(String),
    /// The one whose manifest has this digest, whatever the tag says.
    Pinned { tag: Option<String>, manifest: Digest },
}

/// A file on a web server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Web {
    text: String,
    host: String,
}

/// What the reference of a module on another machine may begin with.
pub(crate) const SCHEMES: [&str; 3] = ["oci://", "https://", "http://"];

impl Remote {
    /// Reads one.
    ///
    /// # Errors
    /// The reason why `text` is none, as a clause.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        match text.strip_prefix("oci://") {
            Some(rest) => Oci::read(rest).map(Self::Oci),
            None => Web::read(text).map(Self::Web),
        }
    }

    /// Its one spelling.
    pub(crate) fn text(&self) -> String {
        self.to_string()
    }

    /// Where it is: `HOST` or `HOST:PORT`.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Oci(oci) => &oci.host,
            Self::Web(web) => &web.host,
        }
    }

    /// The same, held to an artefact.
    pub(crate) fn pinned(&self, manifest: Option<Digest>) -> Self {
        match (self, manifest) {
            (Self::Oci(oci), Some(manifest)) => Self::Oci(oci.pinned(manifest)),
            (same, _) => same.clone(),
        }
    }
}

impl Oci {
    fn read(rest: &str) -> Result<Self, String> {
        let (host, rest) = rest.split_once('/').ok_or("it has no repository")?;
        let host = authority(host)?;
        let (rest, manifest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.strip_prefix("sha256:").ok_or("its digest is not of `sha256:`")?;
                (rest, Some(Digest::read(digest).map_err(|why| format!("of its digest, {why}"))?))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(format!("`{repository}` is not the name of a repository"));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("`{tag}` is not a tag"));
        }
        let version = match (tag, manifest) {
            (tag, Some(manifest)) => Version::Pinned { tag: tag.map(str::to_owned), manifest },
            (Some(tag), None) => Version::Tag(tag.to_owned()),
            (None, None) => return Err("it has neither a tag nor a digest".to_owned()),
        };
        Ok(Self { host, repository: repository.to_owned(), version })
    }

    fn pinned(&self, manifest: Digest) -> Self {
        let tag = match &self.version {
            Version::Tag(tag) => Some(tag.clone()),
            Version::Pinned { tag, .. } => tag.clone(),
        };
        Self { version: Version::Pinned { tag, manifest }, ..self.clone() }
    }
}

impl Web {
    fn read(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let host = authority(uri.authority().ok_or("it names no host")?.as_str())?;
        if text.contains('#') {
            return Err("it has a fragment".to_owned());
        }
        // Prefixes say what tenants may fetch: a path must not lead out of one.
        let path = uri.path().to_ascii_lowercase();
        let climbs = path.split('/').any(|segment| segment == "." || segment == "..");
        if climbs || ["%2e", "%2f", "%5c", "\\"].iter().any(|escaped| path.contains(escaped)) {
            return Err("its path has `.` or `..` in it, or an escaped dot or slash".to_owned());
        }
        if path.len() < 2 {
            return Err("it names no file".to_owned());
        }
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => "https",
            Some(scheme) if *scheme == Scheme::HTTP => "http",
            _ => return Err("it begins with neither `oci://`, `https://` nor `http://`".to_owned()),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self { text: format!("{scheme}://{host}{target}"), host })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.text
    }

    /// Where its signature is: the same with `.sig` after the path.
    pub(crate) fn signature_url(&self) -> String {
        match self.text.split_once('?') {
            Some((path, query)) => format!("{path}.sig?{query}"),
            None => format!("{}.sig", self.text),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oci(oci) => oci.fmt(f),
            Self::Web(web) => f.write_str(&web.text),
        }
    }
}

impl fmt::Display for Oci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, version } = self;
        write!(f, "oci://{host}/{repository}")?;
        match version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Pinned { tag, manifest } => {
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
                write!(f, "@sha256:{}", manifest.write())
            }
        }
    }
}

/// The beginning of references: what a tenant's own files may fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Whether a reference begins so, at a boundary: `oci://host/a` is no beginning of `oci://host/ab:1`.
    pub(crate) fn covers(&self, remote: &Remote) -> bool {
        let text = remote.text();
        text.strip_prefix(&self.0)
            .is_some_and(|rest| self.0.ends_with('/') || rest.is_empty() || rest.starts_with(['/', ':', '@', '?']))
    }
}

impl Written for Prefix {
    const FORMAT: &'static str = "module-prefix";
    const WHAT: &'static str = "the beginning of modules' references";
    const EXAMPLES: &'static [&'static str] = &["oci://registry.example/acme/", "https://modules.example/"];

    fn read(text: &str) -> Result<Self, String> {
        let scheme = SCHEMES.into_iter().find(|scheme| text.starts_with(scheme));
        let scheme = scheme.ok_or("it begins with neither `oci://`, `https://` nor `http://`")?;
        let rest = text.strip_prefix(scheme).unwrap_or_default();
        // Without the slash it would be a beginning of other hosts' names too.
        let (host, path) = rest.split_once('/').ok_or("it has no `/` behind the host")?;
        Ok(Self(format!("{scheme}{}/{path}", authority(host)?)))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// Whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.parse::<Authority>().map(|authority| authority.host().to_owned()).unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// A host with or without a port, in its one spelling.
pub(crate) fn authority(text: &str) -> Result<String, String> {
    let refuse = || format!("`{text}` is not a host, with or without a port");
    let authority: Authority = text.parse().map_err(|_| refuse())?;
    let port_is_one = authority.port().is_none_or(|port| port.as_u16() != 0);
    let is_one = !authority.host().is_empty() && !text.contains('@') && !text.ends_with(':') && port_is_one;
    if is_one { Ok(text.to_ascii_lowercase()) } else { Err(refuse()) }
}

/// Distribution Specification, "Pulling manifests": parts of lower-case letters and digits, with single separators between.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        ends(part.chars().next()) && ends(part.chars().last()) && part.chars().all(fits) && !part.contains("..")
    };
    name.len() <= 255 && name.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(first) && tag.chars().all(|c| first(c) || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";

    #[test]
    fn a_reference_has_one_spelling() {
        for (written, spelled) in [
            ("oci://registry.example/acme/geo:1.4", "oci://registry.example/acme/geo:1.4"),
            ("oci://Registry.Example:5000/geo:latest", "oci://registry.example:5000/geo:latest"),
            ("oci://[::1]:5000/a-b/c_d.e:_x", "oci://[::1]:5000/a-b/c_d.e:_x"),
            ("https://Modules.example/geo.wasm?v=1", "https://modules.example/geo.wasm?v=1"),
            ("http://127.0.0.1:9/geo.wasm", "http://127.0.0.1:9/geo.wasm"),
        ] {
            let read = Remote::read(written).unwrap();
            assert_eq!(read.text(), spelled);
            assert_eq!(Remote::read(spelled).unwrap(), read);
        }
        let pinned = Remote::read(&format!("oci://r.example/geo:1@sha256:{DIGEST}")).unwrap();
        assert_eq!(Remote::read("oci://r.example/geo:1").unwrap().pinned(Some(Digest([0x5e; 32]))), pinned);
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for (text, why) in [
            ("oci://registry.example", "it has no repository"),
            ("oci://registry.example/geo", "it has neither a tag nor a digest"),
            ("oci://registry.example/Geo:1", "`Geo` is not the name of a repository"),
            ("oci://registry.example/a/../b:1", "`a/../b` is not the name of a repository"),
            ("oci://registry.example/geo:", "`` is not a tag"),
            ("oci://registry.example/geo@md5:9f", "its digest is not of `sha256:`"),
            ("oci://registry.example/geo@sha256:9f", "of its digest, it has 2 characters, not 64"),
            (
                "oci://me:secret@registry.example/geo:1",
                "`me:secret@registry.example` is not a host, with or without a port",
            ),
            ("https://modules.example", "it names no file"),
            ("https://modules.example/acme/../geo.wasm", "its path has `.` or `..` in it, or an escaped dot or slash"),
            (
                "https://modules.example/acme/%2E./geo.wasm",
                "its path has `.` or `..` in it, or an escaped dot or slash",
            ),
            ("https://me@modules.example/geo.wasm", "`me@modules.example` is not a host, with or without a port"),
            ("ftp://modules.example/geo.wasm", "it begins with neither `oci://`, `https://` nor `http://`"),
        ] {
            assert_eq!(Remote::read(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_boundary() {
        let covers = |prefix: &str, text: &str| Prefix::read(prefix).unwrap().covers(&Remote::read(text).unwrap());
        assert!(covers("oci://r.example/", "oci://r.example/geo:1"));
        assert!(covers("oci://r.example/acme", "oci://r.example/acme:1"));
        assert!(covers("oci://R.example/acme", "oci://r.example/acme/geo:1"));
        assert!(!covers("oci://r.example/acme", "oci://r.example/acme2:1"));
        assert!(!covers("oci://r.example/acme/", "oci://r.example/other:1"));
        assert!(!covers("https://r.example/", "http://r.example/geo.wasm"));
        assert!(Prefix::read("oci://r.example").is_err(), "it would cover r.example.org");
    }

    #[test]
    fn loopback_is_this_machine_alone() {
        assert!(["127.0.0.1", "127.0.0.1:5000", "[::1]:5000", "localhost:5000"].into_iter().all(is_loopback));
        assert!(!["10.0.0.1", "localhost.example", "registry.example:5000"].into_iter().any(is_loopback));
    }

    #[test]
    fn a_signature_lies_beside_its_module() {
        let Remote::Web(web) = Remote::read("https://m.example/geo.wasm?v=1").unwrap() else { panic!() };
        assert_eq!(web.signature_url(), "https://m.example/geo.wasm.sig?v=1");
    }
}
