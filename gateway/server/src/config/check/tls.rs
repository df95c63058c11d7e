//! Certificates, keys and authorities: found, read and held against each other.
//!
//! What is read here is what is used: the listeners and upstreams that come out of it are ready, and read their files again
//! themselves when those change.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;

use super::Check;
use crate::config::file;
use crate::config::file::ForwardedCertificate;
use crate::config::snapshot::Protocol;
use crate::config::tree::{Key, Node, Value};
use crate::diagnostic::{Diagnostic, Span};
use crate::tls::certificates::{self, Pair};
use crate::tls::client::{self, Client, Roots};
use crate::tls::files::{self, File, Owner, Part, Problem};
use crate::tls::server::{self, Server};
use crate::tls::trust;

/// The authorities that this machine trusts, once they have been asked for.
#[derive(Default)]
pub(super) struct MachineRoots(Option<Result<Arc<RootCertStore>, String>>);

impl Check<'_> {
    /// How the connections of a listener, or of the admin listener, are encrypted, if they are. `node` is the listener's.
    pub(super) fn server(&mut self, owner: Owner, tls: Option<&file::ListenerTls>, node: &Node) -> Option<Arc<Server>> {
        let (tls, node) = (tls?, node.get("tls")?);
        let places = node.get("certificates").map_or(&[][..], Node::list);
        let pairs: Vec<_> = places.iter().map(|place| self.pair(&owner, place)).collect();
        let verifier = tls.client_auth.as_ref().zip(node.get("client_auth"));
        let verifier = match verifier {
            Some((auth, node)) => Some(self.verifier(&owner, auth, node)?),
            None => None,
        };
        let pairs = pairs.into_iter().collect::<Option<Vec<_>>>()?;
        let parts = server::Parts { pairs, verifier };
        let settings = server::Settings {
            min_version: tls.min_version,
            handshake_timeout: tls.handshake_timeout.0,
            protocols: if owner == Owner::Admin { server::ADMIN } else { server::HTTP },
        };
        match Server::new(settings, parts) {
            Ok(server) => Some(Arc::new(server)),
            Err(error) => self.unusable(&error, &node.span),
        }
    }

    fn verifier(&mut self, owner: &Owner, auth: &file::ClientAuth, node: &Node) -> Option<server::VerifierPart> {
        let (ca, crl) = (node.get("ca")?, node.get("crl"));
        let loaded = trust::load_verifier(owner.clone(), named(ca), crl.map(named), auth.mode);
        self.taken(loaded, &[Some(ca), crl])
    }

    /// What is said of a client's certificate that nobody asks for.
    pub(super) fn forwarded_certificate(&mut self, listener: &file::Listener, node: &Node) {
        let asks = listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
        let place = node.get("forward_client_certificate").and_then(|node| node.get("mode"));
        let (useless, why) = match listener.forward_client_certificate.mode {
            ForwardedCertificate::Strip => (false, ""),
            ForwardedCertificate::Set | ForwardedCertificate::Append => {
                (!asks, "clients are not asked for certificates")
            }
            ForwardedCertificate::Keep => (listener.trusted_proxies.is_empty(), "no proxy is trusted"),
        };
        if let (true, Some(place)) = (useless, place) {
            let help = "set `tls.client_auth` to ask clients for certificates, `trusted_proxies` to believe others";
            let problem = Diagnostic::warning("there is no client certificate to forward");
            self.report(problem.at(&place.span, why).help(help));
        }
    }

    /// How an upstream's connections are encrypted, if they are.
    pub(super) fn upstream_tls(&mut self, upstream: &file::Upstream, key: &Key, node: &Node) -> Option<Arc<Client>> {
        let (Some(tls), Some(place)) = (&upstream.tls, node.get("tls")) else {
            if let (Protocol::Auto, Some(place)) = (upstream.protocol, node.get("protocol")) {
                let problem = Diagnostic::error("`protocol: auto` needs `tls`");
                let problem = problem.at(&place.span, "in the clear an upstream cannot say what it speaks");
                self.report(problem.help("write `http1` or `http2`, or encrypt the connection with `tls: {}`"));
            }
            return None;
        };
        let owner = Owner::Upstream(key.name.as_str().into());
        let server_name = self.server_name(upstream, node, place);
        let pair = match place.get("certificate") {
            Some(node) => Some(self.pair(&owner, node)?),
            None => None,
        };
        let roots = match place.get("ca") {
            Some(ca) => {
                let loaded = trust::load_roots(owner, named(ca));
                Roots::Own(self.taken(loaded, &[Some(ca)])?)
            }
            None => Roots::OfThisMachine(self.machine_roots(&place.span)?),
        };
        let settings =
            client::Settings { min_version: tls.min_version, protocol: upstream.protocol, server_name: server_name? };
        match Client::new(settings, client::Parts { roots, pair }) {
            Ok(client) => Some(Arc::new(client)),
            Err(error) => self.unusable(&error, &place.span),
        }
    }

    /// The name an upstream must prove; nothing inside for the host of each endpoint, which then must be one.
    fn server_name(
        &mut self,
        upstream: &file::Upstream,
        node: &Node,
        tls: &Node,
    ) -> Option<Option<ServerName<'static>>> {
        if let Some(place) = tls.get("server_name") {
            let name = upstream.tls.as_ref().and_then(|tls| tls.server_name.clone()).unwrap_or_default();
            return match ServerName::try_from(name) {
                Ok(name) => Some(Some(name)),
                Err(_) => {
                    let problem = Diagnostic::error(format!("`{}` is not a server's name", place.written()));
                    self.report(problem.at(&place.span, "a DNS name or an IP address is needed"));
                    None
                }
            };
        }
        let places = node.get("endpoints").map_or(&[][..], Node::list);
        let mut sound = Some(None);
        for (endpoint, place) in upstream.endpoints.iter().zip(places) {
            if ServerName::try_from(endpoint.0.host.as_str()).is_err() {
                let problem = Diagnostic::error(format!("no certificate can have the name `{}`", endpoint.0.host));
                let problem = problem.at(&place.span, "this is where the upstream's name would be taken from");
                self.report(problem.help("write the name its certificate has under `tls.server_name`"));
                sound = None;
            }
        }
        sound
    }

    fn machine_roots(&mut self, place: &Span) -> Option<Arc<RootCertStore>> {
        match self.roots.0.get_or_insert_with(trust::of_this_machine) {
            Ok(roots) => Some(roots.clone()),
            Err(why) => {
                let problem = Diagnostic::error("the authorities that this machine trusts cannot be had");
                let problem = problem.at(place, why.clone());
                self.report(problem.help("install `ca-certificates`, set `SSL_CERT_FILE`, or name a file with `ca`"));
                None
            }
        }
    }

    fn pair(&mut self, owner: &Owner, node: &Node) -> Option<Part<Pair>> {
        let (cert, key) = (node.get("cert")?, node.get("key")?);
        let loaded = certificates::load(owner.clone(), named(cert), named(key));
        self.taken(loaded, &[Some(cert), Some(key)])
    }

    /// What was read, or the reason why it was not.
    fn taken<T: Clone>(&mut self, loaded: Result<Part<T>, Problem>, places: &[Option<&Node>]) -> Option<Part<T>> {
        let first = places.first().copied().flatten()?;
        match loaded {
            Ok(part) => {
                if part.until() < files::now() {
                    let place = places.iter().flatten().last().map_or(first, |last| last);
                    let place = if part.shown.kind == files::Kind::Revocations { place } else { first };
                    let problem = Diagnostic::warning(format!("what `{}` holds has expired", place.written()));
                    self.report(problem.at(&place.span, "used all the same, until the file is replaced"));
                }
                Some(part)
            }
            Err(Problem { file, why, help }) => {
                let place = places.iter().flatten().nth(file).copied().unwrap_or(first);
                let problem = Diagnostic::error(format!("`{}` cannot be used", place.written())).at(&place.span, why);
                self.report(problem.maybe_help(help.map(str::to_owned)));
                None
            }
        }
    }

    fn unusable<T>(&mut self, error: &rustls::Error, place: &Span) -> Option<T> {
        self.report(Diagnostic::error("these TLS settings cannot be used together").at(place, error.to_string()));
        None
    }
}

fn named(place: &Node) -> File {
    let path = if let Value::Text(text) = &place.value { text.text.as_str() } else { "" };
    File::new(&place.span.source, path, place.written())
}
