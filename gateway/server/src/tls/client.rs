//! Connections to upstreams: the handshake, in which the upstream always has to prove who it is.

use std::io;
use std::pin::Pin;
#[allow(clippy::disallowed_types, reason = "taken by the thread that watches files, never by a worker")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::{Context, Poll};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::Pair;
use super::files::{MadeOf, Part, Shown};
use super::{H2, HTTP_1_1, from_version, provider};
use crate::config::TlsVersion;
use crate::config::snapshot::Protocol;

/// How the connections to an upstream are encrypted.
pub(crate) struct Client {
    settings: Settings,
    #[allow(clippy::disallowed_types, reason = "taken by the thread that watches files, never by a worker")]
    parts: Mutex<Parts>,
    current: watch::Sender<Current>,
}

/// What new connections are made with.
#[derive(Clone)]
struct Current {
    config: Arc<ClientConfig>,
    shows: Arc<Shows>,
}

/// What is not read from files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) min_version: TlsVersion,
    pub(crate) protocol: Protocol,
    /// The name the upstream has to prove; by default the host of the endpoint.
    pub(crate) server_name: Option<ServerName<'static>>,
}

/// What is read from files.
pub(crate) struct Parts {
    pub(crate) roots: Roots,
    /// Our own certificate, for upstreams that ask for one.
    pub(crate) pair: Option<Part<Pair>>,
}

/// Whose certificates count.
pub(crate) enum Roots {
    /// Those the machine trusts.
    OfThisMachine(Arc<RootCertStore>),
    /// Those in a file, and nobody else.
    Own(Part<Arc<RootCertStore>>),
}

impl Client {
    /// # Errors
    /// When what was read cannot be used together.
    pub(crate) fn new(settings: Settings, parts: Parts) -> Result<Self, rustls::Error> {
        let current = watch::Sender::new(current(&settings, &parts)?);
        Ok(Self { settings, parts: parts.into(), current })
    }

    /// What it was made with, beside files.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What metrics say of its files.
    pub(crate) fn shown(&self) -> Vec<Arc<Shown>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = match &parts.roots {
            Roots::OfThisMachine(_) => None,
            Roots::Own(part) => Some(part.shown.clone()),
        };
        roots.into_iter().chain(parts.pair.as_ref().map(|part| part.shown.clone())).collect()
    }

    fn made_of(&self) -> Vec<MadeOf> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = match &parts.roots {
            Roots::OfThisMachine(_) => None,
            Roots::Own(part) => Some(part.made_of()),
        };
        roots.into_iter().chain(parts.pair.as_ref().map(Part::made_of)).collect()
    }

    /// Looks at its files, and takes what is new and good into use for new connections.
    pub(crate) fn poll_files(&self) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = match &mut parts.roots {
            Roots::OfThisMachine(_) => false,
            Roots::Own(part) => part.poll(),
        };
        let pair = parts.pair.as_mut().is_some_and(Part::poll);
        if !roots && !pair {
            return;
        }
        match current(&self.settings, &parts) {
            Ok(current) => _ = self.current.send_replace(current),
            Err(error) => {
                tracing::error!(%error, "changed TLS files cannot be used together; the last good ones stay in use")
            }
        }
    }

    /// Encrypts a connection to an endpoint.
    pub(crate) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<Stream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.settings.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let Current { config, shows } = self.current.borrow().clone();
        let inner = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Stream { inner, known: Arc::new(Known { fault: OnceLock::new(), shows }) })
    }
}

/// Whether they are meant to be the same: the same files for the same upstream, used in the same way.
impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.settings == other.settings && self.made_of() == other.made_of()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn current(settings: &Settings, parts: &Parts) -> Result<Current, rustls::Error> {
    let roots = match &parts.roots {
        Roots::OfThisMachine(roots) => roots.clone(),
        Roots::Own(part) => part.good(),
    };
    let own = parts.pair.as_ref().map(|part| part.good().key);
    let shows = Arc::new(Shows { own, asked: AtomicBool::new(false), answered: AtomicBool::new(false) });
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(from_version(settings.min_version))?.with_root_certificates(roots);
    let mut config = builder.with_client_cert_resolver(shows.clone());
    config.alpn_protocols = match settings.protocol {
        Protocol::Http1 => vec![HTTP_1_1.to_vec()],
        Protocol::Http2 => vec![H2.to_vec()],
        Protocol::Auto => vec![H2.to_vec(), HTTP_1_1.to_vec()],
        Protocol::Tcp => Vec::new(),
    };
    Ok(Current { config: Arc::new(config), shows })
}

/// Our certificate, if there is one, and how upstreams take it.
#[derive(Debug)]
struct Shows {
    own: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
    answered: AtomicBool,
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.own.clone()
    }

    fn has_certs(&self) -> bool {
        self.own.is_some()
    }
}

/// What is known of an encrypted connection after its handshake.
///
/// An upstream of TLS 1.3 says only then that it wants a certificate, or another one. The HTTP library passes on that
/// something was wrong, but not always what; and where the upstream closes in haste, what it said is lost on the way.
/// `Send` only because the library asks it of connections that may be upgraded.
#[derive(Debug)]
pub(crate) struct Known {
    fault: OnceLock<rustls::Error>,
    shows: Arc<Shows>,
}

impl Known {
    /// The upstream has answered over this connection.
    pub(crate) fn answered(&self) {
        self.shows.answered.store(true, Ordering::Relaxed);
    }

    /// Why the connection broke before the upstream had answered, where that has to do with TLS.
    pub(crate) fn fault(&self) -> Option<String> {
        let Shows { own, asked, answered } = &*self.shows;
        let unwelcome = asked.load(Ordering::Relaxed) && !answered.load(Ordering::Relaxed);
        match (self.fault.get(), own) {
            (Some(error), _) => Some(error.to_string()),
            (None, None) if unwelcome => Some("it asked for a certificate, got none, and broke off".to_owned()),
            (None, Some(_)) if unwelcome => Some("it asked for a certificate, got ours, and broke off".to_owned()),
            (None, _) => None,
        }
    }
}

/// An encrypted connection that keeps what TLS finds wrong with it.
pub(crate) struct Stream<S> {
    inner: TlsStream<S>,
    known: Arc<Known>,
}

impl<S> Stream<S> {
    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.clone()
    }

    /// Whether HTTP/2 was agreed on.
    pub(crate) fn speaks_h2(&self) -> bool {
        self.inner.get_ref().1.alpn_protocol() == Some(H2)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(found) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            let _first_one_counts = self.known.fault.set(found.clone());
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
