//! The end of an exchange, for filters that keep a record of it.

use std::fmt;

use portcullis_abi::MapType;

use crate::headers::Headers;
use crate::property;

/// What is done with it.
pub(crate) type OnLog = Box<dyn FnOnce(&Ended)>;

/// An exchange that is over, whatever became of it: see [`Request::on_log`](crate::Request::on_log).
///
/// ```
/// # use portcullis_sdk::Ended;
/// fn record(ended: &Ended) {
///     let path = ended.request_headers().text(":path").unwrap_or_default();
///     log::info!("{path} {} {}", ended.status(), ended.details());
/// }
/// ```
pub struct Ended(());

impl Ended {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// The request's headers, as they were sent on.
    ///
    /// ```
    /// # use portcullis_sdk::Ended;
    /// fn agent(ended: &Ended) -> Option<String> {
    ///     ended.request_headers().text("user-agent")
    /// }
    /// ```
    #[must_use]
    pub fn request_headers(&self) -> Headers<'_> {
        Headers::host(MapType::HttpRequestHeaders)
    }

    /// The headers of the response that the client got; none if it got none.
    ///
    /// ```
    /// # use portcullis_sdk::Ended;
    /// fn was_cached(ended: &Ended) -> bool {
    ///     ended.response_headers().text("x-cache").as_deref() == Some("hit")
    /// }
    /// ```
    #[must_use]
    pub fn response_headers(&self) -> Headers<'_> {
        Headers::host(MapType::HttpResponseHeaders)
    }

    /// The response's trailers.
    ///
    /// ```
    /// # use portcullis_sdk::Ended;
    /// fn grpc_status(ended: &Ended) -> Option<String> {
    ///     ended.response_trailers().text("grpc-status")
    /// }
    /// ```
    #[must_use]
    pub fn response_trailers(&self) -> Headers<'_> {
        Headers::host(MapType::HttpResponseTrailers)
    }

    /// The status that the client got; 0 if it got none.
    ///
    /// ```
    /// # use portcullis_sdk::{Ended, metric::Counter};
    /// fn count(ended: &Ended, failed: &Counter) {
    ///     if matches!(ended.status(), 0 | 500..) {
    ///         failed.increment();
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response_headers().text(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Where the response came from, in the word of the access log: `via_upstream`, a filter's code, or the gateway's.
    ///
    /// ```
    /// # use portcullis_sdk::Ended;
    /// fn reached_the_upstream(ended: &Ended) -> bool {
    ///     ended.details() == "via_upstream"
    /// }
    /// ```
    #[must_use]
    pub fn details(&self) -> String {
        property::text(&["response", "code_details"]).unwrap_or_default()
    }

    /// A property of the exchange or its connection: see [`crate::property`]. Sizes and times are complete now.
    ///
    /// ```
    /// # use portcullis_sdk::Ended;
    /// fn bytes_sent(ended: &Ended) -> Option<i64> {
    ///     ended.property(&["response", "size"])
    /// }
    /// ```
    #[must_use]
    pub fn property<T: property::Value>(&self, path: &[&str]) -> Option<T> {
        property::get(path)
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("status", &self.status()).finish_non_exhaustive()
    }
}
