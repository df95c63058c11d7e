//! A response as a filter has it in hand: the upstream's, or its own.

use std::fmt;
use std::rc::Rc;

use portcullis_abi::MapType;

use crate::body::{Body, BodyMut};
use crate::exchange::{Exchange, Way};
use crate::headers::{Headers, HeadersMut, TrailersMut};
use crate::json;
use crate::local::{Content, Local};

/// A response on its way to the client: the upstream's, or the filter's own.
///
/// ```
/// # use portcullis_testing as _;
/// use portcullis_sdk::Response;
/// let mut reply = Response::new(200).header("content-type", "text/plain").with_body("pong");
/// reply.headers_mut().set("x-by", "filter");
/// assert_eq!(reply.status(), 200);
/// assert_eq!(reply.headers().text("x-by").as_deref(), Some("filter"));
/// ```
#[must_use = "a response that is dropped is none"]
pub struct Response {
    of: Of,
}

enum Of {
    Upstream(Rc<Exchange>),
    Filter(Box<Local>),
}

impl Response {
    /// An empty one of the filter's own.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// assert_eq!(Response::new(204).status(), 204);
    /// ```
    pub fn new(status: u16) -> Self {
        Self::local(Local { status, fields: Vec::new(), body: Content::Bytes(Vec::new()), code: "filter_reply" })
    }

    /// A refusal: a problem document (RFC 9457) with a stable `code` word, which the access log has too.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let refusal = Response::problem(429, "rate_limited").title("Too many requests").header("retry-after", "5");
    /// assert_eq!(refusal.status(), 429);
    /// ```
    pub fn problem(status: u16, code: &'static str) -> Self {
        Self::local(Local {
            status,
            fields: Vec::new(),
            body: Content::Problem { title: None, members: Vec::new() },
            code,
        })
    }

    /// A document of JSON.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let reply = Response::json(200, r#"{"up":true}"#);
    /// assert_eq!(reply.headers().text("content-type").as_deref(), Some("application/json"));
    /// ```
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status).header("content-type", "application/json").with_body(body)
    }

    pub(crate) fn of_upstream(exchange: Rc<Exchange>) -> Self {
        Self { of: Of::Upstream(exchange) }
    }

    fn local(local: Local) -> Self {
        Self { of: Of::Filter(Box::new(local)) }
    }

    /// The same with one more header.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let moved = Response::new(308).header("location", "/v2");
    /// assert_eq!(moved.headers().text("location").as_deref(), Some("/v2"));
    /// ```
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers_mut().append(name, value);
        self
    }

    /// The same refusal with one sentence for people; never internals.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let refusal = Response::problem(403, "plan_too_small").title("Your plan has no reports");
    /// ```
    pub fn title(mut self, title: impl Into<String>) -> Self {
        if let Of::Filter(local) = &mut self.of
            && let Content::Problem { title: own, .. } = &mut local.body
        {
            *own = Some(title.into());
        }
        self
    }

    /// The same refusal with one more member of its document (RFC 9457 §3.2), a text; never internals.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let refusal = Response::problem(502, "call_failed").member("call", "orders");
    /// ```
    pub fn member(self, name: &'static str, value: impl Into<String>) -> Self {
        let mut quoted = String::new();
        json::quote(&value.into(), &mut quoted);
        self.json_member(name, quoted)
    }

    /// The same with a member that is JSON, which has to be one whole value.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let refusal = Response::problem(400, "field_invalid").json_member("fields", r#"["name","mail"]"#);
    /// ```
    pub fn json_member(mut self, name: &'static str, json: impl Into<String>) -> Self {
        if let Of::Filter(local) = &mut self.of
            && let Content::Problem { members, .. } = &mut local.body
        {
            members.push((name, json.into()));
        }
        self
    }

    /// A reply of the filter's own with this code word, which the access log has. Otherwise it is `filter_reply`, or the refusal's.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let reply = Response::json(200, "{}").with_code("from_cache");
    /// assert_eq!(reply.code(), Some("from_cache"));
    /// ```
    pub fn with_code(mut self, code: &'static str) -> Self {
        if let Of::Filter(local) = &mut self.of {
            local.code = code;
        }
        self
    }

    /// A reply of the filter's own with this body. The upstream's is changed through [`Self::body_mut`].
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// let page = Response::new(200).header("content-type", "text/plain").with_body("hello");
    /// assert!(page.has_body());
    /// ```
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        if let Of::Filter(local) = &mut self.of {
            local.body = Content::Bytes(body.into());
        }
        self
    }

    /// Whether the filter made it itself.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// assert!(Response::new(204).is_local());
    /// ```
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.of, Of::Filter(_))
    }

    /// The code word of a reply of the filter's own.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// assert_eq!(Response::problem(403, "scope_missing").code(), Some("scope_missing"));
    /// ```
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match &self.of {
            Of::Filter(local) => Some(local.code),
            Of::Upstream(_) => None,
        }
    }

    /// The status; 0 where the host has none.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn is_worth_keeping(response: &Response) -> bool {
    ///     response.status() == 200
    /// }
    /// ```
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.of {
            Of::Filter(local) => local.status,
            Of::Upstream(_) => self.headers().text(":status").and_then(|status| status.parse().ok()).unwrap_or(0),
        }
    }

    /// Changes the status.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn soften(response: &mut Response) {
    ///     if response.status() == 500 {
    ///         response.set_status(503);
    ///     }
    /// }
    /// ```
    pub fn set_status(&mut self, status: u16) {
        match &mut self.of {
            Of::Filter(local) => local.status = status,
            Of::Upstream(_) => self.headers_mut().set(":status", status.to_string()),
        }
    }

    /// Its headers.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn is_json(response: &Response) -> bool {
    ///     response.headers().text("content-type").is_some_and(|kind| kind.starts_with("application/json"))
    /// }
    /// ```
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        match &self.of {
            Of::Upstream(_) => Headers::host(MapType::HttpResponseHeaders),
            Of::Filter(local) => Headers::own(&local.fields),
        }
    }

    /// Its headers, to be changed.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn forget_the_server(response: &mut Response) {
    ///     response.headers_mut().remove("server");
    /// }
    /// ```
    #[must_use]
    pub fn headers_mut(&mut self) -> HeadersMut<'_> {
        match &mut self.of {
            Of::Upstream(_) => HeadersMut::host(MapType::HttpResponseHeaders),
            Of::Filter(local) => HeadersMut::own(&mut local.fields),
        }
    }

    /// Whether a body or trailers follow its head.
    ///
    /// ```
    /// # use portcullis_testing as _;
    /// use portcullis_sdk::Response;
    /// assert!(!Response::new(204).has_body());
    /// ```
    #[must_use]
    pub fn has_body(&self) -> bool {
        match &self.of {
            Of::Upstream(exchange) => {
                let seen = exchange.response.seen.get();
                seen.shown || !seen.ended
            }
            Of::Filter(local) => !local.bytes().is_empty(),
        }
    }

    /// Its body, to be read. The filter declares that in [`Filter::BODIES`](crate::Filter::BODIES).
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// async fn mentions_secrets(response: &Response) -> Result<bool, BodyError> {
    ///     let body = response.body().collect(64 * 1024).await?;
    ///     Ok(body.windows(6).any(|word| word == b"secret"))
    /// }
    /// ```
    #[must_use]
    pub fn body(&self) -> Body<'_> {
        match &self.of {
            Of::Upstream(exchange) => Body::held(exchange, Way::Response),
            Of::Filter(local) => Body::own(local.bytes()),
        }
    }

    /// Its body, to be changed.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// fn shout(response: &mut Response) -> Result<(), BodyError> {
    ///     response.body_mut().map_chunks(|chunk| Some(chunk.bytes().to_ascii_uppercase()))
    /// }
    /// ```
    #[must_use]
    pub fn body_mut(&mut self) -> BodyMut<'_> {
        match &mut self.of {
            Of::Upstream(exchange) => BodyMut::held(exchange, Way::Response),
            Of::Filter(local) => {
                if let Content::Problem { .. } = local.body {
                    local.body = Content::Bytes(local.bytes());
                }
                match &mut local.body {
                    Content::Bytes(bytes) => BodyMut::own(bytes),
                    Content::Problem { .. } => BodyMut::none(),
                }
            }
        }
    }

    /// The trailers, if its body was collected and ended with some.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Response};
    /// async fn grpc_status(response: &Response) -> Result<Option<String>, BodyError> {
    ///     response.body().collect(1024).await?;
    ///     Ok(response.trailers().and_then(|trailers| trailers.text("grpc-status")))
    /// }
    /// ```
    #[must_use]
    pub fn trailers(&self) -> Option<Headers<'_>> {
        match &self.of {
            Of::Upstream(exchange) if exchange.response.seen.get().trailers => {
                Some(Headers::host(MapType::HttpResponseTrailers))
            }
            Of::Upstream(_) | Of::Filter(_) => None,
        }
    }

    /// Changes the trailers when they come; not called if there are none.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn hide(response: &mut Response) {
    ///     response.on_trailers(|trailers| trailers.remove("x-internal"));
    /// }
    /// ```
    pub fn on_trailers(&mut self, change: impl FnOnce(&mut TrailersMut) + 'static) {
        if let Of::Upstream(exchange) = &self.of {
            exchange.response.on_trailers.replace(Some(Box::new(change)));
        }
    }

    /// The filter's own reply, if this is one.
    pub(crate) fn into_local(self) -> Option<Box<Local>> {
        match self.of {
            Of::Upstream(_) => None,
            Of::Filter(local) => Some(local),
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("headers", &self.headers())
            .finish_non_exhaustive()
    }
}
