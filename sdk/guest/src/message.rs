//! Requests and responses as a filter has them in hand.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;

use portcullis_abi::MapType;

use crate::body::{Body, BodyMut};
use crate::ended::Ended;
use crate::exchange::{Exchange, Head, Progress, Way};
use crate::headers::{Headers, HeadersMut, TrailersMut};
use crate::local::{Content, Local};
use crate::{json, property, sys};

/// A request on its way to the upstream.
///
/// ```
/// # use portcullis_sdk::{Next, Request, Response};
/// async fn handle(mut request: Request, next: Next) -> Response {
///     if request.path() == "/internal" {
///         return Response::problem(404, "no_route");
///     }
///     request.headers_mut().set("x-checked", "yes");
///     next.run(request).await
/// }
/// ```
pub struct Request {
    exchange: Rc<Exchange>,
}

impl Request {
    pub(crate) fn new(exchange: Rc<Exchange>) -> Self {
        Self { exchange }
    }

    /// Its headers, with `:method`, `:path`, `:authority` and `:scheme` among them.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn wants_json(request: &Request) -> bool {
    ///     request.headers().text("accept").is_some_and(|accept| accept.contains("json"))
    /// }
    /// ```
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers::host(MapType::HttpRequestHeaders)
    }

    /// Its headers, to be changed.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn forget_the_client(request: &mut Request) {
    ///     request.headers_mut().remove("user-agent");
    /// }
    /// ```
    #[must_use]
    pub fn headers_mut(&mut self) -> HeadersMut<'_> {
        HeadersMut::host(MapType::HttpRequestHeaders)
    }

    /// The method; empty if it is no text.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn only_reads(request: &Request) -> bool {
    ///     matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS")
    /// }
    /// ```
    #[must_use]
    pub fn method(&self) -> String {
        self.headers().text(":method").unwrap_or_default()
    }

    /// The path with its query; empty if it is no text.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn has_query(request: &Request) -> bool {
    ///     request.target().contains('?')
    /// }
    /// ```
    #[must_use]
    pub fn target(&self) -> String {
        self.headers().text(":path").unwrap_or_default()
    }

    /// The path without its query.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_api(request: &Request) -> bool {
    ///     request.path().starts_with("/api/")
    /// }
    /// ```
    #[must_use]
    pub fn path(&self) -> String {
        let mut target = self.target();
        target.truncate(target.find(['?', '#']).unwrap_or(target.len()));
        target
    }

    /// What follows the `?`.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn wants_debug(request: &Request) -> bool {
    ///     request.query().is_some_and(|query| query.split('&').any(|part| part == "debug=1"))
    /// }
    /// ```
    #[must_use]
    pub fn query(&self) -> Option<String> {
        let target = self.target();
        let (_, query) = target.split_once('?')?;
        Some(query.split('#').next().unwrap_or_default().to_owned())
    }

    /// The host that the client asks for, with its port if it named one.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_internal(request: &Request) -> bool {
    ///     request.authority().ends_with(".internal")
    /// }
    /// ```
    #[must_use]
    pub fn authority(&self) -> String {
        self.headers().text(":authority").unwrap_or_default()
    }

    /// The client's address, as the gateway believes it.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_local(request: &Request) -> bool {
    ///     request.client_ip().is_some_and(|ip| ip.is_loopback())
    /// }
    /// ```
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        let address = property::text(&["source", "address"])?;
        address.parse().ok().or_else(|| address.parse::<SocketAddr>().ok().map(|address| address.ip()))
    }

    /// A property of the exchange or its connection: see [`crate::property`].
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn route(request: &Request) -> Option<String> {
    ///     request.property(&["xds", "route_name"])
    /// }
    /// ```
    #[must_use]
    pub fn property<T: property::Value>(&self, path: &[&str]) -> Option<T> {
        property::get(path)
    }

    /// Sets a property on the exchange, for this and later filters, access logs included. Whether the host took it.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn tell(request: &mut Request, plan: &str) {
    ///     request.set_property("acme.plan", plan);
    /// }
    /// ```
    pub fn set_property(&mut self, name: &str, value: impl AsRef<[u8]>) -> bool {
        sys::set_property(name.as_bytes(), value.as_ref()).is_ok()
    }

    /// Whether a body or trailers follow its head.
    ///
    /// ```
    /// # use portcullis_sdk::{Request, Response};
    /// fn refusal(request: &Request) -> Option<Response> {
    ///     (!request.has_body()).then(|| Response::problem(400, "body_missing"))
    /// }
    /// ```
    #[must_use]
    pub fn has_body(&self) -> bool {
        let seen = self.exchange.request.seen.get();
        seen.shown || !seen.ended
    }

    /// Its body, to be read. The filter declares that in [`Filter::BODIES`](crate::Filter::BODIES).
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Request};
    /// async fn length(request: &Request) -> Result<usize, BodyError> {
    ///     Ok(request.body().collect(64 * 1024).await?.len())
    /// }
    /// ```
    #[must_use]
    pub fn body(&self) -> Body<'_> {
        Body::held(&self.exchange, Way::Request)
    }

    /// Its body, to be changed.
    ///
    /// ```
    /// # use portcullis_sdk::{BodyError, Request};
    /// async fn trim(request: &mut Request) -> Result<(), BodyError> {
    ///     let text = request.body_mut().collect(64 * 1024).await?;
    ///     request.body_mut().set(text.trim_ascii())
    /// }
    /// ```
    #[must_use]
    pub fn body_mut(&mut self) -> BodyMut<'_> {
        BodyMut::held(&self.exchange, Way::Request)
    }

    /// Changes the trailers when they come; not called if there are none.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn sign(request: &mut Request) {
    ///     request.on_trailers(|trailers| trailers.set("x-checked", "yes"));
    /// }
    /// ```
    pub fn on_trailers(&mut self, change: impl FnOnce(&mut TrailersMut) + 'static) {
        self.exchange.request.on_trailers.replace(Some(Box::new(change)));
    }

    /// Does something when the exchange is over: also when the client has left, and when the filter's future was dropped. The
    /// last that is set counts. The filter declares that in [`Filter::LOGS`](crate::Filter::LOGS).
    ///
    /// Nothing can be changed any more, and nothing awaited. What it shares with the filter's future, share by `Rc`.
    ///
    /// ```
    /// # use portcullis_sdk::{metric::Counter, Next, Request, Response};
    /// async fn handle(refused: Counter, mut request: Request, next: Next) -> Response {
    ///     request.on_log(move |ended| {
    ///         if ended.status() == 429 {
    ///             refused.increment();
    ///         }
    ///     });
    ///     next.run(request).await
    /// }
    /// ```
    pub fn on_log(&mut self, record: impl FnOnce(&Ended) + 'static) {
        if self.exchange.root.logs {
            self.exchange.on_log.replace(Some(Box::new(record)));
        } else {
            log::error!("the host does not tell of ends; add `const LOGS: bool = true;` to the filter's `impl Filter`");
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("headers", &self.headers()).finish_non_exhaustive()
    }
}

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
        Response { of: Of::Upstream(exchange) }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

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

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("headers", &self.headers())
            .finish_non_exhaustive()
    }
}
