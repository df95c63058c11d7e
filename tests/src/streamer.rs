//! An origin that keeps nothing: it counts what it gets, sends as much as it is asked for, or sends back what comes as it comes.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use crate::background::Background;

/// A piece of what it sends.
const PIECE: usize = 64 << 10;

/// A running one: `…/bytes?N` is N bytes, `…/echo` the request's own body with its trailers, anything else how many bytes came.
pub struct Streamer {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _background: Background,
}

/// What it has seen.
#[derive(Debug, Default)]
struct Counts {
    received: AtomicUsize,
    broken: AtomicUsize,
}

impl fmt::Display for Streamer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl Streamer {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let background = Background::start();
        let listener = background.handle.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let counts: Arc<Counts> = Arc::default();
        let counted = counts.clone();
        background.handle.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = counted.clone();
                let _best_effort = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, counts.clone()));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, counts, _background: background }
    }

    /// Bytes of bodies that it has counted.
    #[must_use]
    pub fn received(&self) -> usize {
        self.counts.received.load(Ordering::SeqCst)
    }

    /// Bodies that broke off while it counted.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.counts.broken.load(Ordering::SeqCst)
    }
}

type Answer = Either<Incoming, Either<Generated, Full<Bytes>>>;

async fn answer(request: Request<Incoming>, counts: Arc<Counts>) -> hyper::Result<Response<Answer>> {
    let path = request.uri().path();
    if path.ends_with("/echo") {
        return Ok(Response::new(Either::Left(request.into_body())));
    }
    if path.ends_with("/bytes") {
        let size = request.uri().query().and_then(|size| size.parse().ok()).unwrap_or(0);
        return Ok(Response::new(Either::Right(Either::Left(Generated::new(size)))));
    }
    let mut body = request.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.inspect_err(|_| _ = counts.broken.fetch_add(1, Ordering::SeqCst))?;
        let more = frame.data_ref().map_or(0, Bytes::len);
        counts.received.fetch_add(more, Ordering::SeqCst);
        size += more;
    }
    Ok(Response::new(Either::Right(Either::Right(Full::from(size.to_string())))))
}

/// So many bytes.
struct Generated {
    piece: Bytes,
    left: usize,
}

impl Generated {
    fn new(size: usize) -> Self {
        Self { piece: vec![7; PIECE].into(), left: size }
    }
}

impl Body for Generated {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let piece = self.piece.slice(..PIECE.min(self.left));
        self.left -= piece.len();
        Poll::Ready((!piece.is_empty()).then_some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
