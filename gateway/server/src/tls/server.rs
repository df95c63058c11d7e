//! Clients' connections: the handshake, and what is known of the client after it.
//!
//! One [`Server`] per listener, shared by all workers: what one of them has begun with a client, another can resume. What a
//! client proved when its session began is looked at again when the session is resumed, since a certificate may have run out
//! or been revoked meanwhile. There is no early data: a request in it could be sent again by somebody else.

#[allow(clippy::disallowed_types, reason = "taken by the thread that watches files, never by a worker")]
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use portcullis_core::tls::{Certificates, ClientAuth, Tls};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::{Chooser, Pair, server_name};
use super::files::{MadeOf, Part, Shown};
use super::{H2, HTTP_1_1, from_version, identity, provider};
use crate::config::TlsVersion;

/// Sessions that are remembered for clients that do not take tickets.
const REMEMBERED: usize = 4096;
/// How long a client has to read why it is not let in.
const LINGER: Duration = Duration::from_millis(500);
/// How much of what it has sent meanwhile is taken.
const UNREAD: usize = 64 << 10;

/// How the connections of a listener are encrypted.
pub(crate) struct Server {
    settings: Settings,
    #[allow(clippy::disallowed_types, reason = "taken by the thread that watches files, never by a worker")]
    parts: Mutex<Parts>,
    current: watch::Sender<Arc<Current>>,
}

/// What does not come from files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) min_version: TlsVersion,
    pub(crate) handshake_timeout: Duration,
    /// What clients can agree on by ALPN, best first.
    pub(crate) protocols: &'static [&'static [u8]],
}

/// What listeners speak.
pub(crate) const HTTP: &[&[u8]] = &[H2, HTTP_1_1];
/// What the admin listener speaks.
pub(crate) const ADMIN: &[&[u8]] = &[HTTP_1_1];

/// What is read from files.
pub(crate) struct Parts {
    pub(crate) pairs: Vec<Part<Pair>>,
    pub(crate) verifier: Option<VerifierPart>,
}

/// Who checks clients' certificates, as read from files.
pub(crate) type VerifierPart = Part<Arc<dyn ClientCertVerifier>>;

/// What new connections are accepted with.
struct Current {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    sessions: Sessions,
}

/// What resuming a session needs: keys for tickets, which clients keep, and a memory for those that keep none.
#[derive(Clone)]
struct Sessions {
    tickets: Arc<dyn ProducesTickets>,
    memory: Arc<dyn StoresServerSessions>,
}

impl Sessions {
    fn new() -> Result<Self, rustls::Error> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self { tickets, memory: ServerSessionMemoryCache::new(REMEMBERED) })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("no handshake within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the certificate of a resumed session is not good any more: {0}")]
    NoLongerGood(rustls::Error),
    #[error("a resumed session without the certificate that is required now")]
    NoCertificate,
    #[error("the client's certificate cannot be read")]
    Unreadable,
}

impl HandshakeError {
    /// Whether it failed for the client's certificate, or for want of one.
    pub(crate) fn is_of_certificate(&self) -> bool {
        match self {
            Self::NoLongerGood(_) | Self::NoCertificate | Self::Unreadable => true,
            Self::TimedOut(_) => false,
            Self::Io(error) => matches!(
                error.get_ref().and_then(|error| error.downcast_ref()),
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
            ),
        }
    }
}

/// An encrypted connection, with what is known of it.
pub(crate) struct Accepted<S> {
    pub(crate) stream: TlsStream<S>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) speaks_h2: bool,
    pub(crate) resumed: bool,
}

impl Server {
    /// # Errors
    /// When what was read cannot be used together.
    pub(crate) fn new(settings: Settings, parts: Parts) -> Result<Self, rustls::Error> {
        let current = watch::Sender::new(Arc::new(current(settings, &parts, Sessions::new()?)?));
        Ok(Self { settings, parts: parts.into(), current })
    }

    /// What it was made with, beside files.
    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// What metrics say of its files.
    pub(crate) fn shown(&self) -> Vec<Arc<Shown>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let verifier = parts.verifier.iter().map(|part| part.shown.clone());
        parts.pairs.iter().map(|part| part.shown.clone()).chain(verifier).collect()
    }

    fn made_of(&self) -> Vec<MadeOf> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.pairs.iter().map(Part::made_of).chain(parts.verifier.as_ref().map(Part::made_of)).collect()
    }

    /// Looks at its files, and takes what is new and good into use.
    pub(crate) fn poll_files(&self) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = parts.pairs.iter_mut().filter_map(|part| part.poll().then_some(())).count() > 0;
        let verifier = parts.verifier.as_mut().is_some_and(Part::poll);
        if !pairs && !verifier {
            return;
        }
        // Tickets given to those who were trusted before must not outlive that trust.
        let sessions = if verifier { Sessions::new() } else { Ok(self.current.borrow().sessions.clone()) };
        match sessions.and_then(|sessions| current(self.settings, &parts, sessions)) {
            Ok(current) => _ = self.current.send_replace(Arc::new(current)),
            Err(error) => {
                tracing::error!(%error, "changed TLS files cannot be used together; the last good ones stay in use")
            }
        }
    }

    /// Answers a client's handshake.
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<Accepted<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current.borrow().clone();
        let handshake = TlsAcceptor::from(current.config.clone()).accept(stream);
        let limit = self.settings.handshake_timeout;
        let stream = match tokio::time::timeout(limit, handshake.into_fallible()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => {
                let _late = tokio::time::timeout(LINGER, part(stream)).await;
                return Err(error.into());
            }
            Err(_) => return Err(HandshakeError::TimedOut(limit)),
        };
        let session = stream.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        if let (Some(verifier), true) = (&current.verifier, resumed) {
            verify_again(session, verifier.as_ref())?;
        }
        let tls = Arc::new(known(session, &current)?);
        let speaks_h2 = session.alpn_protocol() == Some(H2);
        Ok(Accepted { stream, tls, speaks_h2, resumed })
    }
}

/// Closes a connection whose client has just been told why: with something unread it would be reset, and the alert lost.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> std::io::Result<()> {
    stream.shutdown().await?;
    let (mut unread, mut left) = ([0; 512], UNREAD);
    while left > 0 {
        match stream.read(&mut unread).await? {
            0 => break,
            size => left = left.saturating_sub(size),
        }
    }
    Ok(())
}

/// Whether they are meant to be the same: the same files for the same listener, used in the same way.
impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.settings == other.settings && self.made_of() == other.made_of()
    }
}

impl Eq for Server {}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn current(settings: Settings, parts: &Parts, sessions: Sessions) -> Result<Current, rustls::Error> {
    let pairs: Vec<Pair> = parts.pairs.iter().map(Part::good).collect();
    let verifier = parts.verifier.as_ref().map(Part::good);
    let chooser = Arc::new(Chooser::new(&pairs));
    let certificates = chooser.certificates.clone();
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(from_version(settings.min_version))?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(chooser);
    config.alpn_protocols = settings.protocols.iter().map(|name| name.to_vec()).collect();
    config.ticketer = sessions.tickets.clone();
    config.session_storage = sessions.memory.clone();
    Ok(Current { config: Arc::new(config), certificates, verifier, sessions })
}

fn verify_again(session: &ServerConnection, verifier: &dyn ClientCertVerifier) -> Result<(), HandshakeError> {
    match session.peer_certificates().and_then(<[_]>::split_first) {
        Some((leaf, chain)) => {
            let verified = verifier.verify_client_cert(leaf, chain, UnixTime::now());
            verified.map(|_| ()).map_err(HandshakeError::NoLongerGood)
        }
        None if verifier.client_auth_mandatory() => Err(HandshakeError::NoCertificate),
        None => Ok(()),
    }
}

fn known(session: &ServerConnection, current: &Current) -> Result<Tls, HandshakeError> {
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let peer = leaf.map(|leaf| identity::read(leaf)).transpose().map_err(|_| HandshakeError::Unreadable)?;
    Ok(Tls {
        version: if session.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "TLSv1.2" } else { "TLSv1.3" },
        server_name: session.server_name().map(server_name),
        client_auth: if current.verifier.is_some() { ClientAuth::Asked } else { ClientAuth::Off },
        certificates: current.certificates.clone(),
        peer: peer.map(|peer| peer.certificate),
    })
}
