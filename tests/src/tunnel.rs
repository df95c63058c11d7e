//! Both ends of a tunnel: an origin that switches protocols when asked and sends back what it gets, and clients that ask,
//! over HTTP/1.1 or HTTP/2.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::background::Background;
use crate::pieces::fields;

/// The key of RFC 6455's example, and what proves that it was read.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What proves that [`KEY`] was read.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of a request for a WebSocket, with these lines more, each with its line break.
#[must_use]
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{more}\r\n"
    )
}

/// The head of the answer that opens it, with these lines more.
#[must_use]
pub fn switched(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {ACCEPT}\r\n{more}\r\n"
    )
}

/// What proves that a key was read (RFC 6455 §4.2.2).
fn accept(key: &HeaderValue) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest).try_into().unwrap()
}

/// An origin that switches protocols when asked, over HTTP/1.1 or HTTP/2, and sends back what it gets.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<(Method, HeaderMap)>>>,
    _background: Background,
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl Echo {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let background = Background::start();
        let listener = background.handle.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen_there = seen.clone();
        background.handle.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen_there.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| std::future::ready(answer(request, &seen)));
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http2().enable_connect_protocol();
                    let _ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen, _background: background }
    }

    /// The last request.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn last(&self) -> (Method, HeaderMap) {
        self.seen.lock().unwrap().last().cloned().expect("no request has arrived")
    }

    /// How many requests there were.
    ///
    /// # Panics
    /// When the origin has panicked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// Switches when asked; anything else, and what is under `/no`, is refused with a body.
fn answer(
    mut request: Request<Incoming>,
    seen: &Mutex<Vec<(Method, HeaderMap)>>,
) -> http::Result<Response<http_body_util::Either<Empty<Bytes>, http_body_util::Full<Bytes>>>> {
    use http_body_util::{Either, Full};
    let (method, headers) = (request.method().clone(), request.headers().clone());
    seen.lock().unwrap().push((method.clone(), headers.clone()));
    let asked = request.extensions().get::<Protocol>().is_some() || headers.contains_key(header::UPGRADE);
    if !asked || request.uri().path().starts_with("/no") {
        return Response::builder().status(403).body(Either::Right(Full::from("not here")));
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            echo(upgraded).await;
        }
    });
    let mut response = Response::builder().header("x-origin", "echo").body(Either::Left(Empty::new()))?;
    if method != Method::CONNECT {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        answer.extend(headers.get(header::UPGRADE).map(|upgrade| (header::UPGRADE, upgrade.clone())));
        let key = headers.get(header::SEC_WEBSOCKET_KEY);
        answer.extend(key.map(|key| (header::SEC_WEBSOCKET_ACCEPT, accept(key))));
    }
    Ok(response)
}

/// Sends back what it gets, and closes when the other side has.
async fn echo(upgraded: Upgraded) {
    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
    let _copied = tokio::io::copy(&mut from, &mut to).await;
    let _closed = to.shutdown().await;
}

/// A client that asks over HTTP/2.
pub struct Connect {
    background: Background,
    sender: SendRequest<Empty<Bytes>>,
}

/// A tunnel that is open.
pub struct Tunnel<'a> {
    handle: &'a Handle,
    read: ReadHalf<TokioIo<Upgraded>>,
    /// Gone when somebody else sends.
    write: Option<WriteHalf<TokioIo<Upgraded>>>,
}

impl Connect {
    /// Connects, and waits until the server has said that it takes extended CONNECT; `None` when it has said that it does not.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn to(address: SocketAddr) -> Option<Self> {
        let background = Background::start();
        let sender = background.handle.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            let mut connection = Box::pin(connection);
            // Its answer to any request comes after its settings.
            let mut first = sender.clone();
            let asked = async {
                let request = Request::get("http://test/settings").body(Empty::new()).unwrap();
                first.send_request(request).await.unwrap().into_body().collect().await.unwrap();
            };
            tokio::select! {
                _ = connection.as_mut() => panic!("the connection ended"),
                () = asked => {}
            }
            let takes = connection.is_extended_connect_protocol_enabled();
            tokio::spawn(connection);
            sender.ready().await.unwrap();
            takes.then_some(sender)
        })?;
        Some(Self { background, sender })
    }

    /// Asks; the tunnel is there when the answer is 200.
    ///
    /// # Errors
    /// When the stream is reset.
    ///
    /// # Panics
    /// When there is no answer in time.
    pub fn ask(
        &self,
        protocol: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<(StatusCode, HeaderMap, Result<Tunnel<'_>, Bytes>)> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = format!("http://test{path}").parse().unwrap();
        *request.headers_mut() = fields(headers);
        request.extensions_mut().insert(Protocol::from(protocol));
        let mut sender = self.sender.clone();
        self.background.handle.block_on(async {
            let mut response = timeout(PATIENCE, sender.send_request(request)).await.unwrap()?;
            let (status, headers) = (response.status(), response.headers().clone());
            if status == StatusCode::OK {
                let (read, write) = tokio::io::split(TokioIo::new(hyper::upgrade::on(&mut response).await?));
                let handle = &self.background.handle;
                return Ok((status, headers, Ok(Tunnel { handle, read, write: Some(write) })));
            }
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, headers, Err(body)))
        })
    }
}

impl Tunnel<'_> {
    /// Sends.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn send(&mut self, bytes: &[u8]) {
        let write = self.write.as_mut().unwrap();
        self.handle.block_on(async { timeout(PATIENCE, write.write_all(bytes)).await }).unwrap().unwrap();
    }

    /// That many bytes.
    ///
    /// # Panics
    /// When they do not come.
    pub fn exactly(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.handle.block_on(async { timeout(PATIENCE, self.read.read_exact(&mut bytes)).await }).unwrap().unwrap();
        bytes
    }

    /// Closes the side that sends.
    ///
    /// # Panics
    /// When it cannot be closed.
    pub fn finish_sending(&mut self) {
        let mut write = self.write.take().unwrap();
        self.handle.block_on(async { timeout(PATIENCE, write.shutdown()).await }).unwrap().unwrap();
    }

    /// Sends all of this, as far as it is taken, and closes that side, while the test reads.
    ///
    /// # Panics
    /// When it is closed already.
    pub fn offer(&mut self, bytes: Vec<u8>) {
        let mut write = self.write.take().unwrap();
        self.handle.spawn(async move {
            let _sent = write.write_all(&bytes).await;
            let _closed = write.shutdown().await;
        });
    }

    /// Everything until the other side closes.
    ///
    /// # Panics
    /// When it does not close.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.handle.block_on(async { timeout(PATIENCE, self.read.read_to_end(&mut bytes)).await }).unwrap().unwrap();
        bytes
    }
}
