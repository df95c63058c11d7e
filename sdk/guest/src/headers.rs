//! Header access: values are bytes, names are compared without case, and nothing panics whatever the host answers.
//!
//! A head is read and changed in the host, entry by entry. Where it is not there any more a read finds nothing, and a change
//! is a warning in the log that says why.

use std::borrow::Cow;
use std::fmt;

use portcullis_abi::{BufferType, MapType, Status};

use crate::header_list::HeaderList;
use crate::sys;

/// The value of a header.
///
/// ```
/// use portcullis_sdk::HeaderValue;
/// let value = HeaderValue::from("text/plain");
/// assert_eq!(value.to_str(), Ok("text/plain"));
/// assert!(HeaderValue::from(vec![0xff]).to_str().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct HeaderValue(Vec<u8>);

/// A value that is not text.
///
/// ```
/// use portcullis_sdk::{HeaderValue, NotText};
/// assert_eq!(HeaderValue::from(vec![0xff]).to_str(), Err(NotText));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

impl HeaderValue {
    /// As it came.
    ///
    /// ```
    /// use portcullis_sdk::HeaderValue;
    /// assert_eq!(HeaderValue::from(vec![0xff]).as_bytes(), [0xff]);
    /// ```
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text: visible ASCII, spaces and tabs, which is all that every recipient reads alike.
    ///
    /// # Errors
    /// When there is any other byte in it.
    ///
    /// ```
    /// use portcullis_sdk::HeaderValue;
    /// assert_eq!(HeaderValue::from("gzip").to_str(), Ok("gzip"));
    /// assert!(HeaderValue::from("gr\u{fc}n").to_str().is_err());
    /// ```
    pub fn to_str(&self) -> Result<&str, NotText> {
        let is_text = self.0.iter().all(|byte| matches!(byte, b'\t' | 0x20..0x7f));
        std::str::from_utf8(&self.0).ok().filter(|_| is_text).ok_or(NotText)
    }

    /// The bytes themselves.
    ///
    /// ```
    /// use portcullis_sdk::HeaderValue;
    /// assert_eq!(HeaderValue::from("gzip").into_bytes(), b"gzip");
    /// ```
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// What is not text is shown as `\u{fffd}`.
impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl AsRef<[u8]> for HeaderValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for HeaderValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl PartialEq<str> for HeaderValue {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for HeaderValue {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value is not text")
    }
}

impl std::error::Error for NotText {}

/// Entries of a message that is not in the host: a callout's answer, or a reply of the filter's own.
pub(crate) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Copy)]
enum Source<'a> {
    Host(MapType),
    Own(&'a Fields),
}

/// Headers to read.
///
/// ```
/// # use portcullis_sdk::Request;
/// fn is_json(request: &Request) -> bool {
///     request.headers().get("content-type").is_some_and(|value| value == "application/json")
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Headers<'a>(Source<'a>);

impl<'a> Headers<'a> {
    pub(crate) fn host(map: MapType) -> Self {
        Self(Source::Host(map))
    }

    pub(crate) fn own(fields: &'a Fields) -> Self {
        Self(Source::Own(fields))
    }

    /// The first value of this name.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_json(request: &Request) -> bool {
    ///     request.headers().get("content-type").is_some_and(|kind| kind == "application/json")
    /// }
    /// ```
    #[must_use]
    pub fn get(self, name: &str) -> Option<HeaderValue> {
        match self.0 {
            Source::Host(map) => sys::header(map, name).ok().map(HeaderValue),
            Source::Own(fields) => first(fields, name).map(|value| HeaderValue(value.to_vec())),
        }
    }

    /// The first value of this name, if it is text.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn token(request: &Request) -> Option<String> {
    ///     request.headers().text("authorization")?.strip_prefix("Bearer ").map(str::to_owned)
    /// }
    /// ```
    #[must_use]
    pub fn text(self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        value.to_str().ok().map(str::to_owned)
    }

    /// Every value of this name, in order.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn cookies(response: &Response) -> usize {
    ///     response.headers().get_all("set-cookie").len()
    /// }
    /// ```
    #[must_use]
    pub fn get_all(self, name: &str) -> Vec<HeaderValue> {
        let named = |(key, value): (Vec<u8>, Vec<u8>)| is_named(&key, name).then_some(HeaderValue(value));
        self.pairs().into_owned().into_iter().filter_map(named).collect()
    }

    /// Whether there is one of this name.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_signed_in(request: &Request) -> bool {
    ///     request.headers().contains("authorization")
    /// }
    /// ```
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All of them, in order, pseudo-headers first.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn size(request: &Request) -> usize {
    ///     request.headers().all().iter().map(|(name, value)| name.len() + value.as_bytes().len()).sum()
    /// }
    /// ```
    #[must_use]
    pub fn all(self) -> Vec<(String, HeaderValue)> {
        let text =
            |(name, value): (Vec<u8>, Vec<u8>)| (String::from_utf8_lossy(&name).into_owned(), HeaderValue(value));
        self.pairs().into_owned().into_iter().map(text).collect()
    }

    /// All of them, read in one piece: cheaper than [`Self::all`], and than asking for more than one or two.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn is_sent_twice(request: &Request) -> bool {
    ///     request.headers().list().get_all("authorization").count() > 1
    /// }
    /// ```
    #[must_use]
    pub fn list(self) -> HeaderList {
        match self.0 {
            Source::Host(map) => HeaderList::new(sys::header_pairs(map)),
            Source::Own(fields) => fields.iter().map(|(name, value)| (name, value)).collect(),
        }
    }

    fn pairs(self) -> Cow<'a, Fields> {
        match self.0 {
            Source::Host(map) => Cow::Owned(sys::headers(map)),
            Source::Own(fields) => Cow::Borrowed(fields),
        }
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.all()).finish()
    }
}

enum Target<'a> {
    Host(MapType),
    Own(&'a mut Fields),
}

/// Headers to change.
///
/// ```
/// # use portcullis_sdk::Response;
/// fn harden(response: &mut Response) {
///     let mut headers = response.headers_mut();
///     headers.remove("server");
///     headers.set("x-frame-options", "DENY");
/// }
/// ```
pub struct HeadersMut<'a>(Target<'a>);

/// A change that the host did not make.
///
/// ```
/// # use portcullis_sdk::{Response, Unchanged};
/// fn mark(response: &mut Response) -> bool {
///     response.headers_mut().try_set("x-mark", "1") != Err(Unchanged::Gone)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// The head has been sent on: change it before a body is read, or declare `HOLDS_HEADERS`.
    Gone,
    /// Another reason of the host's.
    Refused,
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the headers have been sent on; change them before reading the body, or set HOLDS_HEADERS",
            Self::Refused => "the host refuses the change",
        })
    }
}

impl std::error::Error for Unchanged {}

impl<'a> HeadersMut<'a> {
    pub(crate) fn host(map: MapType) -> Self {
        Self(Target::Host(map))
    }

    pub(crate) fn own(fields: &'a mut Fields) -> Self {
        Self(Target::Own(fields))
    }

    /// Leaves exactly one entry of this name. A change that cannot be made is a warning in the log.
    ///
    /// ```
    /// # use portcullis_sdk::Request;
    /// fn identify(request: &mut Request, user: &str) {
    ///     request.headers_mut().set("x-user", user);
    /// }
    /// ```
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        warn(name, self.try_set(name, value));
    }

    /// Adds an entry beside those of this name. A change that cannot be made is a warning in the log.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn remember(response: &mut Response) {
    ///     response.headers_mut().append("set-cookie", "seen=1; Path=/");
    /// }
    /// ```
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let appended = match &mut self.0 {
            Target::Host(map) => sys::add_header(*map, name, value).map_err(unchanged),
            Target::Own(fields) => {
                fields.push((name.to_ascii_lowercase().into_bytes(), value.to_vec()));
                Ok(())
            }
        };
        warn(name, appended);
    }

    /// Removes every entry of this name. A change that cannot be made is a warning in the log.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn discreet(response: &mut Response) {
    ///     response.headers_mut().remove("x-powered-by");
    /// }
    /// ```
    pub fn remove(&mut self, name: &str) {
        let removed = match &mut self.0 {
            Target::Host(map) => sys::remove_header(*map, name).map_err(unchanged),
            Target::Own(fields) => {
                fields.retain(|(key, _)| !is_named(key, name));
                Ok(())
            }
        };
        warn(name, removed);
    }

    /// Leaves exactly one entry of this name.
    ///
    /// # Errors
    /// When the host does not make the change.
    ///
    /// ```
    /// # use portcullis_sdk::{Request, Response};
    /// fn mark(request: &mut Request) -> Result<(), Response> {
    ///     request.headers_mut().try_set("x-checked", "yes").map_err(|_| Response::problem(500, "not_marked"))
    /// }
    /// ```
    pub fn try_set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Unchanged> {
        let value = value.as_ref();
        match &mut self.0 {
            Target::Host(map) => sys::set_header(*map, name, value).map_err(unchanged),
            Target::Own(fields) => {
                fields.retain(|(key, _)| !is_named(key, name));
                fields.push((name.to_ascii_lowercase().into_bytes(), value.to_vec()));
                Ok(())
            }
        }
    }

    /// Every entry, in order.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn count(response: &mut Response) {
    ///     response.on_trailers(|trailers| log::info!("{} trailers", trailers.all().len()));
    /// }
    /// ```
    #[must_use]
    pub fn all(&self) -> Vec<(String, HeaderValue)> {
        match &self.0 {
            Target::Host(map) => Headers::host(*map).all(),
            Target::Own(fields) => Headers::own(fields).all(),
        }
    }

    /// The first value of this name.
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn cache_for_a_minute(response: &mut Response) {
    ///     let mut headers = response.headers_mut();
    ///     if headers.get("cache-control").is_none() {
    ///         headers.set("cache-control", "max-age=60");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn get(&self, name: &str) -> Option<HeaderValue> {
        match &self.0 {
            Target::Host(map) => Headers::host(*map).get(name),
            Target::Own(fields) => Headers::own(fields).get(name),
        }
    }
}

/// Trailers to read and change.
///
/// ```
/// # use portcullis_sdk::Response;
/// fn sign(response: &mut Response) {
///     response.on_trailers(|trailers| trailers.set("x-signed", "yes"));
/// }
/// ```
pub type TrailersMut = HeadersMut<'static>;

impl TrailersMut {
    pub(crate) fn new(map: MapType) -> Self {
        Self(Target::Host(map))
    }

    /// Adds to the body, before the trailers. Whether the host did: see [`Host::adds_bodies`](crate::Host::adds_bodies).
    ///
    /// ```
    /// # use portcullis_sdk::Response;
    /// fn closed(response: &mut Response) {
    ///     response.on_trailers(|trailers| _ = trailers.append_to_body(b"]"));
    /// }
    /// ```
    pub fn append_to_body(&mut self, more: &[u8]) -> bool {
        let buffer = match &self.0 {
            Target::Host(MapType::HttpRequestTrailers) => BufferType::HttpRequestBody,
            Target::Host(_) => BufferType::HttpResponseBody,
            Target::Own(_) => return false,
        };
        let mut body = sys::buffer(buffer, usize::MAX);
        let held = body.len();
        body.extend_from_slice(more);
        sys::set_buffer(buffer, held, &body).is_ok()
    }
}

fn unchanged(status: Status) -> Unchanged {
    if status == Status::BadArgument || status == Status::NotFound { Unchanged::Gone } else { Unchanged::Refused }
}

fn warn(name: &str, changed: Result<(), Unchanged>) {
    if let Err(why) = changed {
        log::warn!("the header `{name}` was left as it is: {why}");
    }
}

pub(crate) fn first<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    fields.iter().find(|(key, _)| is_named(key, name)).map(|(_, value)| &value[..])
}

fn is_named(key: &[u8], name: &str) -> bool {
    key.eq_ignore_ascii_case(name.as_bytes())
}
