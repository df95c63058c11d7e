//! What lies between a request and its response, and what they have in common.

use std::fmt;
use std::rc::Rc;
use std::task::Poll;

use crate::body::BodyMut;
use crate::exchange::{Exchange, Head, Progress};
use crate::headers::{Headers, HeadersMut, TrailersMut};
use crate::request::Request;
use crate::response::Response;

/// The rest of the way: the filters that follow, and the upstream.
///
/// ```
/// # use portcullis_sdk::{Next, Request, Response, ms, timeout};
/// async fn handle(request: Request, next: Next) -> Response {
///     match timeout(ms(500), next.run(request)).await {
///         Ok(response) => response,
///         Err(_) => Response::problem(504, "too_slow"),
///     }
/// }
/// ```
pub struct Next {
    exchange: Rc<Exchange>,
}

impl Next {
    pub(crate) fn new(exchange: Rc<Exchange>) -> Self {
        Self { exchange }
    }

    /// Lets the request go on, and waits for the response's head. Bodies stream on meanwhile, and untouched.
    ///
    /// There always is a response: where the upstream fails, it is the gateway's own.
    ///
    /// ```
    /// # use portcullis_sdk::{Next, Request, Response};
    /// async fn handle(request: Request, next: Next) -> Response {
    ///     let response = next.run(request).await;
    ///     if response.status() == 404 { Response::problem(404, "no_such_thing") } else { response }
    /// }
    /// ```
    pub async fn run(self, request: Request) -> Response {
        drop(request);
        let exchange = self.exchange;
        exchange.progress.set(Progress::HasRun);
        std::future::poll_fn(|cx| {
            if exchange.response.head.get() == Head::Here {
                return Poll::Ready(());
            }
            exchange.response.wait(cx);
            Poll::Pending
        })
        .await;
        Response::of_upstream(exchange)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// What requests and responses have in common, for policies that treat them alike.
///
/// ```
/// # use portcullis_sdk::Message;
/// fn is_json(message: &impl Message) -> bool {
///     message.headers().get("content-type").is_some_and(|kind| kind == "application/json")
/// }
/// ```
pub trait Message {
    /// Its headers.
    fn headers(&self) -> Headers<'_>;
    /// Its headers, to be changed.
    fn headers_mut(&mut self) -> HeadersMut<'_>;
    /// Whether a body or trailers follow its head.
    fn has_body(&self) -> bool;
    /// Its body, to be changed.
    fn body_mut(&mut self) -> BodyMut<'_>;
    /// Changes the trailers when they come; not called if there are none.
    fn on_trailers(&mut self, change: impl FnOnce(&mut TrailersMut) + 'static);
}

macro_rules! message {
    ($($message:ty),*) => {
        $(impl Message for $message {
            fn headers(&self) -> Headers<'_> {
                self.headers()
            }

            fn headers_mut(&mut self) -> HeadersMut<'_> {
                self.headers_mut()
            }

            fn has_body(&self) -> bool {
                self.has_body()
            }

            fn body_mut(&mut self) -> BodyMut<'_> {
                self.body_mut()
            }

            fn on_trailers(&mut self, change: impl FnOnce(&mut TrailersMut) + 'static) {
                self.on_trailers(change);
            }
        })*
    };
}

message!(Request, Response);
