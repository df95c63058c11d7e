//! A request and its response as browsers and APIs send them: 20 pairs in the request, 8 in the response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use portcullis_core::downstream::Patience;
use portcullis_core::exchange::{Facts, Place, Times};
use portcullis_core::headers::{Headers, Scheme};
use portcullis_core::retry::Policy;

/// With `:path`, `:method` and `:scheme` these are the 20 pairs of a request.
const REQUEST: [(&str, &str); 17] = [
    ("host", "api.acme.test"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json, text/plain, */*"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://shop.acme.test/basket"),
    ("origin", "https://shop.acme.test"),
    ("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.k2VTQy9pB4c"),
    ("cookie", "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-site"),
    ("cache-control", "no-cache"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "https"),
    ("x-tenant", "acme"),
    ("x-request-id", "0b9a8c1e-5d1f-4b7e-9f63-1c2d3e4f5a6b"),
];

/// With `:status` these are the 8 pairs of a response.
const RESPONSE: [(&str, &str); 7] = [
    ("content-type", "application/json"),
    ("content-length", "13"),
    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("server", "acme"),
    ("cache-control", "private, max-age=0"),
    ("etag", "\"33a64df5\""),
    ("vary", "accept-encoding"),
];

/// The response's whole body.
const BODY: &[u8] = b"{\"ok\":\"true\"}";

/// Everything one exchange is fed, made beforehand so that its making is not measured.
#[derive(Debug)]
pub struct Traffic {
    /// What is known from the start.
    pub facts: Facts,
    /// The request's head; there is no body.
    pub request: Headers,
    /// The response's head.
    pub response: Headers,
    /// The response's body.
    pub body: Bytes,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { facts: facts(), request: request(), response: response(), body: Bytes::from_static(BODY) }
    }
}

/// A request's head.
#[must_use]
pub fn request() -> Headers {
    let path = http::uri::PathAndQuery::from_static("/v1/orders/4711?expand=items");
    Headers::request(Method::GET, Scheme::Https, path, fields(&REQUEST))
}

/// A response's head.
#[must_use]
pub fn response() -> Headers {
    Headers::response(StatusCode::OK, fields(&RESPONSE))
}

/// The fields as an HTTP library parses them: every value is a part of one shared buffer.
fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let wire = Bytes::from(pairs.iter().map(|(_, value)| *value).collect::<String>());
    let mut at = 0;
    let field = |(name, value): &(&'static str, &str)| {
        let start = at;
        at += value.len();
        let value = HeaderValue::from_maybe_shared(wire.slice(start..at)).expect("all values above can be written");
        (HeaderName::from_static(name), value)
    };
    pairs.iter().map(field).collect()
}

fn facts() -> Facts {
    Facts {
        source: ([192, 0, 2, 7], 4000).into(),
        destination: ([192, 0, 2, 1], 443).into(),
        protocol: "HTTP/1.1",
        connection_id: 5,
        request_id: HeaderValue::from_static("0b9a8c1e-5d1f-4b7e-9f63-1c2d3e4f5a6b"),
        tls: None,
        place: Arc::new(Place {
            route: "orders".into(),
            pattern: "/v1/orders/*".into(),
            upstream: "orders".into(),
            tenant: "acme".into(),
            times: Times::with_response(Duration::from_secs(15)),
            retry: Policy::connect_only(),
        }),
        patience: Patience::DEFAULT,
        trace: None,
    }
}
