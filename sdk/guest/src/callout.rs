//! Calls to upstreams: built like a request, awaited like any future, given up by dropping it.
//!
//! The answer comes to whoever was the dispatcher's active context when the call was made, and is lost with that context. So
//! a call is made only in a callback of its own exchange, or of the root, which outlives them all; a task that is polled
//! within another exchange's callback waits for the next tick.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::{BufferType, MapType};
use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;
use serde::Deserialize;

use crate::executor::{self, Entered};
use crate::headers::{Fields, Headers, first};
use crate::pending::{Calls, More, Pending};
use crate::schema::{Piece, Schema};
use crate::timer::sleep;
use crate::{ms, secs, sys};

/// How long a callout may take when nobody says otherwise.
const DEFAULT_TIMEOUT: Duration = secs(5);
/// How long an answer may be when nobody says otherwise.
const DEFAULT_LIMIT: usize = 1024 * 1024;

/// An upstream that the filter may call, by the gateway's name for it (Envoy: a cluster). A string in settings.
///
/// ```
/// # use portcullis_sdk::{ms, CalloutError, Upstream};
/// async fn country(geo: &Upstream, ip: &str) -> Result<Vec<u8>, CalloutError> {
///     let reply = geo.get(format!("/ip/{ip}")).timeout(ms(50)).send().await?;
///     Ok(reply.into_body())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Upstream {
    name: Rc<str>,
}

impl From<String> for Upstream {
    fn from(name: String) -> Self {
        Self { name: name.into() }
    }
}

impl From<&str> for Upstream {
    fn from(name: &str) -> Self {
        Self { name: name.into() }
    }
}

impl Schema for Upstream {
    const SCHEMA: &'static [Piece] =
        &[Piece::Text(r#"{"type":"string","minLength":1,"format":"portcullis-upstream"}"#)];
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Upstream {
    /// The gateway's name for it.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// assert_eq!(Upstream::from("idp").name(), "idp");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A GET of this path.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("idp").get("/jwks.json");
    /// ```
    pub fn get(&self, path: impl Into<String>) -> Callout {
        self.call("GET", path)
    }

    /// A POST to this path.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("audit").post("/events", r#"{"user":"ann"}"#);
    /// ```
    pub fn post(&self, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Callout {
        self.call("POST", path).body(body)
    }

    /// A request with this method.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("sessions").call("DELETE", "/sessions/7");
    /// ```
    pub fn call(&self, method: &str, path: impl Into<String>) -> Callout {
        Callout {
            upstream: self.clone(),
            method: method.to_owned(),
            path: path.into(),
            authority: None,
            headers: Vec::new(),
            body: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            limit: DEFAULT_LIMIT,
        }
    }
}

/// A call that has not been made.
///
/// ```
/// use portcullis_sdk::{Callout, Upstream, ms};
/// let call: Callout = Upstream::from("audit").post("/events", "{}").header("content-type", "application/json").timeout(ms(20));
/// ```
#[must_use = "nothing is called before `send`"]
#[derive(Clone, Debug)]
pub struct Callout {
    upstream: Upstream,
    method: String,
    path: String,
    authority: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Duration,
    limit: usize,
}

impl Callout {
    /// With one more header.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("idp").get("/me").header("authorization", "Bearer x");
    /// ```
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With this `:authority`; otherwise it is the upstream's name.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("idp").get("/jwks.json").authority("idp.example.com");
    /// ```
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// With this body.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("users").call("PUT", "/users/7").body(r#"{"name":"ann"}"#);
    /// ```
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With so much time; 5 s otherwise.
    ///
    /// ```
    /// use portcullis_sdk::{Upstream, ms};
    /// let call = Upstream::from("geo").get("/ip/192.0.2.1").timeout(ms(50));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With an answer of at most so many bytes; 1 MiB otherwise.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("geo").get("/ip/192.0.2.1").limit(64);
    /// ```
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Makes the call, and waits for a 2xx answer.
    ///
    /// Dropping the future gives the call up: its answer is thrown away when it comes.
    ///
    /// # Errors
    /// When there is no answer, or one with another status: hosts answer in place of an upstream that cannot be reached, with
    /// 503, or is late, with 504.
    ///
    /// ```
    /// # use portcullis_sdk::{CalloutError, Upstream};
    /// async fn is_up(idp: &Upstream) -> bool {
    ///     match idp.get("/health").send().await {
    ///         Ok(_) => true,
    ///         Err(CalloutError::Status(reply)) => reply.status() < 500,
    ///         Err(_) => false,
    ///     }
    /// }
    /// ```
    pub async fn send(self) -> Result<Reply, CalloutError> {
        let reply = self.send_any().await?;
        if (200..300).contains(&reply.status) { Ok(reply) } else { Err(CalloutError::Status(Box::new(reply))) }
    }

    /// Makes the call, and waits for an answer, whatever its status.
    ///
    /// # Errors
    /// When there is none.
    ///
    /// ```
    /// # use portcullis_sdk::{CalloutError, Upstream};
    /// async fn exists(users: &Upstream, id: u32) -> Result<bool, CalloutError> {
    ///     Ok(users.call("HEAD", format!("/users/{id}")).send_any().await?.status() != 404)
    /// }
    /// ```
    pub async fn send_any(self) -> Result<Reply, CalloutError> {
        while !may_dispatch() {
            sleep(ms(1)).await;
        }
        let pending = self.dispatch()?;
        pending.next().await.unwrap_or(Err(CalloutError::Broken))
    }

    fn dispatch(&self) -> Result<Pending<Answer>, CalloutError> {
        let authority = self.authority.as_deref().unwrap_or(self.upstream.name());
        let mut headers = vec![
            (":method", self.method.as_str()),
            (":path", &self.path),
            (":authority", authority),
            (":scheme", "http"),
        ];
        for (name, value) in &self.headers {
            // The crate takes text here.
            let value = std::str::from_utf8(value).map_err(|_| CalloutError::Header { name: name.clone() })?;
            headers.push((name, value));
        }
        let body = (!self.body.is_empty()).then_some(self.body.as_slice());
        match hostcalls::dispatch_http_call(self.upstream.name(), headers, body, Vec::new(), self.timeout) {
            // There is no giving up an HTTP callout: its answer comes, and is nobody's.
            Ok(token) => Ok(Pending::new(&CALLS, token, self.limit, |_| {})),
            Err(Status::BadArgument) => Err(CalloutError::UnknownUpstream { name: self.upstream.name().to_owned() }),
            Err(_) => Err(CalloutError::Refused { name: self.upstream.name().to_owned() }),
        }
    }
}

/// An answer.
///
/// ```
/// # use portcullis_sdk::{Reply, Response};
/// fn passed_on(reply: Reply) -> Response {
///     let kind = reply.headers().text("content-type").unwrap_or_default();
///     Response::new(reply.status()).header("content-type", kind).with_body(reply.into_body())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    fields: Fields,
    body: Vec<u8>,
}

impl Reply {
    /// The status.
    ///
    /// ```
    /// # use portcullis_sdk::Upstream;
    /// async fn is_up(status: &Upstream) -> bool {
    ///     status.get("/").send().await.is_ok_and(|reply| reply.status() < 500)
    /// }
    /// ```
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers.
    ///
    /// ```
    /// # use portcullis_sdk::{CalloutError, Upstream};
    /// async fn version(files: &Upstream) -> Result<Option<String>, CalloutError> {
    ///     Ok(files.call("HEAD", "/rules").send().await?.headers().text("etag"))
    /// }
    /// ```
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers::own(&self.fields)
    }

    /// The body.
    ///
    /// ```
    /// # use portcullis_sdk::{CalloutError, Request, Upstream};
    /// async fn mark(request: &mut Request, geo: &Upstream) -> Result<(), CalloutError> {
    ///     let country = geo.get("/ip").send().await?;
    ///     request.headers_mut().set("x-country", country.body());
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, as text if it is that.
    ///
    /// ```
    /// # use portcullis_sdk::Reply;
    /// fn country(reply: &Reply) -> &str {
    ///     reply.text().unwrap_or("unknown")
    /// }
    /// ```
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }

    /// The body itself.
    ///
    /// ```
    /// # use portcullis_sdk::{CalloutError, Response, Upstream};
    /// async fn page(pages: &Upstream) -> Result<Response, CalloutError> {
    ///     Ok(Response::new(200).with_body(pages.get("/").send().await?.into_body()))
    /// }
    /// ```
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The body itself, which leaves the head.
    ///
    /// ```
    /// # use portcullis_sdk::Reply;
    /// fn parts(mut reply: Reply) -> (Reply, Option<String>) {
    ///     let text = String::from_utf8(reply.take_body()).ok();
    ///     (reply, text)
    /// }
    /// ```
    #[must_use]
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// ```
    /// # use portcullis_sdk::Reply;
    /// fn names(reply: &Reply) -> Vec<String> {
    ///     reply.json().unwrap_or_default()
    /// }
    /// ```
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// Why there is no good answer.
///
/// ```
/// use portcullis_sdk::CalloutError;
/// let why = CalloutError::UnknownUpstream { name: "idp".to_owned() };
/// assert!(why.to_string().starts_with("the gateway knows no upstream `idp` that this filter may call"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalloutError {
    /// The gateway knows no such upstream, or does not let this filter call it.
    UnknownUpstream {
        /// The name that the settings gave.
        name: String,
    },
    /// The gateway did not make the call: too many are in flight, or no endpoint is there.
    Refused {
        /// The upstream.
        name: String,
    },
    /// A header's value cannot be put in a callout.
    Header {
        /// The header.
        name: String,
    },
    /// The connection broke while the answer came.
    Broken,
    /// The answer is longer than the limit.
    TooLarge,
    /// An answer with another status than 2xx.
    Status(Box<Reply>),
}

impl fmt::Display for CalloutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownUpstream { name } => write!(
                f,
                "the gateway knows no upstream `{name}` that this filter may call; define it under `upstreams` (Envoy: as a \
                 cluster), or correct the name in the filter's settings"
            ),
            Self::Refused { name } => {
                write!(f, "the gateway did not call `{name}`: too many calls are in flight, or it has no endpoint")
            }
            Self::Header { name } => {
                write!(f, "the value of the header `{name}` is not text, and callouts take no other")
            }
            Self::Broken => f.write_str("the connection broke while the answer came"),
            Self::TooLarge => f.write_str("the answer is longer than the limit of the call"),
            Self::Status(reply) => write!(f, "the answer's status is {}", reply.status),
        }
    }
}

impl std::error::Error for CalloutError {}

/// Whether an answer to a call made now would reach the running task.
pub(crate) fn may_dispatch() -> bool {
    match executor::entered() {
        Entered::Root(_) => true,
        Entered::Exchange(id) => executor::running().is_some_and(|task| task.context() == id),
        // Envoy configures plugins before its upstreams can be called.
        Entered::Configuring(_) | Entered::Nothing => false,
    }
}

type Answer = Result<Reply, CalloutError>;

thread_local! {
    static CALLS: Calls<Answer> = const { Calls::new() };
}

/// Takes in what came of a call.
pub(crate) fn deliver(token: u32, headers: usize, body_size: usize) {
    CALLS.with(|calls| {
        if let Some(limit) = calls.room(token, |_| 0) {
            calls.put(token, answer(headers, body_size, limit), More::No);
        }
    });
}

fn answer(headers: usize, body_size: usize, limit: usize) -> Answer {
    if headers == 0 {
        return Err(CalloutError::Broken);
    }
    if body_size > limit {
        return Err(CalloutError::TooLarge);
    }
    let fields = sys::headers(MapType::HttpCallResponseHeaders);
    let status = first(&fields, ":status").and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    let body = if body_size == 0 { Vec::new() } else { sys::buffer(BufferType::HttpCallResponseBody, body_size) };
    Ok(Reply { status: status.ok_or(CalloutError::Broken)?, fields, body })
}
