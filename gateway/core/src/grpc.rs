//! gRPC that guests speak: calls with one message each way, and streams (ABI reference §9.3).
//!
//! A guest's hostcalls are checked against what it has under way, and become [`Wish`]es for the server; what comes of them is
//! [`News`], which becomes callbacks of the root that asked. Framing is the server's, so guests see bare messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use portcullis_abi::Status;
use portcullis_abi::protobuf::{Fields, Value};

use crate::context::{ContextId, ContextRef, UpstreamId};
use crate::event::End;
use crate::headers::{Headers, Scheme};
use crate::tenant::Calling;

/// What the server is to do.
#[derive(Debug)]
pub enum Wish {
    /// Begin a call or a stream.
    Begin(Begin),
    /// Send a message on a stream.
    Send(Name, Bytes, End),
    /// Send nothing more on a stream.
    Close(Name),
    /// Break a call or a stream off; nobody wants to hear of it any more.
    Cancel(Name),
    /// The same for all of a VM's life.
    Abandon(u32),
}

/// What a call or a stream is called among all of a worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The life of the VM whose it is.
    pub life: u32,
    /// The guest's name for it.
    pub token: u32,
}

/// A call or a stream that is to begin.
#[derive(Debug)]
pub struct Begin {
    /// Who asked, and who hears of it.
    pub root: ContextRef,
    /// The guest's name for it.
    pub token: u32,
    /// Where to.
    pub upstream: UpstreamId,
    /// The request's head.
    pub headers: Headers,
    /// What is sent.
    pub sends: Sends,
}

/// What is sent.
#[derive(Debug)]
pub enum Sends {
    /// One message; the answer must be there within this time.
    One(Bytes, Duration),
    /// What the guest sends later. The counter says how many bytes of it are waiting; whoever sends them takes them off.
    Many(Arc<AtomicUsize>),
}

/// What came of a call or a stream.
#[derive(Debug)]
pub enum News {
    /// A stream's answer has begun.
    Began(Headers),
    /// A message; of a call, the whole answer.
    Message(Bytes),
    /// What came behind the last message of a stream.
    Trailers(Headers),
    /// It is over.
    Ended(GrpcStatus),
}

/// How a call or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// gRPC's number.
    pub code: u32,
    /// In words.
    pub message: Bytes,
}

impl GrpcStatus {
    /// All went well.
    pub const OK: u32 = 0;
    /// Nobody said.
    pub const UNKNOWN: u32 = 2;
    /// Larger than allowed.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// One side does not keep to the protocol.
    pub const INTERNAL: u32 = 13;
    /// The service cannot be reached.
    pub const UNAVAILABLE: u32 = 14;

    /// This number with these words.
    #[must_use]
    pub fn new(code: u32, message: &'static str) -> Self {
        Self { code, message: Bytes::from_static(message.as_bytes()) }
    }

    /// The one that stands in a response's trailers, or in a head without a body; `Unknown` without one.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Self {
        let said = fields.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
        let message = fields.get("grpc-message").map(|message| percent_decoded(message.as_bytes()));
        Self { code: said.unwrap_or(Self::UNKNOWN), message: message.unwrap_or_default() }
    }

    /// What a response that is not gRPC's amounts to.
    #[must_use]
    pub fn of_http(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => Self::INTERNAL,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        };
        Self { code, message: Bytes::new() }
    }
}

fn percent_decoded(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *byte == b'%').and_then(|digits| str::from_utf8(digits).ok());
        match digits.filter(|digits| !digits.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out.into()
}

/// What a callback is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// `proxy_on_grpc_receive_initial_metadata`, with the number of entries.
    Began(u32),
    /// `proxy_on_grpc_receive`, with the number of bytes.
    Message(u32),
    /// `proxy_on_grpc_receive_trailing_metadata`, with the number of entries.
    Trailers(u32),
    /// `proxy_on_grpc_close`, with the status.
    Ended(u32),
}

/// A guest's calls and streams, and what it is hearing of one.
#[derive(Debug)]
pub(crate) struct Underway {
    all: HashMap<u32, One>,
    next_call: u32,
    next_stream: u32,
    pub(crate) hearing: Option<News>,
}

#[derive(Debug)]
struct One {
    root: ContextId,
    kind: Kind,
    /// What counts it as under way, on its tenant's account.
    _calling: Option<Calling>,
}

#[derive(Debug)]
enum Kind {
    Call,
    /// With how many bytes wait to be sent.
    Stream(Arc<AtomicUsize>),
    /// The guest has said that it sends nothing more.
    HalfClosed,
}

impl Default for Underway {
    fn default() -> Self {
        Self { all: HashMap::new(), next_call: 5, next_stream: 6, hearing: None }
    }
}

impl Underway {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// For a copy of the guest: no name that this one has given is given again.
    pub(crate) fn copy(&self) -> Self {
        Self { all: HashMap::new(), next_call: self.next_call, next_stream: self.next_stream, hearing: None }
    }

    /// A new name: 5, 9, 13… for calls, 6, 10, 14… for streams, as on Envoy.
    fn begin(&mut self, root: ContextId, kind: Kind, calling: Option<Calling>) -> u32 {
        let next = if matches!(kind, Kind::Call) { &mut self.next_call } else { &mut self.next_stream };
        let token = *next;
        *next = next.checked_add(4).unwrap_or(token % 4 + 4);
        self.all.insert(token, One { root, kind, _calling: calling });
        token
    }

    pub(crate) fn begin_call(&mut self, root: ContextId, calling: Option<Calling>) -> u32 {
        self.begin(root, Kind::Call, calling)
    }

    pub(crate) fn begin_stream(&mut self, root: ContextId, calling: Option<Calling>) -> (u32, Arc<AtomicUsize>) {
        let waiting = Arc::<AtomicUsize>::default();
        (self.begin(root, Kind::Stream(waiting.clone()), calling), waiting)
    }

    /// What this root calls `token`. Of an HTTP callout's token every gRPC hostcall says that it is a bad argument.
    fn find(&mut self, root: ContextId, token: u32) -> Result<&mut Kind, Status> {
        if token.is_multiple_of(4) {
            return Err(Status::BadArgument);
        }
        let one = self.all.get_mut(&token).filter(|one| one.root == root).ok_or(Status::NotFound)?;
        Ok(&mut one.kind)
    }

    /// Checks that a message may be sent, and counts it. At most `limit` bytes wait at a time.
    pub(crate) fn send(
        &mut self,
        root: ContextId,
        token: u32,
        len: usize,
        end: End,
        limit: usize,
    ) -> Result<(), Status> {
        let kind = self.find(root, token)?;
        let Kind::Stream(waiting) = kind else { return Err(Status::BadArgument) };
        // A message costs something even when it is empty.
        let len = len + FRAME_BYTES;
        if waiting.load(Ordering::Relaxed) + len > limit {
            return Err(Status::BadArgument);
        }
        waiting.fetch_add(len, Ordering::Relaxed);
        if end.is_end() {
            *kind = Kind::HalfClosed;
        }
        Ok(())
    }

    /// The guest sends nothing more. True when it was a call, which this ends.
    pub(crate) fn close(&mut self, root: ContextId, token: u32) -> Result<bool, Status> {
        let kind = self.find(root, token)?;
        if matches!(kind, Kind::Call) {
            self.all.remove(&token);
            return Ok(true);
        }
        *kind = Kind::HalfClosed;
        Ok(false)
    }

    pub(crate) fn cancel(&mut self, root: ContextId, token: u32) -> Result<(), Status> {
        self.find(root, token)?;
        self.all.remove(&token);
        Ok(())
    }

    /// Takes news in for the callback that it is to be told by; none where nobody waits for it any more.
    pub(crate) fn hear(&mut self, token: u32, news: News) -> Option<Heard> {
        let one = self.all.get(&token)?;
        let is_last = matches!(news, News::Ended(_)) || matches!(one.kind, Kind::Call);
        if is_last {
            self.all.remove(&token);
        }
        let count = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let heard = match &news {
            News::Began(headers) => Heard::Began(count(headers.count())),
            News::Message(message) => Heard::Message(count(message.len())),
            News::Trailers(headers) => Heard::Trailers(count(headers.count())),
            News::Ended(status) => Heard::Ended(status.code),
        };
        self.hearing = Some(news);
        Some(heard)
    }
}

/// What a message costs beyond its bytes: the frame's head.
pub const FRAME_BYTES: usize = 5;

/// Whom a guest wants to speak to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) upstream: &'a str,
    authority: &'a [u8],
}

/// Reads a target: an upstream's name or, where there is no upstream of that name, Envoy's `GrpcService` message with one in it.
/// A name that happens to be a message too is what Envoy goes wrong on.
pub(crate) fn target(written: &[u8], is_upstream: impl Fn(&str) -> bool) -> Result<Target<'_>, Status> {
    if let Ok(upstream) = str::from_utf8(written)
        && is_upstream(upstream)
    {
        return Ok(Target { upstream, authority: upstream.as_bytes() });
    }
    let envoy_grpc = field(written, 1).ok_or(Status::ParseFailure)?;
    let upstream = field(envoy_grpc, 1).and_then(|name| str::from_utf8(name).ok()).ok_or(Status::ParseFailure)?;
    if !is_upstream(upstream) {
        return Err(Status::ParseFailure);
    }
    let authority = field(envoy_grpc, 2).filter(|authority| !authority.is_empty());
    Ok(Target { upstream, authority: authority.unwrap_or(upstream.as_bytes()) })
}

/// The last of the fields with this number, if the message is one and has it.
fn field(message: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut found = None;
    for field in Fields::of(message) {
        if let (number, Value::Bytes(bytes)) = field.ok()?
            && number == wanted
        {
            found = Some(bytes);
        }
    }
    found
}

/// The head of a request for a method. Metadata that a head cannot carry is left out.
pub(crate) fn head<'p>(
    target: &Target<'_>,
    (service, method): (&[u8], &[u8]),
    metadata: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    timeout: Option<Duration>,
    max_fields: usize,
) -> Result<Headers, Status> {
    let path = [b"/", service, b"/", method].concat();
    let path = PathAndQuery::try_from(path.as_slice()).map_err(|_| Status::InternalFailure)?;
    let host = HeaderValue::from_bytes(target.authority).map_err(|_| Status::ParseFailure)?;
    let mut kept = Headers::trailers(HeaderMap::new());
    kept.set_all(metadata, max_fields);
    let mut fields = kept.into_parts().1;
    fields.insert(header::HOST, host);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(header::TE, HeaderValue::from_static("trailers"));
    fields.remove(header::CONTENT_LENGTH);
    if let Some(timeout) = timeout
        && let Ok(value) = HeaderValue::try_from(format!("{}m", timeout.as_millis()))
    {
        fields.insert("grpc-timeout", value);
    }
    Ok(Headers::request(Method::POST, Scheme::Http, path, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_first_and_a_message_only_where_there_is_no_such_name() {
        let known = |name: &str| name == "auth" || name == "\n\u{3}abc";
        let of = |written| target(written, known);
        assert_eq!(of(b"auth"), Ok(Target { upstream: "auth", authority: b"auth" }));
        assert_eq!(of(b"\n\x06\n\x04auth"), Ok(Target { upstream: "auth", authority: b"auth" }));
        assert_eq!(of(b"\n\x0b\n\x04auth\x12\x03a.b"), Ok(Target { upstream: "auth", authority: b"a.b" }));
        assert_eq!(of(b"\n\x03abc").map(|target| target.upstream), Ok("\n\u{3}abc"));
        for written in [&b"other"[..], b"", b"\xff", b"\n\x07\n\x05other", b"\x12\x06\n\x04auth", b"\n\x09\n\x04auth"] {
            assert_eq!(of(written), Err(Status::ParseFailure), "{written:?}");
        }
    }

    #[test]
    fn a_head_is_grpcs_whatever_the_metadata_says() {
        let target = Target { upstream: "auth", authority: b"auth.test" };
        let metadata: [(&[u8], &[u8]); 7] = [
            (b"x-a", b"1"),
            (b":path", b"/other"),
            (b"te", b"gzip"),
            (b"host", b"other"),
            (b"content-length", b"9"),
            (b"content-type", b"text/plain"),
            (b"transfer-encoding", b"chunked"),
        ];
        let wait = Some(Duration::from_millis(1500));
        let headers = head(&target, (b"a.Service", b"Do"), metadata.into_iter(), wait, 100).unwrap();
        let shown: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
            .collect();
        assert!(shown.contains(&":path=/a.Service/Do".to_owned()), "{shown:?}");
        for field in
            [":authority=auth.test", "x-a=1", "content-type=application/grpc", "te=trailers", "grpc-timeout=1500m"]
        {
            assert!(shown.contains(&field.to_owned()), "{field}: {shown:?}");
        }
        assert_eq!(shown.len(), 8, "{shown:?}");
        assert_eq!(head(&target, (b"a b", b"c\n"), [].into_iter(), None, 9).err(), Some(Status::InternalFailure));
    }

    #[test]
    fn a_status_is_read_where_it_stands() {
        let mut fields = HeaderMap::new();
        assert_eq!(GrpcStatus::of(&fields), GrpcStatus::new(2, ""));
        fields.insert("grpc-status", HeaderValue::from_static("9"));
        fields.insert("grpc-message", HeaderValue::from_static("no: %C3%A9 100%"));
        assert_eq!(GrpcStatus::of(&fields), GrpcStatus::new(9, "no: é 100%"));
        fields.insert("grpc-status", HeaderValue::from_static("-1"));
        assert_eq!(GrpcStatus::of(&fields).code, 2);
        let codes = [400, 401, 403, 404, 429, 503, 500, 200];
        assert_eq!(
            codes.map(|code| GrpcStatus::of_http(StatusCode::from_u16(code).unwrap()).code),
            [13, 16, 7, 12, 14, 14, 2, 2]
        );
    }

    #[test]
    fn only_what_is_under_way_and_ones_own_can_be_used() {
        let (root, other) = (ContextId(1), ContextId(2));
        let mut underway = Underway::default();
        let call = underway.begin_call(root, None);
        let (stream, waiting) = underway.begin_stream(root, None);
        assert_eq!((call, underway.begin_call(root, None), stream, underway.begin_stream(root, None).0), (5, 9, 6, 10));
        let mut send = |root, token, len, end| underway.send(root, token, len, end, 100);
        assert_eq!(send(root, 4, 1, End::No), Err(Status::BadArgument), "an HTTP callout's");
        assert_eq!(send(root, call, 1, End::No), Err(Status::BadArgument), "a call's");
        assert_eq!(send(root, 14, 1, End::No), Err(Status::NotFound));
        assert_eq!(send(other, stream, 1, End::No), Err(Status::NotFound), "another root's");
        assert_eq!(send(root, stream, 90, End::No), Ok(()));
        assert_eq!(send(root, stream, 90, End::No), Err(Status::BadArgument), "too much waits");
        waiting.store(0, Ordering::Relaxed);
        assert_eq!(send(root, stream, 90, End::Yes), Ok(()));
        assert_eq!(send(root, stream, 1, End::No), Err(Status::BadArgument), "it was the last");
        assert_eq!((underway.close(root, call), underway.close(root, stream)), (Ok(true), Ok(false)));
        assert_eq!((underway.cancel(root, call), underway.cancel(root, 8)), {
            (Err(Status::NotFound), Err(Status::BadArgument))
        });
        assert_eq!(underway.hear(call, News::Message(Bytes::new())), None, "nobody waits for it");
        assert_eq!(underway.hear(9, News::Message("abc".into())), Some(Heard::Message(3)));
        assert_eq!(underway.hear(9, News::Message("abc".into())), None, "a call has one answer");
        assert_eq!(underway.hear(stream, News::Message("abc".into())), Some(Heard::Message(3)));
        assert_eq!(underway.hear(stream, News::Ended(GrpcStatus::new(7, "no"))), Some(Heard::Ended(7)));
        assert_eq!(underway.hear(stream, News::Ended(GrpcStatus::new(0, ""))), None);
        assert_eq!(underway.cancel(root, 10), Ok(()));
        assert_eq!(underway.len(), 0);
    }
}
