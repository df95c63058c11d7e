//! Bodies that a test sends piece by piece: data, waiting for the test's word, trailers, breaking off.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;

/// Something that a body or an answer waits for until the test opens it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Lets everyone through from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        let mut opened = self.0.subscribe();
        let _open = opened.wait_for(|open| *open).await;
    }
}

/// One piece of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes.
    Data(Bytes),
    /// A pause until the gate opens.
    Wait(Gate),
    /// Fields after the body.
    Trailers(HeaderMap),
    /// The body ends here without being complete.
    Break,
}

/// Who wants to know how much of a body was pulled, and whether it was dropped before its end.
#[derive(Debug, Default)]
pub struct Watcher {
    /// Bytes that were pulled.
    pub pulled: AtomicUsize,
    /// Bodies dropped before they had ended.
    pub dropped: AtomicUsize,
}

/// A body of pieces.
pub struct Pieces {
    left: VecDeque<Piece>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    watcher: Arc<Watcher>,
    ended: bool,
}

impl Pieces {
    /// A body of these, watched by nobody.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self::watched(pieces, Arc::default())
    }

    /// A body of these.
    #[must_use]
    pub fn watched(pieces: impl IntoIterator<Item = Piece>, watcher: Arc<Watcher>) -> Self {
        Self { left: pieces.into_iter().collect(), waiting: None, watcher, ended: false }
    }

    fn exact(&self) -> Option<u64> {
        self.left.iter().try_fold(0, |sum, piece| match piece {
            Piece::Data(data) => Some(sum + data.len() as u64),
            Piece::Wait(_) | Piece::Trailers(_) | Piece::Break => None,
        })
    }
}

/// Fields out of pairs.
///
/// # Panics
/// When they are not fields.
#[must_use]
pub fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let mut map = HeaderMap::new();
    pairs.iter().map(pair).for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        loop {
            if let Some(waiting) = &mut body.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                body.waiting = None;
            }
            let piece = body.left.pop_front();
            body.ended = body.left.is_empty();
            return Poll::Ready(match piece {
                None => None,
                Some(Piece::Data(data)) => {
                    body.watcher.pulled.fetch_add(data.len(), Ordering::Relaxed);
                    Some(Ok(Frame::data(data)))
                }
                Some(Piece::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
                Some(Piece::Break) => Some(Err(io::Error::other("broken off on purpose"))),
                Some(Piece::Wait(gate)) => {
                    body.waiting = Some(Box::pin(async move { gate.pass().await }));
                    body.ended = false;
                    continue;
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.ended && !self.left.is_empty() || self.waiting.is_some() {
            self.watcher.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
