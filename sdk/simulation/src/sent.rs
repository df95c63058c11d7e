//! Messages as a test writes them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use portcullis_core::headers::{Headers, Scheme};

/// A request to be sent.
///
/// ```
/// use portcullis_simulation::Request;
/// let request = Request::post("/orders").header("content-type", "application/json").body("{}");
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) authority: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    pub(crate) client: SocketAddr,
    pub(crate) gone_after: Option<Duration>,
}

impl Request {
    /// A request with this method and target.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::new("DELETE", "/orders/1");
    /// ```
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            authority: "gateway.test".to_owned(),
            headers: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
            client: SocketAddr::from(([192, 0, 2, 7], 40_000)),
            gone_after: None,
        }
    }

    /// A GET of this target.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::get("/orders?page=2");
    /// ```
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST to this target.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::post("/orders").body("{}");
    /// ```
    #[must_use]
    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// With one more header.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::get("/").header("accept", "application/json").header("accept", "text/plain");
    /// ```
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// To this host.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::get("/").host("acme.example.com");
    /// ```
    #[must_use]
    pub fn host(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.authority);
        self
    }

    /// With this body, in one piece, and its length in the head.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::post("/").body("hello");
    /// ```
    #[must_use]
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len().to_string();
        self.header("content-length", length).chunks([body])
    }

    /// With a body in these pieces, whose length the head does not say.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::post("/").chunks(["hel", "lo"]);
    /// ```
    #[must_use]
    pub fn chunks<C: AsRef<[u8]>>(mut self, chunks: impl IntoIterator<Item = C>) -> Self {
        self.chunks.extend(chunks.into_iter().map(|chunk| Bytes::copy_from_slice(chunk.as_ref())));
        self
    }

    /// With one more trailer.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::post("/").body("hello").trailer("x-checksum", "5d41");
    /// ```
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// From this client.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::get("/").from("[2001:db8::1]:4711".parse().unwrap());
    /// ```
    #[must_use]
    pub fn from(mut self, client: SocketAddr) -> Self {
        self.client = client;
        self
    }

    /// From a client that hangs up after so long.
    ///
    /// ```
    /// # use portcullis_simulation::Request;
    /// let request = Request::get("/slow").gone_after(std::time::Duration::from_millis(50));
    /// ```
    #[must_use]
    pub fn gone_after(mut self, time: Duration) -> Self {
        self.gone_after = Some(time);
        self
    }

    pub(crate) fn head(&self) -> Headers {
        let mut fields = fields(&self.headers);
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            fields.insert(http::header::HOST, host);
        }
        if !fields.contains_key("x-request-id") {
            fields.insert("x-request-id", HeaderValue::from_static("test-request"));
        }
        let method = Method::from_bytes(self.method.as_bytes()).unwrap_or(Method::GET);
        let target = self.target.parse().unwrap_or_else(|_| http::uri::PathAndQuery::from_static("/"));
        Headers::request(method, Scheme::Http, target, fields)
    }
}

/// What an upstream answers.
///
/// ```
/// use portcullis_simulation::Reply;
/// let late = Reply::ok("slow").after(std::time::Duration::from_secs(3));
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    pub(crate) delay: Duration,
    pub(crate) breaks_off: bool,
}

impl Reply {
    /// An answer without a body.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::status(304).header("etag", "\"7\"");
    /// ```
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
            delay: Duration::ZERO,
            breaks_off: false,
        }
    }

    /// 200 with this body.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::ok("hello");
    /// ```
    #[must_use]
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200).body(body)
    }

    /// 200 with this document of JSON.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::json(r#"{"up":true}"#);
    /// ```
    #[must_use]
    pub fn json(body: impl AsRef<[u8]>) -> Self {
        Self::ok(body).header("content-type", "application/json")
    }

    /// With one more header.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::ok("hello").header("cache-control", "max-age=60");
    /// ```
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With this body, in one piece, and its length in the head.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::status(404).body("no such order");
    /// ```
    #[must_use]
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len().to_string();
        self.header("content-length", length).chunks([body])
    }

    /// With a body in these pieces.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::status(200).chunks(["data: 1\n\n", "data: 2\n\n"]);
    /// ```
    #[must_use]
    pub fn chunks<C: AsRef<[u8]>>(mut self, chunks: impl IntoIterator<Item = C>) -> Self {
        self.chunks.extend(chunks.into_iter().map(|chunk| Bytes::copy_from_slice(chunk.as_ref())));
        self
    }

    /// With one more trailer.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::ok("hello").trailer("x-checksum", "5d41");
    /// ```
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// After so long.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::ok("late").after(std::time::Duration::from_millis(200));
    /// ```
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The answer of a gRPC service: this message.
    ///
    /// ```
    /// use portcullis_simulation::Reply;
    /// let granted = Reply::grpc([0x08, 0x01]);
    /// ```
    #[must_use]
    pub fn grpc(message: impl AsRef<[u8]>) -> Self {
        Self::status(200).header("content-type", "application/grpc").chunks([message])
    }

    /// The refusal of a gRPC service: this code, with these words. In answer to a piece of a stream, its end.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::grpc_status(7, "not you");
    /// ```
    #[must_use]
    pub fn grpc_status(code: u32, message: &str) -> Self {
        let reply = Self::status(200).header("content-type", "application/grpc");
        reply.trailer("grpc-status", code.to_string()).trailer("grpc-message", message)
    }

    /// An answer whose connection breaks after its head.
    ///
    /// ```
    /// # use portcullis_simulation::Reply;
    /// let reply = Reply::broken();
    /// ```
    #[must_use]
    pub fn broken() -> Self {
        Self { breaks_off: true, ..Self::status(200) }
    }

    pub(crate) fn head(&self) -> Headers {
        Headers::response(StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK), fields(&self.headers))
    }
}

pub(crate) fn fields(list: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in list {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    fields
}
