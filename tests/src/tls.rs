//! Clients and origins that speak TLS, by rustls and without the gateway's own code.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::PATIENCE;
use crate::client::{Client, H2};
use crate::pki::{Authority, Issued};
use crate::wire::Wire;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    Arc::new(roots)
}

/// Makes connections; its clones resume each other's sessions.
#[derive(Clone, Debug)]
pub struct Dialer(ClientConfig);

impl Dialer {
    /// One that trusts servers of this authority and shows no certificate.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        Self::of_versions(authority, rustls::ALL_VERSIONS, None)
    }

    /// One that shows this certificate.
    #[must_use]
    pub fn showing(authority: &Authority, issued: &Issued) -> Self {
        Self::of_versions(authority, rustls::ALL_VERSIONS, Some(issued))
    }

    /// One that speaks these versions.
    ///
    /// # Panics
    /// When the certificate is none.
    #[must_use]
    pub fn of_versions(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&Issued>,
    ) -> Self {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots(authority));
        Self(match shows {
            Some(issued) => builder.with_client_auth_cert(vec![issued.der()], issued.key_der()).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    /// Offering these protocols.
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Not saying which host it wants to reach.
    #[must_use]
    pub fn nameless(mut self) -> Self {
        self.0.enable_sni = false;
        self
    }

    /// Forgetting its sessions.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.0.resumption = Resumption::disabled();
        self
    }

    /// Connects to an address, for a name the server has to prove.
    ///
    /// # Errors
    /// When nobody listens there, or what is wrong with the handshake.
    ///
    /// # Panics
    /// When the name is none.
    pub fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<Client> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(Arc::new(self.0.clone()), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Client(Wire::over_tls(stream, tls)))
    }

    /// As [`Self::try_connect`], where it has to work.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn connect(&self, address: SocketAddr, name: &str) -> Client {
        self.try_connect(address, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A connection that speaks HTTP/2.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn h2(&self, address: SocketAddr, name: &str) -> H2 {
        let config = self.clone().offering(&["h2"]).0;
        H2::over_tls(address, Arc::new(config), ServerName::try_from(name.to_owned()).unwrap())
    }

    /// Whether a server lets it in, and serves it.
    ///
    /// A refusal may come after the handshake: in TLS 1.3 the client ends first.
    ///
    /// # Errors
    /// What the server says instead.
    pub fn is_let_in(&self, address: SocketAddr, name: &str) -> io::Result<()> {
        let mut client = self.try_connect(address, name)?;
        client.0.write(crate::client::request("GET", "/", &[("host", name)], ""))?;
        client.0.message().map(|_| ())
    }
}

/// What is to be seen of a client's session.
pub trait Session {
    /// The certificate the server has shown.
    fn certificate(&self) -> CertificateDer<'static>;
    /// The protocol that was agreed on.
    fn protocol(&self) -> String;
    /// Whether it was resumed.
    fn resumed(&self) -> bool;
}

impl Session for Client {
    fn certificate(&self) -> CertificateDer<'static> {
        self.0.tls().peer_certificates().unwrap()[0].clone().into_owned()
    }

    fn protocol(&self) -> String {
        String::from_utf8_lossy(self.0.tls().alpn_protocol().unwrap_or_default()).into_owned()
    }

    fn resumed(&self) -> bool {
        self.0.tls().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}

/// How an origin encrypts its connections. With an authority, its clients must have a certificate of it.
///
/// # Panics
/// When the certificate is none.
#[must_use]
pub fn origin(issued: &Issued, protocols: &[&str], clients: Option<&Authority>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        Some(authority) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(vec![issued.der()], issued.key_der()).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
