//! A request as a filter has it in hand.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use portcullis_abi::MapType;

use crate::body::{Body, BodyMut};
use crate::ended::Ended;
use crate::exchange::{Exchange, Way};
use crate::headers::{Headers, HeadersMut, TrailersMut};
use crate::{property, sys};

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
