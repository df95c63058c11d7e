//! Local replies: responses made by the gateway or a filter, not by the upstream.
//!
//! Every failure a client can see is one [`Failure`] here, with its status and its stable code word. The same word stands in the
//! body, in the access log and as a metric label; nothing about the inside is ever said.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::headers::Headers;

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $status:literal $kind:ident $code:literal $title:literal,)*) => {
        /// Why the gateway itself ended an exchange.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        impl Failure {
            /// Every failure, for metrics and docs.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word for it.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The status a client gets, if it can still get one.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::from_u16($status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),)* }
            }

            fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// What a client may know of it.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

/// What a failure stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The request was refused as it came.
    Refusal,
    /// It is in place of the upstream's answer.
    Upstream,
    /// The gateway ended the exchange for a reason of its own, or a filter's, or the client's.
    Own,
}

failures! {
    /// No route matches.
    NoRoute = 404 Upstream "no_route" "No route matches this request",
    /// The request asks for a tunnel that its route does not allow.
    UpgradeRefused = 403 Upstream "upgrade_refused" "This route does not allow the connection to be upgraded",
    /// The upstream did not switch to the protocol it was asked for, or claimed to without having been asked.
    UpgradeFailed = 502 Upstream "upgrade_failed" "The upstream did not switch protocols as it was asked",
    /// The request cannot be forwarded as it is.
    BadRequest = 400 Refusal "bad_request" "The request is malformed",
    /// Where the request ends could be read in two ways.
    BadFraming = 400 Refusal "bad_framing" "The length of the request is not clear",
    /// It is not clear which host the request is for.
    BadHost = 400 Refusal "bad_host" "The host of the request is not clear",
    /// The path cannot be made normal, or has what this listener refuses in paths.
    BadPath = 400 Refusal "bad_path" "The path of the request is not acceptable",
    /// A field has a name that this listener refuses.
    BadField = 400 Refusal "bad_field" "A header field of the request is not acceptable",
    /// The target is too long.
    UriTooLong = 414 Refusal "uri_too_long" "The address of the request is too long",
    /// The head has too many bytes or fields.
    HeadTooLarge = 431 Refusal "head_too_large" "The header of the request is too large",
    /// Something HTTP has, but not this gateway.
    NotImplemented = 501 Refusal "not_implemented" "This kind of request is not served here",
    /// A version of HTTP that is not spoken here.
    VersionNotSupported = 505 Refusal "version_not_supported" "This version of HTTP is not served here",
    /// The request is for a host that its connection is not for.
    Misdirected = 421 Own "misdirected_request" "This connection is not for the host that was asked for",
    /// The client did not send the request it had begun.
    ClientSlow = 408 Own "client_slow" "The request did not come in in time",
    /// A filter paused the request and its body outgrew the buffer.
    RequestTooLarge = 413 Own "request_too_large" "The request body is too large to be checked",
    /// A filter paused the response and its body outgrew the buffer.
    ResponseTooLarge = 502 Own "response_too_large" "The response body is too large to be checked",
    /// A filter trapped, ran out of its budget or could not be started.
    FilterFailed = 503 Own "filter_failed" "A policy on this route failed",
    /// There was no room for the VM that a filter was to have for this exchange alone.
    FilterBusy = 503 Own "filter_busy" "This service is busy",
    /// A filter paused the exchange and never resumed it.
    FilterTimeout = 504 Own "filter_timeout" "A policy on this route did not answer in time",
    /// A filter asked for the stream to be closed.
    FilterClosed = 502 Own "filter_closed" "A policy on this route closed the stream",
    /// No endpoint could be connected to.
    UpstreamConnect = 503 Upstream "upstream_connect" "The upstream could not be reached",
    /// No connection to an endpoint was made in time.
    UpstreamConnectTimeout = 504 Upstream "upstream_connect_timeout" "The upstream could not be reached in time",
    /// The upstream did not answer in time.
    UpstreamTimeout = 504 Upstream "upstream_timeout" "The upstream did not answer in time",
    /// No try took less than the time for one, and there is no further one.
    UpstreamTryTimeout = 504 Upstream "upstream_try_timeout" "The upstream did not answer in time",
    /// The upstream broke its response off.
    UpstreamReset = 502 Upstream "upstream_reset" "The upstream failed to answer",
    /// The upstream answered what is not HTTP, or can be read in two ways.
    UpstreamProtocol = 502 Upstream "upstream_protocol" "The upstream's answer is malformed",
    /// The upstream has as many requests as it may have.
    UpstreamOverloaded = 503 Upstream "upstream_overloaded" "The upstream is busy",
    /// The upstream did not prove who it is, or would not have us.
    UpstreamTls = 502 Upstream "upstream_tls" "A secure connection to the upstream could not be made",
    /// The tenant has had as many requests as it may have in this time.
    TenantRequests = 429 Own "tenant_requests" "Too many requests for this service",
    /// The tenant has as many requests under way as it may have.
    TenantInFlight = 503 Own "tenant_in_flight" "This service is busy",
    /// The tenant's filters have used as much processor time as they may.
    TenantCpu = 503 Own "tenant_cpu" "This service is busy",
    /// The tenant's own configuration cannot be used, and none of it ever could since the gateway started.
    TenantUnavailable = 503 Upstream "tenant_unavailable" "This service is not available",
    /// A filter changed a body after its length had been sent.
    LengthMismatch = 502 Own "length_mismatch" "A policy on this route broke the message",
    /// Nothing moved for too long.
    Idle = 504 Own "idle_timeout" "Nothing was sent or received for too long",
    /// The exchange took longer than its route allows.
    RequestTimeout = 504 Own "request_timeout" "The request took too long",
    /// The client went away.
    ClientGone = 499 Own "client_gone" "The client went away",
}

impl Failure {
    /// Whether the request was refused as it came: whoever sent it may mean something else by what follows it.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        self.kind() == Kind::Refusal
    }

    /// Whether it stands for the upstream's answer, so that every filter sees it as one.
    #[must_use]
    pub fn is_upstream(self) -> bool {
        self.kind() == Kind::Upstream
    }

    /// Whether the same request may well be let in a second later.
    fn passes_soon(self) -> bool {
        matches!(self, Self::TenantRequests | Self::TenantInFlight | Self::TenantCpu | Self::FilterBusy)
    }
}

/// A response made here.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// Its status.
    pub status: StatusCode,
    /// What `response.code_details`, the access log and metrics say of it.
    pub details: Details,
    /// Fields beyond those every reply has.
    pub fields: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The gRPC status, when the guest gave one.
    pub grpc_status: Option<u32>,
}

/// Whose reply it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Details {
    /// The gateway's.
    Gateway(Failure),
    /// A filter's, in its words, with spaces made underscores as Envoy does.
    Filter(Box<str>),
}

impl Details {
    /// The words themselves.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Gateway(failure) => failure.code(),
            Self::Filter(words) => words,
        }
    }
}

/// What must be known of a request to reply to it.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// It was HEAD.
    pub head: bool,
    /// It was gRPC.
    pub grpc: bool,
    /// It would rather have plain text than JSON.
    pub text: bool,
}

impl Asker {
    /// Reads it off a request's head.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        let accept = headers.fields().get(header::ACCEPT).map(HeaderValue::as_bytes);
        Self {
            head: headers.method() == Some(&Method::HEAD),
            grpc: headers.is_grpc(),
            text: accept.is_some_and(|accept| accept.starts_with(b"text/plain")),
        }
    }
}

impl LocalReply {
    /// The gateway's reply for a failure: a problem document (RFC 9457), or text where that is asked for.
    #[must_use]
    pub fn failure(failure: Failure, asker: &Asker, request_id: &str) -> Self {
        let (kind, body) = if asker.grpc || asker.text {
            ("text/plain", failure.title().to_owned())
        } else {
            let (status, code, title) = (failure.status().as_u16(), failure.code(), failure.title());
            let id: String = request_id.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
            let body = format!(
                "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"code\":\"{code}\",\"request_id\":\"{id}\"}}\n"
            );
            ("application/problem+json", body)
        };
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if failure.passes_soon() {
            fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        let details = Details::Gateway(failure);
        Self { status: failure.status(), details, fields, body: body.into(), grpc_status: None }
    }

    /// The head and body to send, composed as Envoy does it (ABI reference §7.4).
    ///
    /// Where Envoy would break the client, this does not: a status below 200 becomes 500, and 204 and 304 carry no body.
    #[must_use]
    pub fn compose(self, asker: &Asker) -> (Headers, Bytes) {
        if asker.grpc {
            return (self.compose_grpc(), Bytes::new());
        }
        let Self { status, mut fields, mut body, .. } = self;
        let status = if status.as_u16() < 200 { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
            body.clear();
            fields.remove(header::CONTENT_LENGTH);
        } else {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if !body.is_empty() && !fields.contains_key(header::CONTENT_TYPE) {
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if asker.head {
            body.clear();
        }
        (Headers::response(status, fields), body)
    }

    fn compose_grpc(self) -> Headers {
        let Self { status, mut fields, body, grpc_status, .. } = self;
        let grpc_status = grpc_status.filter(|status| *status <= 16).unwrap_or_else(|| grpc_status_of(status));
        fields.remove(header::CONTENT_LENGTH);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(grpc_status));
        if !body.is_empty() {
            // HeaderValue cannot hold every byte a body can; percent-encoding is gRPC's own rule for this field.
            let message = percent_encode(&body);
            if let Ok(message) = HeaderValue::from_str(&message) {
                fields.insert(HeaderName::from_static("grpc-message"), message);
            }
        }
        Headers::response(StatusCode::OK, fields)
    }
}

/// The gRPC status for an HTTP status, from gRPC's own table.
fn grpc_status_of(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn percent_encode(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &'static str) -> LocalReply {
        LocalReply {
            status: StatusCode::from_u16(status).unwrap(),
            details: Details::Filter("x".into()),
            fields: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            grpc_status: None,
        }
    }

    fn shown(reply: LocalReply, asker: &Asker) -> String {
        let (headers, body) = reply.compose(asker);
        let mut pairs: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
            .collect();
        pairs.push(format!("[{}]", String::from_utf8_lossy(&body)));
        pairs.join(" ")
    }

    #[test]
    fn replies_are_composed_as_the_reference_says() {
        let plain = Asker::default();
        let head = Asker { head: true, ..Asker::default() };
        let grpc = Asker { grpc: true, ..Asker::default() };
        for (reply, asker, want) in [
            (reply(200, ""), &plain, ":status=200 content-length=0 []"),
            (reply(403, "no"), &plain, ":status=403 content-length=2 content-type=text/plain [no]"),
            (reply(204, "no"), &plain, ":status=204 []"),
            (reply(304, "no"), &plain, ":status=304 []"),
            (reply(101, ""), &plain, ":status=500 content-length=0 []"),
            (reply(200, "ok"), &head, ":status=200 content-length=2 content-type=text/plain []"),
            (
                reply(401, "who é"),
                &grpc,
                ":status=200 content-type=application/grpc grpc-status=16 grpc-message=who %C3%A9 []",
            ),
        ] {
            assert_eq!(shown(reply, asker), want);
        }
    }

    #[test]
    fn a_failure_is_a_problem_document_with_its_code() {
        let reply = LocalReply::failure(Failure::NoRoute, &Asker::default(), "id-1\"");
        assert_eq!(
            shown(reply, &Asker::default()),
            ":status=404 content-type=application/problem+json content-length=114 \
             [{\"type\":\"about:blank\",\"title\":\"No route matches this request\",\"status\":404,\"code\":\"no_route\",\"request_id\":\"id-1\"}\n]"
        );
    }
}
