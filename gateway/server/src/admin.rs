//! The admin listener: whether the gateway lives and is ready, its metrics, its configuration.
//!
//! It only reads, but for `POST /reload`, `PUT /log` what is below `/v1/tenants` (`tenants`) and `/v1/rollouts`
//! (`rollouts`). Who may ask is decided in `access`.

mod access;
mod refused;
mod rollouts;
mod tenants;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_core::tls::ClientAuth;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

use self::access::{Encryption, Refusal, Via};
use self::refused::Refused;
use crate::decisions::Decisions;
use crate::life::tenants::{Change, ChangeError, Changed};
use crate::services;
use crate::supervisor::{Applied, Shown};
use crate::telemetry::{self, LogFilterError, Telemetry};
use crate::tls::server::Accepted;

/// Connections served at once. The next one waits; an idle one ends after [`PATIENCE`].
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

const INDEX: &str = "\
Portcullis

/live      200 while the process lives
/ready     200 while requests are served, 503 while starting or draining
/metrics   for Prometheus
/stats     how it fares, for people
/config    the configuration that is served, without secrets
/revision  which that is, since when, and why the last change was refused, if it was
/reload    POST: reads the configuration anew
/log       what is logged; PUT /log?level=debug changes it, until the end
/v1/tenants                   who they are, and whether what they say is in use
/v1/tenants/NAME              GET, PUT, DELETE: one of them
/v1/tenants/NAME/modules      its modules; PUT or DELETE /v1/tenants/NAME/modules/FILE.wasm
/v1/tenants/NAME/lock         GET, PUT, DELETE: what its modules' references stand for; PUT /v1/tenants/NAME?lock=missing or all writes it
/v1/rollouts                  plugins' next versions, and how they fare; POST /v1/rollouts/PLUGIN/abort or promote
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
    shown: watch::Receiver<Shown>,
    reloads: Option<UnboundedSender<Request>>,
    decisions: Arc<Decisions>,
    refused: Refused,
}

/// What is asked of those who read the configuration.
#[derive(Debug)]
pub struct Request(pub(crate) Asked);

#[derive(Debug)]
pub(crate) enum Asked {
    /// That it be read anew. Who waits gets what was put into use, or why nothing was, as `portcullis check` would print it.
    Reread(oneshot::Sender<Result<Applied, String>>),
    /// That a tenant be changed. Who waits gets what was changed, or why nothing was.
    Change(Box<Change>, oneshot::Sender<Result<Changed, ChangeError>>),
}

impl AdminState {
    /// Shows what these tell. Whoever reads `reloads` reads the configuration anew.
    #[must_use]
    pub fn new(
        telemetry: Arc<Telemetry>,
        readiness: Arc<Readiness>,
        shown: watch::Receiver<Shown>,
        reloads: Option<UnboundedSender<Request>>,
    ) -> Self {
        Self { telemetry, readiness, shown, reloads, decisions: Arc::default(), refused: Refused::default() }
    }

    /// Keeps what is decided about roll-outs there.
    pub(crate) fn keeping(self, decisions: Arc<Decisions>) -> Self {
        Self { decisions, ..self }
    }
}

/// Serves until dropped, on the thread it is polled on.
pub async fn serve(listener: TcpListener, state: AdminState) {
    let state = Rc::new(state);
    services::accept(listener, MAX_CONNECTIONS, "an admin connection", |stream| connection(stream, state.clone()))
        .await;
}

async fn connection(stream: TcpStream, state: Rc<AdminState>) {
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { return };
    let tls = state.shown.borrow().admin.as_ref().and_then(|admin| admin.tls.clone());
    let via = |encryption, who| Via { local: local.ip(), encryption, who };
    let Some(tls) = tls else {
        return exchanges(stream, state, via(Encryption::None, peer.ip().to_string())).await;
    };
    match tls.accept(stream).await {
        Ok(Accepted { stream, tls, .. }) => {
            let encryption = match (&tls.peer, tls.client_auth) {
                (Some(_), _) => Encryption::Certified,
                (None, ClientAuth::Asked) => Encryption::Uncertified,
                (None, ClientAuth::Off) => Encryption::Anonymous,
            };
            let subject = tls.peer.as_ref().map(|certificate| format!(" {}", certificate.subject));
            let who = format!("{}{}", peer.ip(), subject.unwrap_or_default());
            exchanges(stream, state, via(encryption, who)).await;
        }
        Err(error) if error.is_of_certificate() => state.refused.tell_of_certificate(peer.ip(), &error),
        Err(error) => tracing::debug!(%error, "an admin connection ended in its handshake"),
    }
}

async fn exchanges(stream: impl AsyncRead + AsyncWrite + Unpin, state: Rc<AdminState>, via: Via) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (state, via) = (state.clone(), via.clone());
        async move { Ok::<_, Infallible>(answer(request, &state, &via).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

async fn answer(request: http::Request<Incoming>, state: &AdminState, via: &Via) -> Response<Full<Bytes>> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    answer_unless_refused(request, state, via).await.unwrap_or_else(|refusal| {
        state.refused.tell((&method, uri.path()), via, refusal);
        refused(refusal)
    })
}

async fn answer_unless_refused(
    request: http::Request<Incoming>,
    state: &AdminState,
    via: &Via,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let admin = state.shown.borrow().admin.clone();
    access::check(&request, admin.as_ref(), via)?;
    if let Some(path) = below("/v1/tenants", request.uri().path()) {
        let path = path.to_owned();
        return Ok(tenants::answer(request, &path, state, via).await);
    }
    if let Some(path) = below("/v1/rollouts", request.uri().path()) {
        let query = request.uri().query().unwrap_or_default();
        return rollouts::answer((request.method(), path, query), state, via);
    }
    Ok(match (request.method(), request.uri().path()) {
        (&Method::POST, "/reload") => reload(state, via).await,
        (_, "/reload") => wrong_method("POST"),
        (&Method::PUT, "/log") => change_log(request.uri().query().unwrap_or_default(), via),
        (&Method::GET | &Method::HEAD, "/log") => log(),
        (_, "/log") => wrong_method("GET, HEAD, PUT"),
        (&Method::GET | &Method::HEAD, path) => page(path, state),
        _ => wrong_method("GET, HEAD"),
    })
}

/// What of a path lies below another.
fn below<'p>(above: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(above).filter(|rest| matches!(rest.bytes().next(), None | Some(b'/')))
}

fn page(path: &str, state: &AdminState) -> Response<Full<Bytes>> {
    match path {
        "/" => response(StatusCode::OK, TEXT, INDEX),
        "/live" => response(StatusCode::OK, TEXT, "live\n"),
        "/ready" => match state.readiness.phase() {
            Phase::Ready => response(StatusCode::OK, TEXT, "ready\n"),
            Phase::Starting => problem(StatusCode::SERVICE_UNAVAILABLE, "starting", "The gateway is starting"),
            Phase::Draining => problem(StatusCode::SERVICE_UNAVAILABLE, "draining", "The gateway is draining"),
        },
        "/metrics" => response(StatusCode::OK, METRICS, state.telemetry.render()),
        "/stats" => response(StatusCode::OK, TEXT, state.telemetry.stats()),
        "/config" => {
            let snapshot = state.shown.borrow().snapshot.clone();
            response(StatusCode::OK, JSON, format!("{:#}\n", snapshot.dump()))
        }
        "/revision" => response(StatusCode::OK, JSON, revision(&state.shown.borrow())),
        _ => problem(StatusCode::NOT_FOUND, "not_found", "There is no such page"),
    }
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    let (status, title) = match refusal {
        Refusal::Unauthorized => {
            (StatusCode::UNAUTHORIZED, "This page asks for the admin token, or a certificate where those are asked for")
        }
        Refusal::WrongHost => (StatusCode::FORBIDDEN, "Ask for this listener by its address"),
        Refusal::CrossSite => (StatusCode::FORBIDDEN, "Pages of other sites are not answered"),
        Refusal::NoAuthorization => (
            StatusCode::FORBIDDEN,
            "Whoever can reach this listener could decide: set admin.token or admin.tls.client_auth",
        ),
    };
    let mut refused = problem(status, refusal.code(), title);
    if status == StatusCode::UNAUTHORIZED {
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    refused
}

fn wrong_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This page has other methods");
    refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    refused
}

fn revision(shown: &Shown) -> String {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let refused = shown.refused.as_ref().map(|(at, why)| json!({ "at": seconds(*at), "why": &**why }));
    let Shown { revision, digest, since, held, .. } = shown;
    let since = seconds(*since);
    let held: serde_json::Map<_, _> = held.iter().map(|(name, why)| (name.to_string(), json!(why))).collect();
    let told = json!({
        "revision": revision, "digest": digest, "since": since, "refused": refused, "refused_tenants": held,
    });
    format!("{told:#}\n")
}

/// What is logged.
fn log() -> Response<Full<Bytes>> {
    match telemetry::log_filter() {
        Some(filter) => response(StatusCode::OK, JSON, format!("{:#}\n", json!({ "level": filter }))),
        None => problem(StatusCode::NOT_IMPLEMENTED, "no_log", "This process does not log by itself"),
    }
}

/// Changes it: `level=` and a level, or a filter in `tracing`'s syntax.
fn change_log(query: &str, via: &Via) -> Response<Full<Bytes>> {
    let level = query.split('&').find_map(|parameter| parameter.strip_prefix("level=")).unwrap_or_default();
    match telemetry::set_log_filter(level, &via.who) {
        Ok(()) | Err(LogFilterError::NotOurs) => log(),
        Err(LogFilterError::Malformed(_)) => {
            problem(StatusCode::BAD_REQUEST, "bad_level", "Ask for ?level= off, error, warn, info, debug or trace")
        }
    }
}

/// Has the configuration read anew, and tells what came of it.
async fn reload(state: &AdminState, via: &Via) -> Response<Full<Bytes>> {
    let who = &*via.who;
    let (answer, answered) = oneshot::channel();
    let asked = state.reloads.as_ref().is_some_and(|reloads| reloads.send(Request(Asked::Reread(answer))).is_ok());
    match answered.await {
        Ok(Ok(Applied { revision, at_next_start })) => {
            tracing::info!(target: "portcullis::audit", who, revision, "reload");
            let told = json!({ "revision": revision, "at_next_start": at_next_start });
            response(StatusCode::OK, JSON, format!("{told:#}\n"))
        }
        Ok(Err(why)) => {
            tracing::warn!(target: "portcullis::audit", who, %why, "reload: refused");
            let title = "The configuration cannot be used; nothing was changed";
            let told =
                json!({ "type": "about:blank", "title": title, "status": 422, "code": "refused", "detail": why });
            response(StatusCode::UNPROCESSABLE_ENTITY, PROBLEM, format!("{told:#}\n"))
        }
        Err(_) if asked => problem(StatusCode::SERVICE_UNAVAILABLE, "draining", "The gateway is draining"),
        Err(_) => problem(StatusCode::NOT_IMPLEMENTED, "no_files", "This gateway was not started from files"),
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

    use std::net::SocketAddr;
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::config::snapshot::{AccessLog, Admin, Drain, LogTarget};

    const CONFIG: &str = "version: 1\nlisteners: { public: { bind: \"127.0.0.1:0\" } }\n";

    /// Runs `ask` beside an admin listener on an address of its own.
    fn beside(ask: impl AsyncFnOnce(SocketAddr, &Readiness)) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let readiness = Arc::<Readiness>::default();
            let (snapshot, _) = config::from_text(Path::new("a.yaml"), CONFIG).unwrap();
            let shown = Shown {
                revision: 1,
                digest: "abc".to_owned(),
                since: SystemTime::UNIX_EPOCH,
                snapshot: snapshot.into(),
                admin: Some(Admin { bind: address, token: None, tls: None, tenants: None }),
                drain: Drain { delay: Duration::ZERO, deadline: Duration::ZERO },
                refused: None,
                held: Arc::default(),
                rollouts: [].into(),
            };
            let (_shown, shown) = watch::channel(shown);
            let telemetry = Telemetry::new(&AccessLog::to(LogTarget::Off)).unwrap();
            let state = AdminState::new(telemetry, readiness.clone(), shown, None);
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
                ("GET", "/", 200, "/metrics   for Prometheus"),
                ("GET", "/live", 200, "live\n"),
                ("GET", "/live?x=1", 200, "live\n"),
                ("GET", "/metrics", 200, "# TYPE http_server_request_duration_seconds histogram\n"),
                ("GET", "/metrics", 200, "content-type: text/plain; version=0.0.4"),
                ("GET", "/config", 200, "\"version\": 1"),
                ("GET", "/revision", 200, "\"digest\": \"abc\""),
                ("GET", "/stats", 200, "connections: 0 open of 0"),
                ("GET", "/log", 501, "\"code\":\"no_log\""),
                ("PUT", "/log?level=debug", 501, "\"code\":\"no_log\""),
                ("POST", "/log", 405, "allow: GET, HEAD, PUT"),
                ("GET", "/reload", 405, "allow: POST"),
                ("POST", "/reload", 501, "\"code\":\"no_files\""),
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
}
