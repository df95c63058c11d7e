//! Requests for modules: to registries and web servers, each bounded in time, size and hops.
//!
//! A connection is made for each request: they are few, and what is fetched once is kept. **Invariant:** a password or token is
//! only shown to the host it is for, and only over TLS, unless operators have said that this host is spoken to in the clear.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::reference::is_loopback;
use crate::config::Digest;
use crate::config::Written as _;
use crate::config::private::Configuration;
use crate::tls::{HTTP_1_1, provider, trust};

/// The largest module that is read or fetched.
pub(crate) const MAX_MODULE: usize = 64 << 20;
/// How often a server may send us elsewhere.
const MAX_HOPS: usize = 5;
/// How long one connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How much of what a server says of a failure is shown.
const SHOWN: usize = 200;

/// What is known of hosts that modules come from, by `HOST` or `HOST:PORT`.
pub(crate) type Hosts = BTreeMap<String, Host>;

/// What is known of a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Who we are there.
    pub(crate) login: Option<(String, Configuration)>,
    /// Whose certificates count there; absent: those the machine trusts.
    pub(crate) roots: Option<Arc<RootCertStore>>,
    /// Whether it is spoken to in the clear.
    pub(crate) plain: bool,
}

impl Host {
    /// What `Authorization` says to it, of the scheme `Basic`.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let (user, password) = self.login.as_ref()?;
        let pair = [user.as_bytes(), b":", password].concat();
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Why a module was not fetched, or not pushed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{host} cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("{host} breaks off: {why}")]
    Broken { host: String, why: String },
    #[error("{0} has not answered in time")]
    Late(String),
    #[error("{host} asks who we are")]
    Unauthorized { host: String, logged_in: bool },
    #[error("{url} is answered with {status}{said}")]
    Status { url: String, status: StatusCode, said: String },
    #[error("{what} is larger than {most} bytes")]
    TooLarge { what: String, most: usize },
    #[error("{what} has the digest sha256:{}, not sha256:{}", got.write(), want.write())]
    Digest { what: String, want: Digest, got: Digest },
    #[error("{url} leads elsewhere {why}")]
    Redirect { url: String, why: &'static str },
    #[error("{0} would be spoken to in the clear")]
    Plain(String),
    #[error("{what} cannot be used: {why}")]
    Malformed { what: String, why: String },
    #[error("nothing can be fetched: {0}")]
    NoRuntime(Arc<std::io::Error>),
}

/// What would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy<'e> {
    /// To say who we are at this host.
    LogIn(&'e str),
    /// To say it rightly.
    LogInAnew(&'e str),
    /// To name the authority of this host's certificate.
    Authority(&'e str),
    /// To allow that this host is spoken to in the clear.
    Plain(&'e str),
    /// To allow more time.
    Time,
    /// This.
    Words(&'static str),
}

impl FetchError {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<Remedy<'_>> {
        match self {
            Self::Unauthorized { host, logged_in: false } => Some(Remedy::LogIn(host)),
            Self::Unauthorized { host, logged_in: true } => Some(Remedy::LogInAnew(host)),
            Self::Unreachable { host, why } if why.contains("certificate") => Some(Remedy::Authority(host)),
            Self::Plain(host) => Some(Remedy::Plain(host)),
            Self::Late(_) => Some(Remedy::Time),
            Self::Status { status: StatusCode::NOT_FOUND, .. } => {
                Some(Remedy::Words("is the reference spelled right?"))
            }
            Self::Status { status: StatusCode::FORBIDDEN, .. } => {
                Some(Remedy::Words("whoever we are there may not read it"))
            }
            Self::Digest { .. } => {
                Some(Remedy::Words("what is there now is not what was meant: find out who has replaced it"))
            }
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Redirect { .. }
            | Self::NoRuntime(_)
            | Self::Malformed { .. } => None,
        }
    }
}

/// A request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
    /// The most bytes that the answer may have.
    pub(super) most: usize,
}

impl<'a> Ask<'a> {
    pub(super) fn get(url: &'a str, most: usize) -> Self {
        Self { method: Method::GET, url, fields: HeaderMap::new(), body: Bytes::new(), most }
    }
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The answer, if it is good.
    pub(super) fn good(self, url: &str) -> Result<Self, FetchError> {
        if self.status.is_success() { Ok(self) } else { Err(self.refused(url)) }
    }

    /// What its status stands for; beside the status, what the server says: one line, as registries write it or as it is.
    pub(super) fn refused(&self, url: &str) -> FetchError {
        let errors: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let message = errors.as_ref().and_then(|errors| errors.pointer("/errors/0/message")?.as_str());
        let is_text =
            self.fields.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
        let text = String::from_utf8_lossy(if is_text { &self.body } else { &[] }).into_owned();
        let line: String = message.unwrap_or(text.trim()).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let said = if line.is_empty() { line } else { format!(": {line}") };
        FetchError::Status { url: url.to_owned(), status: self.status, said }
    }
}

/// Asks hosts, until a time.
pub(crate) struct Client {
    hosts: Arc<Hosts>,
    deadline: Instant,
    /// The authorities that this machine trusts, once they have been asked for.
    machine: OnceCell<Result<Arc<RootCertStore>, String>>,
}

impl Client {
    pub(crate) fn new(hosts: Arc<Hosts>, deadline: Instant) -> Self {
        Self { hosts, deadline, machine: OnceCell::new() }
    }

    /// What is known of a host.
    pub(super) fn host(&self, host: &str) -> Option<&Host> {
        self.hosts.get(host)
    }

    /// Whether a host is spoken to in the clear where its reference does not say: registries on this machine are, by custom, unless an
    /// authority is named for them.
    pub(super) fn speaks_plainly(&self, host: &str) -> bool {
        match self.host(host) {
            Some(known) => known.plain || is_loopback(host) && known.roots.is_none(),
            None => is_loopback(host),
        }
    }

    /// Asks, and follows where the answer leads; what says who we are is left out when that is another host.
    pub(super) async fn ask(&self, mut ask: Ask<'_>) -> Result<Answer, FetchError> {
        let mut url = ask.url.to_owned();
        for _ in 0..=MAX_HOPS {
            let uri: Uri = url.parse().map_err(|_| malformed(&url, "it is not a URL"))?;
            let answer = self.ask_once(&ask, &uri, &url).await?;
            if !answer.status.is_redirection() || !(ask.method == Method::GET || ask.method == Method::HEAD) {
                return Ok(answer);
            }
            let next = answer.fields.get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| join(&uri, to));
            let next = next.ok_or_else(|| FetchError::Redirect { url: url.clone(), why: "without saying where" })?;
            let to: Uri = next.parse().map_err(|_| malformed(&next, "it is not a URL"))?;
            if let Some(why) = forbidden(&uri, &to) {
                return Err(FetchError::Redirect { url, why });
            }
            if to.authority() != uri.authority() {
                ask.fields.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err(FetchError::Redirect { url, why: "too often" })
    }

    async fn ask_once(&self, ask: &Ask<'_>, uri: &Uri, url: &str) -> Result<Answer, FetchError> {
        let host = uri.authority().ok_or_else(|| malformed(url, "it names no host"))?.as_str().to_owned();
        let all = async {
            let is_plain = uri.scheme() == Some(&Scheme::HTTP);
            if is_plain && !is_loopback(&host) && !self.host(&host).is_some_and(|known| known.plain) {
                return Err(FetchError::Plain(host.clone()));
            }
            let answer = self.exchange(request(ask, uri, &host)?, &host, is_plain).await?;
            read(answer, ask.most, url, &host).await
        };
        let all = timeout_at(self.deadline.into(), all).await;
        all.map_err(|_| FetchError::Late(host.clone()))?
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        host: &str,
        is_plain: bool,
    ) -> Result<Response<Incoming>, FetchError> {
        let unreachable = |why: String| FetchError::Unreachable { host: host.to_owned(), why };
        let authority: http::uri::Authority = host.parse().map_err(|_| unreachable("it is no host".to_owned()))?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let connect = async {
            let stream =
                TcpStream::connect((name.as_str(), port)).await.map_err(|error| unreachable(error.to_string()))?;
            if is_plain {
                return Ok(Stream::Plain(stream));
            }
            let name = ServerName::try_from(name.clone()).map_err(|error| unreachable(error.to_string()))?;
            let connector = TlsConnector::from(self.tls(host).map_err(unreachable)?);
            let stream = connector.connect(name, stream).await.map_err(|error| unreachable(error.to_string()))?;
            Ok(Stream::Encrypted(Box::new(stream)))
        };
        let connected = timeout(CONNECT, connect).await;
        let broken = |error: hyper::Error| FetchError::Broken { host: host.to_owned(), why: cause(&error) };
        match connected.map_err(|_| unreachable(format!("no connection within {CONNECT:?}")))?? {
            Stream::Plain(stream) => speak(stream, request).await.map_err(broken),
            Stream::Encrypted(stream) => speak(stream, request).await.map_err(broken),
        }
    }

    fn tls(&self, host: &str) -> Result<Arc<ClientConfig>, String> {
        let roots = match self.host(host).and_then(|known| known.roots.clone()) {
            Some(roots) => roots,
            None => self.machine.get_or_init(trust::of_this_machine).clone()?,
        };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Arc::new(config))
    }
}

/// A connection.
enum Stream {
    Plain(TcpStream),
    Encrypted(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn speak<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    spawn_local(async move {
        // How it ended is told where the answer is waited for.
        let _ended = connection.await;
    });
    sender.send_request(request).await
}

fn request(ask: &Ask<'_>, uri: &Uri, host: &str) -> Result<Request<Full<Bytes>>, FetchError> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::new(Full::new(ask.body.clone()));
    *request.method_mut() = ask.method.clone();
    *request.uri_mut() = target.parse().map_err(|_| malformed(target, "it is not a path"))?;
    *request.headers_mut() = ask.fields.clone();
    request.headers_mut().insert(HOST, HeaderValue::try_from(host).map_err(|_| malformed(host, "it is no host"))?);
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))));
    Ok(request)
}

async fn read(answer: Response<Incoming>, most: usize, url: &str, host: &str) -> Result<Answer, FetchError> {
    let (parts, body) = answer.into_parts();
    let body =
        Limited::new(body, most).collect().await.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => FetchError::TooLarge { what: url.to_owned(), most },
            Err(error) => FetchError::Broken { host: host.to_owned(), why: cause(&*error) },
        })?;
    Ok(Answer { status: parts.status, fields: parts.headers, body: body.to_bytes() })
}

/// Why nobody is followed there: what was asked for safely shall not come in the clear, and who is elsewhere has no business here.
fn forbidden(from: &Uri, to: &Uri) -> Option<&'static str> {
    let is_here = |uri: &Uri| uri.authority().is_some_and(|authority| is_loopback(authority.as_str()));
    match () {
        () if from.scheme() == Some(&Scheme::HTTPS) && to.scheme() != Some(&Scheme::HTTPS) => Some("in the clear"),
        () if is_here(to) && !is_here(from) => Some("on this machine"),
        () => None,
    }
}

/// What `to`, as `Location` has it, means for who has asked for `from`.
pub(super) fn join(from: &Uri, to: &str) -> Option<String> {
    if to.contains("://") {
        return Some(to.to_owned());
    }
    let (scheme, authority) = (from.scheme()?, from.authority()?);
    match to.strip_prefix("//") {
        Some(_) => Some(format!("{scheme}:{to}")),
        None if to.starts_with('/') => Some(format!("{scheme}://{authority}{to}")),
        None => {
            let (folder, _) = from.path().rsplit_once('/')?;
            Some(format!("{scheme}://{authority}{folder}/{to}"))
        }
    }
}

pub(super) fn malformed(what: &str, why: impl Into<String>) -> FetchError {
    FetchError::Malformed { what: what.to_owned(), why: why.into() }
}

/// The error and what it came of, once each.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_as_from_where_it_was_said() {
        let from: Uri = "http://r.example:5000/v2/geo/blobs/x?y".parse().unwrap();
        for (to, url) in [
            ("https://cdn.example/x", "https://cdn.example/x"),
            ("//cdn.example/x", "http://cdn.example/x"),
            ("/v2/x", "http://r.example:5000/v2/x"),
            ("x", "http://r.example:5000/v2/geo/blobs/x"),
        ] {
            assert_eq!(join(&from, to).unwrap(), url);
        }
    }

    #[test]
    fn nobody_is_led_into_the_clear_or_to_this_machine() {
        let forbidden = |from: &str, to: &str| forbidden(&from.parse().unwrap(), &to.parse().unwrap());
        assert_eq!(forbidden("https://a.example/", "http://b.example/"), Some("in the clear"));
        assert_eq!(forbidden("https://a.example/", "https://127.0.0.1/"), Some("on this machine"));
        assert_eq!(forbidden("https://a.example/", "https://b.example/"), None);
        assert_eq!(forbidden("http://127.0.0.1:1/", "http://127.0.0.1:2/"), None);
    }

    #[test]
    fn what_a_server_says_is_shown_on_one_line() {
        let answer = |kind: &str, body: &'static str| {
            let fields = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind.parse().unwrap())]);
            Answer { status: StatusCode::NOT_FOUND, fields, body: Bytes::from_static(body.as_bytes()) }
                .refused("U")
                .to_string()
        };
        let errors = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\nunknown"}]}"#;
        assert_eq!(answer("application/json", errors), "U is answered with 404 Not Found: manifestunknown");
        assert_eq!(answer("text/plain; charset=utf-8", "no\n"), "U is answered with 404 Not Found: no");
        assert_eq!(answer("text/html", "<p>no"), "U is answered with 404 Not Found");
    }
}
