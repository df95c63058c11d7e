//! Clients: HTTP/1.1 as bytes, and HTTP/2 with prior knowledge.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use crate::PATIENCE;
use crate::pieces::{Piece, Pieces, fields};
use crate::wire::{Head, Message, Wire};

/// A connection that speaks HTTP/1.1.
#[derive(Debug)]
pub struct Client(pub Wire);

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// The same, where nobody may listen.
    ///
    /// # Errors
    /// When nobody does.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(|stream| Self(Wire::new(stream)))
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they cannot be sent.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write(bytes).unwrap();
    }

    /// The next response.
    ///
    /// # Panics
    /// When the connection is closed instead.
    pub fn answer(&mut self) -> Message {
        self.0.message().expect("a response")
    }

    /// A request for `test`, and its response.
    pub fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Message {
        self.send(request(method, path, fields, body));
        if method == "HEAD" {
            let head = self.0.head().expect("a response");
            return Message { head, complete: true, ..Message::default() };
        }
        self.answer()
    }

    /// `GET` for `test`.
    pub fn get(&mut self, path: &str) -> Message {
        self.ask("GET", path, &[], "")
    }
}

/// The bytes of a request for `test`; a field `host` says otherwise.
#[must_use]
pub fn request(method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("host: test\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text
}

/// A connection that speaks HTTP/2.
pub struct H2 {
    scheme: &'static str,
    runtime: Runtime,
    sender: SendRequest<Pieces>,
}

/// A response over HTTP/2.
#[derive(Debug)]
pub struct H2Answer {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body, as far as it came.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
    /// It did not break off.
    pub complete: bool,
}

impl H2Answer {
    /// The first value of a field, as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The same as a message over HTTP/1.1 would look.
    #[must_use]
    pub fn into_message(self) -> Message {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let fields = self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let head = Head { start: format!("HTTP/2 {}", self.status), fields };
        Message { head, body: self.body.into(), complete: self.complete, ..Message::default() }
    }
}

impl H2 {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// Connects, if somebody listens there.
    ///
    /// # Errors
    /// When nobody does.
    ///
    /// # Panics
    /// When somebody does who speaks something else.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(speak(stream).await)
        })?;
        Ok(Self { scheme: "http", runtime, sender })
    }

    /// Connects and encrypts.
    ///
    /// # Panics
    /// When the handshake fails, or the server does not choose HTTP/2.
    #[must_use]
    pub fn over_tls(address: SocketAddr, config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            speak(stream).await
        });
        Self { scheme: "https", runtime, sender }
    }

    /// A request for `http://test`, and its response.
    ///
    /// # Errors
    /// When the stream is reset before there is a head.
    ///
    /// # Panics
    /// When there is no response in time.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl IntoIterator<Item = Piece>,
    ) -> hyper::Result<H2Answer> {
        let request = h2_request(self.scheme, method, path, headers, body);
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, whole(self.sender.clone(), request)).await.unwrap() })
    }

    /// `GET` for `http://test`.
    ///
    /// # Panics
    /// When there is no response.
    #[must_use]
    pub fn get(&self, path: &str) -> H2Answer {
        self.ask("GET", path, &[], []).unwrap()
    }

    /// That many requests at once.
    ///
    /// # Panics
    /// When there are no responses in time.
    #[must_use]
    pub fn get_at_once(&self, paths: &[&str]) -> Vec<hyper::Result<H2Answer>> {
        self.runtime.block_on(async {
            let ask =
                |path: &&str| tokio::spawn(whole(self.sender.clone(), h2_request(self.scheme, "GET", path, &[], [])));
            let asked: Vec<_> = paths.iter().map(ask).collect();
            let mut answers = Vec::new();
            for answer in asked {
                answers.push(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap());
            }
            answers
        })
    }

    /// The head of a response; its body is then at the test's pace.
    ///
    /// # Panics
    /// When there is none in time.
    #[must_use]
    pub fn begin(&self, path: &str) -> Response<Incoming> {
        self.start("GET", path, [])
    }

    /// The head of a response to a request whose body need not have ended.
    ///
    /// # Panics
    /// When there is none in time.
    #[must_use]
    pub fn start(&self, method: &str, path: &str, body: impl IntoIterator<Item = Piece>) -> Response<Incoming> {
        let request = h2_request(self.scheme, method, path, &[], body);
        let sent = async { tokio::time::timeout(PATIENCE, self.sender.clone().send_request(request)).await.unwrap() };
        self.runtime.block_on(sent).unwrap()
    }

    /// Sends a request without waiting for anything; its response is thrown away. It goes on while others are asked.
    pub fn offer(&self, method: &str, path: &str, body: impl IntoIterator<Item = Piece>) {
        self.runtime.spawn(whole(self.sender.clone(), h2_request(self.scheme, method, path, &[], body)));
    }

    /// The next piece of a body; nothing at its end.
    ///
    /// # Errors
    /// When the stream is reset.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn data(&self, body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
        let frame = async { tokio::time::timeout(PATIENCE, body.frame()).await.unwrap() };
        let frame = self.runtime.block_on(frame).transpose()?;
        Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Pieces> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    sender
}

fn h2_request(
    scheme: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl IntoIterator<Item = Piece>,
) -> Request<Pieces> {
    let host = headers.iter().find(|(name, _)| *name == "host").map_or("test", |(_, host)| host);
    let mut request = Request::new(Pieces::new(body));
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = format!("{scheme}://{host}{path}").parse().unwrap();
    *request.headers_mut() = fields(headers);
    request.headers_mut().remove("host");
    request
}

async fn whole(mut sender: SendRequest<Pieces>, request: Request<Pieces>) -> hyper::Result<H2Answer> {
    sender.ready().await?;
    let (head, mut incoming) = sender.send_request(request).await?.into_parts();
    let (mut body, mut trailers, mut complete) = (Vec::new(), None, true);
    while let Some(frame) = incoming.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    Ok(H2Answer { status: head.status.as_u16(), headers: head.headers, body: body.into(), trailers, complete })
}
