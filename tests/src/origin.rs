//! A programmable origin: a closure answers, over HTTP/1.1 or HTTP/2 as the gateway likes, and what arrived is kept.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use crate::eventually;
use crate::pieces::{Gate, Piece, Pieces, Watcher, fields};

/// A request that arrived, with its whole body.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// How it came.
    pub version: Version,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
    /// It did not break off.
    pub complete: bool,
    /// Over which connection it came, from 1.
    pub connection: usize,
}

impl Seen {
    /// The first value of a field, as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The path with its query.
    #[must_use]
    pub fn target(&self) -> &str {
        self.uri.path_and_query().map_or("", |path| path.as_str())
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    status: u16,
    headers: HeaderMap,
    pieces: Vec<Piece>,
    hold: Option<Gate>,
}

impl Answer {
    /// An answer with this status and nothing else.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// 200 with this body; its length is announced.
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::status(200).data(body)
    }

    /// With another field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        for (name, value) in &fields(&[(name, value)]) {
            self.headers.append(name, value.clone());
        }
        self
    }

    /// With more body.
    #[must_use]
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.pieces.push(Piece::Data(data.into()));
        self
    }

    /// With a pause in its body. Its length is then not announced.
    #[must_use]
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.pieces.push(Piece::Wait(gate.clone()));
        self
    }

    /// With trailers.
    #[must_use]
    pub fn trailers(mut self, pairs: &[(&str, &str)]) -> Self {
        self.pieces.push(Piece::Trailers(fields(pairs)));
        self
    }

    /// Broken off here.
    #[must_use]
    pub fn broken(mut self) -> Self {
        self.pieces.push(Piece::Break);
        self
    }

    /// Not begun before the gate opens.
    #[must_use]
    pub fn after(mut self, gate: &Gate) -> Self {
        self.hold = Some(gate.clone());
        self
    }
}

/// A running origin. Dropped, it closes all its connections.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    begun: Arc<AtomicUsize>,
    watcher: Arc<Watcher>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

/// What its connections share.
struct Shared {
    handler: Box<dyn Fn(&Seen) -> Answer>,
    seen: Arc<Mutex<Vec<Seen>>>,
    begun: Arc<AtomicUsize>,
    watcher: Arc<Watcher>,
    connections: Cell<usize>,
}

impl Origin {
    /// An origin that answers `ok`.
    #[must_use]
    pub fn plain() -> Self {
        Self::start(|_| Answer::ok("ok"))
    }

    /// An origin that always answers this.
    #[must_use]
    pub fn always(answer: Answer) -> Self {
        Self::start(move |_| answer.clone())
    }

    /// An origin whose answers are this closure's.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(handler: impl Fn(&Seen) -> Answer + Send + 'static) -> Self {
        Self::begin(handler, None)
    }

    /// An origin that encrypts its connections.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn encrypted(tls: Arc<ServerConfig>, handler: impl Fn(&Seen) -> Answer + Send + 'static) -> Self {
        Self::begin(handler, Some(TlsAcceptor::from(tls)))
    }

    fn begin(handler: impl Fn(&Seen) -> Answer + Send + 'static, tls: Option<TlsAcceptor>) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (seen, begun, watcher) = (Arc::default(), Arc::default(), Arc::default());
        let (seen_there, begun_there, watcher_there) = (Arc::clone(&seen), Arc::clone(&begun), Arc::clone(&watcher));
        let serve = move || {
            let shared = Shared {
                handler: Box::new(handler),
                seen: seen_there,
                begun: begun_there,
                watcher: watcher_there,
                connections: Cell::new(0),
            };
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(socket, tls, Rc::new(shared)) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("origin".to_owned()).spawn(serve).unwrap();
        Self { address, seen, begun, watcher, stop: Some(stop), thread: Some(thread) }
    }

    /// Every request so far whose body has ended.
    ///
    /// # Panics
    /// When the origin has panicked.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("no request has arrived")
    }

    /// How many requests there were so far, those included whose body has not ended.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits for that many requests to have arrived with their bodies.
    pub fn wait_for(&self, count: usize) {
        eventually("the origin got its requests", || self.seen().len() >= count);
    }

    /// Waits for an answer to be dropped before its end.
    pub fn wait_for_cancellation(&self) {
        eventually("an answer was cancelled", || self.watcher.dropped.load(Ordering::SeqCst) > 0);
    }

    /// How many bytes of answers have been pulled from it.
    #[must_use]
    pub fn pulled(&self) -> usize {
        self.watcher.pulled.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Runs the HTTP library's tasks on the origin's own thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}

async fn accept(socket: std::net::TcpListener, tls: Option<TlsAcceptor>, shared: Rc<Shared>) {
    let listener = TcpListener::from_std(socket).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        let number = shared.connections.get() + 1;
        shared.connections.set(number);
        let _best_effort = stream.set_nodelay(true);
        let tls = tls.clone();
        spawn_local(async move {
            match tls {
                None => speak(stream, shared, number).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        speak(stream, shared, number).await;
                    }
                }
            }
        });
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, shared: Rc<Shared>, number: usize) {
    let service = service_fn(move |request| answer(shared.clone(), number, request));
    let mut builder = auto::Builder::new(Local);
    builder.http1().half_close(false);
    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Rc<Shared>, connection: usize, request: Request<Incoming>) -> http::Result<Response<Pieces>> {
    shared.begun.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let collected = body.collect().await.ok();
    let complete = collected.is_some();
    let trailers = collected.as_ref().and_then(|body| body.trailers().cloned());
    let body = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (method, uri, version, headers) = (head.method, head.uri, head.version, head.headers);
    let seen = Seen { method, uri, version, headers, body, trailers, complete, connection };
    let Answer { status, headers, pieces, hold } = (shared.handler)(&seen);
    shared.seen.lock().unwrap().push(seen);
    let body = Pieces::watched(pieces, shared.watcher.clone());
    if let Some(gate) = hold {
        gate.pass().await;
    }
    let mut response = Response::builder().status(status).body(body)?;
    *response.headers_mut() = headers;
    Ok(response)
}
