//! The admin listener: whether the gateway lives and is ready, its metrics, its configuration.
//!
//! It only reads. It has no login, so it belongs on a loopback or otherwise private address; and since a page in a browser on
//! such a network could be made to ask it (DNS rebinding), it answers only those who name it by an address it has, or as
//! `localhost`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;

use crate::telemetry::Telemetry;

/// Connections served at once. The next one waits; an idle one ends after [`PATIENCE`].
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when the process has run out of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

const INDEX: &str = "\
Portcullis

/live     200 while the process lives
/ready    200 while requests are served, 503 while starting or draining
/metrics  for Prometheus
/config   the configuration, without secrets
";

/// Where the gateway stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its workers do not serve yet.
    Starting,
    /// They do.
    Ready,
    /// They finish what they are at, and take nothing new.
    Draining,
}

/// Where the gateway stands, for all to see.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// The workers serve.
    pub fn set_ready(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// The workers take nothing new.
    pub fn set_draining(&self) {
        self.0.store(2, Ordering::Relaxed);
    }

    /// Where the gateway stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

/// What the admin listener shows.
#[derive(Clone, Debug)]
pub struct AdminState {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    config: watch::Receiver<Bytes>,
    bind: IpAddr,
}

impl AdminState {
    /// `config` is shown as it is: it must not hold secrets. `bind` is the address the listener was told to have.
    #[must_use]
    pub fn new(
        telemetry: Arc<Telemetry>,
        readiness: Arc<Readiness>,
        config: watch::Receiver<Bytes>,
        bind: SocketAddr,
    ) -> Self {
        Self { telemetry, readiness, config, bind: bind.ip() }
    }
}

/// Serves until dropped, on the thread it is polled on.
pub async fn serve(listener: TcpListener, state: AdminState) {
    let state = Rc::new(state);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                spawn_local(async move {
                    connection(stream, state).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, state: Rc<AdminState>) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &state, local.ip());
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn answer<B>(request: &Request<B>, state: &AdminState, local: IpAddr) -> Response<Full<Bytes>> {
    if !is_for_us(request, &[state.bind, local]) {
        return problem(StatusCode::FORBIDDEN, "wrong_host", "Ask for this listener by its address");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This listener only reads");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/" => response(StatusCode::OK, TEXT, INDEX),
        "/live" => response(StatusCode::OK, TEXT, "live\n"),
        "/ready" => match state.readiness.phase() {
            Phase::Ready => response(StatusCode::OK, TEXT, "ready\n"),
            Phase::Starting => problem(StatusCode::SERVICE_UNAVAILABLE, "starting", "The gateway is starting"),
            Phase::Draining => problem(StatusCode::SERVICE_UNAVAILABLE, "draining", "The gateway is draining"),
        },
        "/metrics" => response(StatusCode::OK, METRICS, state.telemetry.render()),
        "/config" => response(StatusCode::OK, JSON, state.config.borrow().clone()),
        _ => problem(StatusCode::NOT_FOUND, "not_found", "There is no such page"),
    }
}

/// Whether the request names us by an address of ours. A browser always says which name it asks for, and a rebound name is not
/// one of these; a probe that says nothing at all (HTTP/1.0) is no browser.
fn is_for_us<B>(request: &Request<B>, ours: &[IpAddr]) -> bool {
    let hosts = request.headers().get_all(header::HOST);
    let mut named = hosts.iter().map(|host| Authority::try_from(host.as_bytes()));
    hosts.iter().count() <= 1
        && named.all(|name| name.is_ok_and(|name| is_ours(&name, ours)))
        && request.uri().authority().is_none_or(|name| is_ours(name, ours))
}

fn is_ours(name: &Authority, ours: &[IpAddr]) -> bool {
    let host = name.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let has_user = name.as_str().contains('@');
    !has_user
        && match bare.parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback() || ours.iter().any(|ours| ours.to_canonical() == address)
            }
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
}

fn problem(status: StatusCode, code: &str, title: &str) -> Response<Full<Bytes>> {
    let number = status.as_u16();
    let body = format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{number},\"code\":\"{code}\"}}\n");
    response(status, PROBLEM, body)
}

fn response(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::telemetry::AccessLogTarget;

    /// Runs `ask` beside an admin listener on an address of its own.
    fn beside(ask: impl AsyncFnOnce(SocketAddr, &Readiness)) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let readiness = Arc::<Readiness>::default();
            let (_shown, config) = watch::channel(Bytes::from_static(b"{\n  \"version\": 1\n}\n"));
            let telemetry = Telemetry::new(AccessLogTarget::Off);
            let state = AdminState::new(telemetry, readiness.clone(), config, address);
            tokio::select! {
                () = serve(listener, state) => unreachable!("it serves until dropped"),
                () = ask(address, &readiness) => {}
            }
        });
    }

    /// Sends a head and reads the answer to its end.
    async fn exchange(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    async fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> String {
        exchange(address, &format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await
    }

    #[test]
    fn every_page_is_there_and_nothing_else() {
        beside(async |address, _| {
            for (method, path, status, want) in [
                ("GET", "/", 200, "/metrics  for Prometheus"),
                ("GET", "/live", 200, "live\n"),
                ("GET", "/live?x=1", 200, "live\n"),
                ("GET", "/metrics", 200, "# TYPE http_server_request_duration_seconds histogram\n"),
                ("GET", "/metrics", 200, "content-type: text/plain; version=0.0.4"),
                ("GET", "/config", 200, "{\n  \"version\": 1\n}\n"),
                ("GET", "/nothing", 404, "\"code\":\"not_found\""),
                ("GET", "/live/", 404, "application/problem+json"),
                ("POST", "/live", 405, "allow: GET, HEAD"),
                ("DELETE", "/config", 405, "\"code\":\"method_not_allowed\""),
            ] {
                let answer = ask(address, method, path, &address.to_string()).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
                assert!(answer.contains(want), "{method} {path}: {answer}");
            }
        });
    }

    #[test]
    fn head_is_answered_without_a_body() {
        beside(async |address, _| {
            for path in ["/live", "/metrics", "/config", "/nothing"] {
                let answer = ask(address, "HEAD", path, &address.to_string()).await;
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                assert!(head.contains("content-length: ") && body.is_empty(), "{path}: {answer}");
            }
        });
    }

    #[test]
    fn it_is_ready_only_while_workers_serve() {
        beside(async |address, readiness| {
            let host = address.to_string();
            let starting = ask(address, "GET", "/ready", &host).await;
            assert!(starting.starts_with("HTTP/1.1 503 ") && starting.contains("\"code\":\"starting\""), "{starting}");
            readiness.set_ready();
            assert!(ask(address, "GET", "/ready", &host).await.starts_with("HTTP/1.1 200 "));
            readiness.set_draining();
            let draining = ask(address, "GET", "/ready", &host).await;
            assert!(draining.starts_with("HTTP/1.1 503 ") && draining.contains("\"code\":\"draining\""), "{draining}");
            assert!(ask(address, "GET", "/live", &host).await.starts_with("HTTP/1.1 200 "));
        });
    }

    #[test]
    fn only_those_who_name_it_by_an_address_of_its_own_are_answered() {
        beside(async |address, _| {
            let ip = address.ip();
            for (host, status) in [
                (address.to_string().as_str(), 200),
                (&ip.to_string(), 200),
                ("localhost:9901", 200),
                ("LOCALHOST", 200),
                ("[::1]:9901", 200),
                ("[::ffff:127.0.0.1]", 200),
                ("127.0.0.53", 200),
                ("evil.example", 403),
                ("127.0.0.1.evil.example", 403),
                ("localhost.evil.example", 403),
                ("localhost@evil.example", 403),
                ("evil.example@localhost", 403),
                ("192.0.2.1", 403),
                ("2130706433", 403),
                ("0.0.0.0", 403),
                ("", 403),
                ("a b", 403),
            ] {
                let answer = ask(address, "GET", "/config", host).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host:?}: {answer}");
            }
            let twice = format!("{ip}\r\nhost: evil.example");
            assert!(ask(address, "GET", "/config", &twice).await.starts_with("HTTP/1.1 403 "));
            let absolute = ask(address, "GET", "http://evil.example/config", &ip.to_string()).await;
            assert!(absolute.starts_with("HTTP/1.1 403 "), "{absolute}");
        });
    }

    #[test]
    fn a_probe_that_names_no_host_is_no_browser() {
        beside(async |address, _| {
            let answer = exchange(address, "GET /live HTTP/1.0\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        });
    }

    #[test]
    fn an_address_it_was_reached_at_will_do_where_it_listens_on_all() {
        let any: IpAddr = [0, 0, 0, 0].into();
        let local: IpAddr = [10, 1, 2, 3].into();
        for (host, ours) in [("10.1.2.3:9901", true), ("10.1.2.4:9901", false)] {
            let request = Request::builder().uri("/metrics").header(header::HOST, host).body(()).unwrap();
            assert_eq!(is_for_us(&request, &[any, local]), ours, "{host}");
        }
    }
}
