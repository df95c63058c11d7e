//! Bodies: collected up to a limit, changed as they stream, or left alone.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::task::Poll;

use crate::exchange::{Exchange, Head, Length, Seen, Side, Way, Wish};
use crate::sys;

/// Changes one chunk after another.
pub(crate) type Map = Box<dyn FnMut(Chunk<'_>) -> Option<Vec<u8>>>;

/// A piece of a body that streams by.
///
/// ```
/// # use portcullis_sdk::Chunk;
/// fn shout(chunk: Chunk<'_>) -> Option<Vec<u8>> {
///     Some(chunk.bytes().to_ascii_uppercase())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    bytes: &'a [u8],
    is_last: bool,
}

impl<'a> Chunk<'a> {
    /// What it holds; may be nothing in the last.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// fn count(response: &mut Response) -> Result<(), BodyError> {
    ///     let mut count = 0;
    ///     response.body_mut().map_chunks(move |chunk| {
    ///         count += chunk.bytes().len();
    ///         if chunk.is_last() {
    ///             log::info!("{count} bytes");
    ///         }
    ///         None
    ///     })
    /// }
    /// ```
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether none follows.
    ///
    /// ```
    /// # use portcullis_sdk::Chunk;
    /// fn ended(chunk: Chunk<'_>) -> Option<Vec<u8>> {
    ///     chunk.is_last().then(|| [chunk.bytes(), b"\n"].concat())
    /// }
    /// ```
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

/// Why a body cannot be had.
///
/// ```
/// use portcullis_sdk::{BodyError, Response};
/// fn refusal(why: BodyError) -> Response {
///     match why {
///         BodyError::TooLarge { .. } => Response::problem(413, "body_too_large"),
///         _ => Response::problem(500, "body_unreadable"),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the limit that the filter set.
    TooLarge {
        /// That limit.
        limit: usize,
    },
    /// The filter did not declare that it touches this body.
    Undeclared {
        /// Whose body: `request` or `response`.
        of: &'static str,
    },
    /// The upstream, or the gateway, has answered before the request's body was there.
    AnsweredEarly,
    /// The message has no body to be changed.
    None,
    /// It has been sent on.
    Gone,
    /// The head, which says how long the body is, has been sent on: collect with `body_mut()` what is to be changed.
    LengthSent,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(
                f,
                "the body is longer than {limit} bytes; collect with a higher limit, or let it stream by with `map_chunks`"
            ),
            Self::Undeclared { of } => write!(
                f,
                "the filter does not declare that it touches the {of}'s body; add `const BODIES: Bodies = Bodies::{};` to \
                 its `impl Filter`",
                of.to_ascii_uppercase()
            ),
            Self::AnsweredEarly => {
                f.write_str("the exchange was answered, by the upstream or the gateway, before the body was there")
            }
            Self::None => f.write_str("the message has no body"),
            Self::Gone => f.write_str("the body has been sent on"),
            Self::LengthSent => {
                f.write_str("the length of the body has been sent on; collect with `body_mut()` what is to be changed")
            }
        }
    }
}

impl std::error::Error for BodyError {}

enum Whose<'a> {
    Held(&'a Rc<Exchange>, Way),
    Own(Cow<'a, [u8]>),
}

/// A body to be read.
///
/// ```
/// # use portcullis_sdk::{Request, BodyError};
/// async fn is_json(request: &Request) -> Result<bool, BodyError> {
///     let body = request.body().collect(64 * 1024).await?;
///     Ok(body.starts_with(b"{"))
/// }
/// ```
pub struct Body<'a>(Whose<'a>);

impl<'a> Body<'a> {
    pub(crate) fn held(exchange: &'a Rc<Exchange>, way: Way) -> Self {
        Self(Whose::Held(exchange, way))
    }

    pub(crate) fn own(bytes: Vec<u8>) -> Self {
        Self(Whose::Own(Cow::Owned(bytes)))
    }

    /// Waits for the whole body, of at most `limit` bytes. It is held in the host meanwhile and goes on afterwards.
    ///
    /// # Errors
    /// When it is longer, or the filter has not declared that it reads it.
    ///
    /// ```
    /// # use portcullis_sdk::{Next, Request, Response};
    /// async fn handle(request: Request, next: Next) -> Response {
    ///     match request.body().collect(64 * 1024).await {
    ///         Ok(body) if body.starts_with(b"{") => next.run(request).await,
    ///         Ok(_) => Response::problem(400, "not_json"),
    ///         Err(_) => Response::problem(413, "body_too_large"),
    ///     }
    /// }
    /// ```
    pub async fn collect(self, limit: usize) -> Result<Vec<u8>, BodyError> {
        match self.0 {
            Whose::Own(bytes) => Ok(bytes.into_owned()),
            Whose::Held(exchange, way) => collect(exchange, way, limit).await,
        }
    }

    /// Shows the body to `see` as it streams by, one chunk after another. It goes on as it came, with its `content-length`.
    ///
    /// Chunks are as the network made them. What [`BodyMut::map_chunks`] asks for later takes the place of this.
    ///
    /// # Errors
    /// When the filter has not declared that it touches this body.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// fn lines(response: &Response) -> Result<(), BodyError> {
    ///     let mut lines = 0;
    ///     response.body().see_chunks(move |chunk| {
    ///         lines += chunk.bytes().iter().filter(|byte| **byte == b'\n').count();
    ///         if chunk.is_last() {
    ///             log::info!("{lines} lines");
    ///         }
    ///     })
    /// }
    /// ```
    pub fn see_chunks(self, mut see: impl FnMut(Chunk<'_>) + 'static) -> Result<(), BodyError> {
        match self.0 {
            Whose::Own(bytes) => see(Chunk { bytes: &bytes, is_last: true }),
            Whose::Held(exchange, way) => {
                declared(exchange, way)?;
                let pass = move |chunk: Chunk<'_>| {
                    see(chunk);
                    None
                };
                exchange.side(way).map.replace(Some(Box::new(pass)));
            }
        }
        Ok(())
    }
}

/// A body to be changed.
///
/// ```
/// # use portcullis_sdk::{BodyError, Response};
/// async fn shout(response: &mut Response) -> Result<(), BodyError> {
///     let body = response.body_mut().collect(64 * 1024).await?;
///     response.body_mut().set(body.to_ascii_uppercase())
/// }
/// ```
pub struct BodyMut<'a>(WhoseMut<'a>);

enum WhoseMut<'a> {
    Held(&'a Rc<Exchange>, Way),
    Own(&'a mut Vec<u8>),
    Nothing,
}

impl<'a> BodyMut<'a> {
    pub(crate) fn held(exchange: &'a Rc<Exchange>, way: Way) -> Self {
        Self(WhoseMut::Held(exchange, way))
    }

    pub(crate) fn own(bytes: &'a mut Vec<u8>) -> Self {
        Self(WhoseMut::Own(bytes))
    }

    pub(crate) fn none() -> Self {
        Self(WhoseMut::Nothing)
    }

    /// Waits for the whole body, of at most `limit` bytes, so that it can be [`set`](Self::set).
    ///
    /// Where the head goes on before its body is there, it goes without `content-length`.
    ///
    /// # Errors
    /// As [`Body::collect`].
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Request};
    /// async fn without_spaces(request: &mut Request) -> Result<(), BodyError> {
    ///     let mut body = request.body_mut().collect(1024).await?;
    ///     body.retain(|byte| *byte != b' ');
    ///     request.body_mut().set(body)
    /// }
    /// ```
    pub async fn collect(self, limit: usize) -> Result<Vec<u8>, BodyError> {
        match self.0 {
            WhoseMut::Nothing => Ok(Vec::new()),
            WhoseMut::Own(bytes) => Ok(bytes.clone()),
            WhoseMut::Held(exchange, way) => {
                exchange.side(way).length.set(Length::MayChange);
                collect(exchange, way, limit).await
            }
        }
    }

    /// Replaces the body, whether it was collected or not. Gives one to a message without, where the host lets it
    /// ([`Host::adds_bodies`](crate::Host::adds_bodies)).
    ///
    /// # Errors
    /// When there is none to replace, or it or its length has been sent on.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// fn censor(response: &mut Response) -> Result<(), BodyError> {
    ///     response.body_mut().set("{}")
    /// }
    /// ```
    pub fn set(self, body: impl Into<Vec<u8>>) -> Result<(), BodyError> {
        match self.0 {
            WhoseMut::Nothing => Err(BodyError::None),
            WhoseMut::Own(bytes) => {
                *bytes = body.into();
                Ok(())
            }
            WhoseMut::Held(exchange, way) => set(exchange, way, body.into()),
        }
    }

    /// Changes the body as it streams by. `map` gets one chunk after another and returns what goes on in its place; `None` lets
    /// the chunk pass as it is.
    ///
    /// Chunks are as the network made them. The head goes without `content-length`.
    ///
    /// # Errors
    /// When the filter has not declared that it touches this body.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// fn shout(response: &mut Response) -> Result<(), BodyError> {
    ///     response.body_mut().map_chunks(|chunk| Some(chunk.bytes().to_ascii_uppercase()))
    /// }
    /// ```
    pub fn map_chunks(self, mut map: impl FnMut(Chunk<'_>) -> Option<Vec<u8>> + 'static) -> Result<(), BodyError> {
        match self.0 {
            WhoseMut::Nothing => Ok(()),
            WhoseMut::Own(bytes) => {
                if let Some(mapped) = map(Chunk { bytes, is_last: true }) {
                    *bytes = mapped;
                }
                Ok(())
            }
            WhoseMut::Held(exchange, way) => {
                declared(exchange, way)?;
                let side = exchange.side(way);
                side.length.set(Length::MayChange);
                side.map.replace(Some(Box::new(map)));
                Ok(())
            }
        }
    }
}

fn declared(exchange: &Exchange, way: Way) -> Result<(), BodyError> {
    let bodies = exchange.root.bodies;
    let declared = match way {
        Way::Request => bodies.request(),
        Way::Response => bodies.response(),
    };
    if declared {
        return Ok(());
    }
    let why = BodyError::Undeclared { of: way.name() };
    log::error!("{why}");
    Err(why)
}

async fn collect(exchange: &Rc<Exchange>, way: Way, limit: usize) -> Result<Vec<u8>, BodyError> {
    declared(exchange, way)?;
    let side = exchange.side(way);
    let _end = EndOfWish(exchange, way);
    std::future::poll_fn(|cx| {
        let seen = side.seen.get();
        if seen.size > limit {
            return Poll::Ready(Err(BodyError::TooLarge { limit }));
        }
        if seen.ended {
            let body = if seen.shown { sys::buffer(way.buffer(), seen.size) } else { Vec::new() };
            return Poll::Ready(Ok(body));
        }
        if way == Way::Request && exchange.is_answered_early() {
            return Poll::Ready(Err(BodyError::AnsweredEarly));
        }
        side.wish.set(Wish::Collect { limit });
        side.wait(cx);
        Poll::Pending
    })
    .await
}

/// A wish ends with the future that had it, however that ends.
struct EndOfWish<'a>(&'a Exchange, Way);

impl Drop for EndOfWish<'_> {
    fn drop(&mut self) {
        self.0.side(self.1).wish.set(Wish::Pass);
    }
}

fn set(exchange: &Exchange, way: Way, body: Vec<u8>) -> Result<(), BodyError> {
    declared(exchange, way)?;
    let side = exchange.side(way);
    let seen = side.seen.get();
    let head = side.head.get();
    if seen.ended && !seen.shown {
        let gives = head == Head::Here && exchange.root.adds_bodies.get() && !body.is_empty();
        if !gives || sys::set_buffer(way.buffer(), 0, &body).is_err() {
            return Err(BodyError::None);
        }
    }
    if head == Head::Here {
        let _absent = sys::set_header(way.map(), "content-length", body.len().to_string().as_bytes());
        side.length.set(Length::Stays);
    }
    if seen.ended && !seen.shown {
        side.seen.set(Seen { size: body.len(), shown: true, ..seen });
        return Ok(());
    }
    if seen.shown {
        if head == Head::Gone && side.length.get() == Length::Stays {
            return Err(BodyError::LengthSent);
        }
        side.seen.set(Seen { size: body.len(), ..seen });
        return sys::set_buffer(way.buffer(), seen.size, &body).map_err(|_| BodyError::Gone);
    }
    if head != Head::Here {
        return Err(BodyError::Gone);
    }
    // What comes is swallowed, and this goes in the place of the first of it.
    let mut body = Some(body);
    side.map.replace(Some(Box::new(move |_| Some(body.take().unwrap_or_default()))));
    Ok(())
}

/// Changes what is shown, as the filter asked.
pub(crate) fn apply_map(side: &Side, way: Way) {
    let Some(mut map) = side.map.take() else { return };
    let seen = side.seen.get();
    let bytes = if seen.size == 0 { Vec::new() } else { sys::buffer(way.buffer(), seen.size) };
    // Trailers follow: then nobody knows that this is the last until they are here, and it is too late.
    if let Some(mapped) = map(Chunk { bytes: &bytes, is_last: seen.ended })
        && mapped != bytes
        && let Err(status) = sys::set_buffer(way.buffer(), seen.size, &mapped)
    {
        log::warn!("a piece of the {}'s body was left as it is: {status:?}", way.name());
    }
    side.map.replace(Some(map));
}
