//! An identity provider that others wrote: the npm package `oidc-provider`, installed by `cargo xtask test`.
//!
//! `tests/idp` says how it is set up. Where it is not installed there is none, and a line that says so: in CI installing it is a
//! step of its own, which fails.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::Client;
use crate::guests::target;
use crate::wire::Message;

/// The client that asks for tokens, as HTTP Basic has it.
const SHOP: &str = "shop:secret+of+the+shop";

/// A running provider. It is killed when dropped.
#[derive(Debug)]
pub struct Idp {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// What its tokens say they are of.
    pub issuer: String,
}

impl Idp {
    /// Starts it; `None`, and loudly, where it is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let packages = target().join("tools/idp");
        if !packages.join("installed").is_file() {
            eprintln!(
                "SKIPPED: there is no identity provider at {}; `cargo xtask test` installs it",
                packages.display()
            );
            return None;
        }
        let mut process = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("idp/provider.mjs"))
            .arg(packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut issuer = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut issuer).unwrap();
        let issuer = issuer.trim().to_owned();
        let address = issuer.strip_prefix("http://").and_then(|address| address.parse().ok());
        Some(Self { process, address: address.expect("the provider's issuer"), issuer })
    }

    /// A token with this scope: signed for the resource `urn:jwt`, opaque for any other.
    ///
    /// # Panics
    /// When the provider does not give one.
    #[must_use]
    pub fn token(&self, resource: &str, scope: &str) -> String {
        let form = format!("grant_type=client_credentials&resource={resource}&scope={scope}");
        let answer = self.post("/token", &form).text();
        let token = answer.split_once("\"access_token\":\"").and_then(|(_, rest)| rest.split_once('"'));
        token.unwrap_or_else(|| panic!("no token: {answer}")).0.to_owned()
    }

    /// Takes a token back.
    ///
    /// # Panics
    /// When the provider does not.
    pub fn revoke(&self, token: &str) {
        assert_eq!(self.post("/token/revocation", &format!("token={token}")).status(), 200);
    }

    /// Signs with a new key from now on; the old one is not published any more.
    ///
    /// # Panics
    /// When the provider does not.
    pub fn rotate(&self) {
        assert_eq!(self.post("/rotate", "").status(), 200);
    }

    /// Ends it.
    ///
    /// # Panics
    /// When the system does not let it be ended.
    pub fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn post(&self, path: &str, form: &str) -> Message {
        let (host, shop) = (self.address.to_string(), format!("Basic {}", STANDARD.encode(SHOP)));
        let form_type = ("content-type", "application/x-www-form-urlencoded");
        let fields = [("host", host.as_str()), ("authorization", &shop), form_type];
        Client::connect(self.address).ask("POST", path, &fields, form)
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _waited = self.process.wait();
    }
}
