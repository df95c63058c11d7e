//! The header map as the ABI sees it: pseudo-headers first, lower-case names, repeats kept.
//!
//! It wraps the map the HTTP library parsed into and writes from, so a message that nobody changes is never converted. A
//! request's `:authority` *is* its `host` field, shown under the other name; the remaining pseudo-headers live in the start line.
//!
//! Invariant: whatever is in here can be written to a wire. Names are tokens, values hold no control bytes, and the fields that
//! frame a message or describe a connection cannot be set by a guest.

mod writes;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

pub use self::writes::Refused;

/// Whether the client's connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As written in `:scheme`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The line a message starts with.
#[derive(Clone, Debug)]
pub enum StartLine {
    /// A request's.
    Request {
        /// `:method`.
        method: Method,
        /// `:scheme`.
        scheme: Scheme,
        /// `:path`, with the query. A guest may remove it, which leaves the request without a route.
        path: Option<PathAndQuery>,
    },
    /// A response's.
    Response {
        /// `:status`.
        status: StatusCode,
    },
    /// Trailers have none.
    Trailers,
}

/// A head, or a set of trailers.
#[derive(Clone, Debug)]
pub struct Headers {
    start: StartLine,
    fields: HeaderMap,
}

/// Whether a field describes a connection rather than the message (RFC 9110 §7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// Removes the headers that describe one connection rather than the message.
///
/// Also those named in `Connection` (RFC 9110 §7.6.1). Keeps `TE: trailers`, which gRPC upstreams require, and drops every other
/// `TE`. Runs before the first filter, so guests never see these headers.
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    // One pass over the few names there are, since most messages have none of these.
    if !fields.keys().any(|name| is_hop_by_hop(name) || *name == header::TE) {
        return;
    }
    let lists = fields.get_all(header::CONNECTION).iter();
    let named = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let named: Vec<_> = named.filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named {
        // A client must not use `Connection` to take away what the gateway and its filters rely on.
        if name != header::HOST && name != header::TE && name != header::CONTENT_LENGTH {
            fields.remove(name);
        }
    }
    let doomed: Vec<HeaderName> = fields.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    doomed.iter().for_each(|name| _ = fields.remove(name));
    if fields.get(header::TE).is_some_and(|te| te.as_bytes() != b"trailers") {
        fields.remove(header::TE);
    }
}

impl Headers {
    /// A request's head. `fields` carries the authority as `host`.
    #[must_use]
    pub fn request(method: Method, scheme: Scheme, path: PathAndQuery, fields: HeaderMap) -> Self {
        Self { start: StartLine::Request { method, scheme, path: Some(path) }, fields }
    }

    /// A response's head.
    #[must_use]
    pub fn response(status: StatusCode, fields: HeaderMap) -> Self {
        Self { start: StartLine::Response { status }, fields }
    }

    /// Trailers.
    #[must_use]
    pub fn trailers(fields: HeaderMap) -> Self {
        Self { start: StartLine::Trailers, fields }
    }

    pub(crate) fn new(start: StartLine, fields: HeaderMap) -> Self {
        Self { start, fields }
    }

    pub(crate) fn start(&self) -> &StartLine {
        &self.start
    }

    /// The start line and the fields, to be written.
    #[must_use]
    pub fn into_parts(self) -> (StartLine, HeaderMap) {
        (self.start, self.fields)
    }

    /// The fields; a request's authority is among them as `host`.
    #[must_use]
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// The fields, for the gateway itself: what it writes it need not check.
    pub fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    /// `:method`, of a request.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        match &self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } | StartLine::Trailers => None,
        }
    }

    /// `:scheme`, of a request.
    #[must_use]
    pub fn scheme(&self) -> Option<Scheme> {
        match self.start {
            StartLine::Request { scheme, .. } => Some(scheme),
            StartLine::Response { .. } | StartLine::Trailers => None,
        }
    }

    /// `:path` with the query, of a request that still has one.
    #[must_use]
    pub fn path(&self) -> Option<&PathAndQuery> {
        match &self.start {
            StartLine::Request { path, .. } => path.as_ref(),
            StartLine::Response { .. } | StartLine::Trailers => None,
        }
    }

    /// `:status`, of a response.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self.start {
            StartLine::Response { status } => Some(status),
            StartLine::Request { .. } | StartLine::Trailers => None,
        }
    }

    /// `:authority`, of a request.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.is_request().then(|| self.fields.get(header::HOST).map(HeaderValue::as_bytes)).flatten()
    }

    /// The declared body length, if there is one and it is a number.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether the message is gRPC.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.fields.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// The first value of `name`, which may be in any case.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        match name.first() {
            Some(b':') => self.pseudo().find(|(pseudo, _)| *pseudo == name).map(|(_, value)| value),
            // By its text: building a name would allocate for every one that is not a standard one.
            _ => self.fields.get(str::from_utf8(name).ok()?).map(HeaderValue::as_bytes),
        }
    }

    /// Every value of `name`, joined with commas, as properties show them.
    #[must_use]
    pub fn joined(&self, name: &[u8]) -> Option<Vec<u8>> {
        if name.first() == Some(&b':') {
            return self.get(name).map(<[u8]>::to_vec);
        }
        let mut values = self.fields.get_all(str::from_utf8(name).ok()?).iter().map(HeaderValue::as_bytes);
        let mut joined = values.next()?.to_vec();
        for value in values {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(joined)
    }

    fn pseudo(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all: [Option<(&[u8], &[u8])>; 4] = match &self.start {
            StartLine::Request { method, scheme, path } => [
                self.fields.get(header::HOST).map(|host| (&b":authority"[..], host.as_bytes())),
                path.as_ref().map(|path| (&b":path"[..], path.as_str().as_bytes())),
                Some((b":method", method.as_str().as_bytes())),
                Some((b":scheme", scheme.as_str().as_bytes())),
            ],
            StartLine::Response { status } => [Some((b":status", status.as_str().as_bytes())), None, None, None],
            StartLine::Trailers => [None; 4],
        };
        all.into_iter().flatten()
    }

    /// All pairs: pseudo-headers, then fields in order of arrival, repeats together.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let hide_host = self.is_request();
        self.pseudo().chain(
            self.fields
                .iter()
                .filter(move |(name, _)| !(hide_host && **name == header::HOST))
                .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
        )
    }

    /// How many pairs [`Self::iter`] yields.
    #[must_use]
    pub fn count(&self) -> usize {
        let start = match &self.start {
            // The authority is counted among the fields.
            StartLine::Request { path, .. } => 2 + usize::from(path.is_some()),
            StartLine::Response { .. } => 1,
            StartLine::Trailers => 0,
        };
        start + self.fields.len()
    }

    /// Bytes of all names and values together.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Headers {
        let mut fields = HeaderMap::new();
        fields.insert("accept", HeaderValue::from_static("a"));
        fields.insert("host", HeaderValue::from_static("acme.test"));
        fields.append("accept", HeaderValue::from_static("b"));
        Headers::request(Method::GET, Scheme::Http, PathAndQuery::from_static("/x?y=1"), fields)
    }

    fn shown(headers: &Headers) -> String {
        headers
            .iter()
            .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn pseudo_headers_come_first_and_the_authority_is_the_host() {
        let headers = request();
        assert_eq!(shown(&headers), ":authority=acme.test :path=/x?y=1 :method=GET :scheme=http accept=a accept=b");
        assert_eq!(headers.count(), headers.iter().count());
        for (name, want) in [
            (&b"HOST"[..], Some(&b"acme.test"[..])),
            (b":authority", Some(b"acme.test")),
            (b"Accept", Some(b"a")),
            (b":status", None),
            (b"no such", None),
        ] {
            assert_eq!(headers.get(name), want);
        }
        assert_eq!(headers.joined(b"accept").unwrap(), b"a,b");
    }

    #[test]
    fn a_guest_cannot_write_what_a_wire_would_misread() {
        for (name, value, want) in [
            (&b"x-a"[..], &b"1\r\nx-b: 2"[..], Refused::Value),
            (b"x-a", b"1\0", Refused::Value),
            (b"x a", b"1", Refused::Name),
            (b"", b"1", Refused::Name),
            (b"Transfer-Encoding", b"chunked", Refused::Framing),
            (b"connection", b"close", Refused::Framing),
            (b"content-length", b"+5", Refused::Value),
            (b"content-length", b"5, 5", Refused::Value),
            (b":path", b"/a b", Refused::Value),
            (b":path", b"a", Refused::Value),
            (b":path", b"/a#b", Refused::Value),
            (b":path", b"/\xc3\xa9", Refused::Value),
            (b":path", b"/\x7f", Refused::Value),
            (b":path", b"/a\r\nx: y", Refused::Value),
            (b":method", b"GET /", Refused::Value),
            (b":method", b"CONNECT", Refused::Value),
            (b":authority", b"a\r\nb", Refused::Value),
            (b":authority", b"u@a", Refused::Value),
            (b":authority", b"a/b", Refused::Value),
            (b"host", b"a, b", Refused::Value),
            (b"host", b"", Refused::Value),
            (b"te", b"gzip", Refused::Framing),
            (b"upgrade", b"h2c", Refused::Framing),
            (b":status", b"200", Refused::Name),
            (b":nonsense", b"1", Refused::Name),
        ] {
            let mut headers = request();
            let before = shown(&headers);
            assert_eq!(headers.replace(name, value, 99), Err(want), "{:?}", String::from_utf8_lossy(name));
            assert_eq!(headers.add(name, value, 99), Err(want));
            assert_eq!(shown(&headers), before);
        }
    }

    #[test]
    fn trailers_neither_frame_nor_route() {
        let mut trailers = Headers::trailers(HeaderMap::new());
        for (name, value) in [(&b"content-length"[..], &b"5"[..]), (b"host", b"a"), (b"transfer-encoding", b"chunked")]
        {
            assert_eq!(trailers.add(name, value, 9), Err(Refused::Framing));
        }
        assert_eq!(trailers.add(b":path", b"/", 9), Err(Refused::Name));
        trailers.add(b"grpc-status", b"0", 9).unwrap();
        assert_eq!(shown(&trailers), "grpc-status=0");
    }

    #[test]
    fn names_are_lower_cased_and_singletons_stay_single() {
        let mut headers = request();
        headers.add(b"X-New", b"Value", 99).unwrap();
        headers.add(b"content-length", b"1", 99).unwrap();
        headers.add(b"content-length", b"2", 99).unwrap();
        headers.replace(b":authority", b"other.test:8080", 99).unwrap();
        assert_eq!(
            shown(&headers),
            ":authority=other.test:8080 :path=/x?y=1 :method=GET :scheme=http accept=a accept=b x-new=Value content-length=2"
        );
        assert_eq!(headers.add(b"x-more", b"", 5), Err(Refused::Full));
    }

    #[test]
    fn an_interim_status_becomes_an_error_and_nonsense_is_refused() {
        let mut headers = Headers::response(StatusCode::OK, HeaderMap::new());
        for (value, want) in [(&b"404"[..], Ok(404)), (b"101", Ok(500)), (b"99", Err(())), (b"1000", Err(()))] {
            let done = headers.replace(b":status", value, 9);
            assert_eq!(done.map(|()| headers.status().unwrap().as_u16()).map_err(|_| ()), want);
        }
    }

    #[test]
    fn hop_by_hop_fields_go_and_te_trailers_stays() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Drop, host"),
            ("x-drop", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a"),
            ("x-keep", "1"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut fields);
        let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "te", "x-keep"]);
    }
}
