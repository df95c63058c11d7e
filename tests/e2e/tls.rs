//! TLS on both sides: who is let in by which name, what is known of them, and whom the gateway believes.

mod clients;
mod identity;
mod names;
mod peers;
mod reload;
mod sessions;
mod upstreams;

use std::fmt::Display;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::pki::{Authority, Files, Use};

/// A gateway with one encrypted listener before an origin.
const GATEWAY: &str = r#"
workers: {workers}
listeners: { main: { bind: "127.0.0.1:0", tls: { {tls} }, {more} } }
upstreams: { origin: { endpoints: ["{origin}"] }, h2: { endpoints: ["{origin}"], protocol: http2 } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "{script}" }]
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: h2, match: { path: "/h2/*" }, upstream: h2 }
"#;

/// What such a gateway is made of.
struct Scene<'s> {
    files: &'s Files,
    origin: &'s dyn Display,
    /// What stands under `tls`; `{f}` is the directory.
    tls: &'s str,
    /// What else stands in the listener.
    more: &'s str,
    script: &'s str,
    workers: usize,
}

impl<'s> Scene<'s> {
    fn new(files: &'s Files, origin: &'s dyn Display, tls: &'s str) -> Self {
        Self { files, origin, tls, more: "trusted_proxies: []", script: "headers", workers: 1 }
    }

    fn start(&self) -> Gateway {
        let tls = self.tls.replace("{f}", &self.files.to_string());
        let places: [(&str, &dyn Display); 5] = [
            ("workers", &self.workers),
            ("tls", &tls),
            ("more", &self.more),
            ("origin", self.origin),
            ("script", &self.script),
        ];
        Gateway::start(GATEWAY, &places)
    }
}

/// The usual certificate.
const ONE: &str = r#"certificates: [{ cert: "{f}/a.pem", key: "{f}/a.key" }]"#;
/// The usual certificate, with clients of an authority let in.
const MUTUAL: &str =
    r#"certificates: [{ cert: "{f}/a.pem", key: "{f}/a.key" }], client_auth: { ca: "{f}/clients.pem", {mode} }"#;

/// An authority with a certificate for `a.test`, which is in `a.pem`.
fn usual() -> (Authority, Files) {
    let (authority, files) = (Authority::new("servers"), Files::default());
    files.put_pair("a", &authority.issue(&["a.test", "also-a.test", "spiffe://test/gateway"], Use::Server));
    files.put("ca.pem", &authority.pem());
    (authority, files)
}
