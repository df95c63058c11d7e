//! What a filter is.

use std::fmt;

use crate::config::Config;
use crate::host::Host;
use crate::message::Next;
use crate::request::Request;
use crate::response::Response;

/// A policy: it gets every request, lets it go on or not, and gets the response.
///
/// One value serves all exchanges of its configuration; what belongs to one exchange is a local variable of
/// [`handle`](Self::handle).
///
/// ```
/// use portcullis_sdk::{Config, Filter, Host, Next, Request, Response, StartError};
///
/// #[derive(Config)]
/// struct Settings {
///     /// The header that every request gets.
///     header: String,
/// }
///
/// struct Stamp(Settings);
///
/// impl Filter for Stamp {
///     type Config = Settings;
///
///     async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
///         Ok(Self(settings))
///     }
///
///     async fn handle(&self, mut request: Request, next: Next) -> Response {
///         request.headers_mut().set(&self.0.header, "1");
///         next.run(request).await
///     }
/// }
///
/// portcullis_sdk::export_filter!(Stamp);
/// ```
pub trait Filter: Sized + 'static {
    /// Its settings.
    type Config: Config;

    /// Whose bodies it reads or changes. The host is asked for no others, and those that nobody asks for cost nothing.
    const BODIES: Bodies = Bodies::NONE;

    /// Whether it changes headers after it has read a body.
    ///
    /// Then heads are held while bodies are read, where the host does that: see the crate's documentation. Elsewhere a head
    /// has gone on by the time its body is there.
    const HOLDS_HEADERS: bool = false;

    /// Whether it wants to know how exchanges ended: [`Request::on_log`]. The host does not say it to others.
    const LOGS: bool = false;

    /// What it makes known to filters after it, for whoever orders them: `identity`, say.
    const PROVIDES: &'static [&'static str] = &[];

    /// What a filter before it must have made known.
    const REQUIRES: &'static [&'static str] = &[];

    /// Starts the filter with its settings.
    ///
    /// It may call upstreams. Requests that come meanwhile wait; when it fails, the host refuses the configuration, or, if that
    /// is in use already, requests are answered with 503 `filter_not_started`.
    fn start(settings: Self::Config, host: &Host) -> impl Future<Output = Result<Self, StartError>>;

    /// Handles one exchange. The future is dropped when the client goes away.
    fn handle(&self, request: Request, next: Next) -> impl Future<Output = Response>;
}

/// Whose bodies a filter reads or changes, trailers included.
///
/// ```
/// use portcullis_sdk::Bodies;
/// assert!(Bodies::BOTH.request() && !Bodies::RESPONSE.request());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bodies {
    request: bool,
    response: bool,
}

impl Bodies {
    /// Neither's.
    ///
    /// ```
    /// use portcullis_sdk::Bodies;
    /// assert!(!Bodies::NONE.request() && !Bodies::NONE.response());
    /// ```
    pub const NONE: Self = Self { request: false, response: false };
    /// The request's.
    ///
    /// ```
    /// use portcullis_sdk::Bodies;
    /// assert!(Bodies::REQUEST.request() && !Bodies::REQUEST.response());
    /// ```
    pub const REQUEST: Self = Self { request: true, response: false };
    /// The response's.
    ///
    /// ```
    /// use portcullis_sdk::Bodies;
    /// assert!(Bodies::RESPONSE.response() && !Bodies::RESPONSE.request());
    /// ```
    pub const RESPONSE: Self = Self { request: false, response: true };
    /// Both.
    ///
    /// ```
    /// use portcullis_sdk::Bodies;
    /// assert!(Bodies::BOTH.request() && Bodies::BOTH.response());
    /// ```
    pub const BOTH: Self = Self { request: true, response: true };

    /// Whether the request's is among them.
    ///
    /// ```
    /// use portcullis_sdk::Bodies;
    /// assert!(Bodies::BOTH.request());
    /// ```
    #[must_use]
    pub const fn request(self) -> bool {
        self.request
    }

    /// Whether the response's is among them.
    ///
    /// ```
    /// use portcullis_sdk::Bodies;
    /// assert!(!Bodies::REQUEST.response());
    /// ```
    #[must_use]
    pub const fn response(self) -> bool {
        self.response
    }
}

/// Why a filter does not start: one sentence for the operator, which names the setting and what to do.
///
/// ```
/// use portcullis_sdk::StartError;
/// assert_eq!(StartError::new("`rate` is 0; it has to be at least 1/h").to_string(), "`rate` is 0; it has to be at least 1/h");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    /// Because of this.
    ///
    /// ```
    /// # use portcullis_sdk::StartError;
    /// fn checked(rate: u32) -> Result<u32, StartError> {
    ///     if rate == 0 { Err(StartError::new("`rate` is 0; it has to be at least 1")) } else { Ok(rate) }
    /// }
    /// ```
    #[must_use]
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for StartError {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<&str> for StartError {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<crate::CalloutError> for StartError {
    fn from(why: crate::CalloutError) -> Self {
        Self::new(why)
    }
}
