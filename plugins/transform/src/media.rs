//! What a head says about its body: its format, its coding, its length; and what has to change there when the body does.

use plugin_bodies::Unread;
use portcullis_sdk::{Config, HeaderValue, Headers, HeadersMut};

use crate::coding::Coding;
use crate::obstacle::Obstacle;

/// What a body is, by its content type.
#[derive(Clone, Copy, Config, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// One JSON document: `application/json`, `application/…+json`.
    #[default]
    Json,
    /// JSON documents, one a line: `application/x-ndjson`, `application/ndjson`, `application/jsonl`.
    Ndjson,
    /// Server-sent events with JSON in their data: `text/event-stream`.
    Sse,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/xml`, `text/xml`, `application/…+xml`.
    Xml,
}

impl Format {
    fn of(content_type: &[u8]) -> Option<Self> {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        match essence.trim_ascii().to_ascii_lowercase().as_slice() {
            b"application/json" => Some(Self::Json),
            b"application/x-ndjson" | b"application/ndjson" | b"application/jsonl" => Some(Self::Ndjson),
            b"text/event-stream" => Some(Self::Sse),
            b"application/x-www-form-urlencoded" => Some(Self::Form),
            b"application/xml" | b"text/xml" => Some(Self::Xml),
            other if other.ends_with(b"+json") => Some(Self::Json),
            other if other.ends_with(b"+xml") => Some(Self::Xml),
            _ => None,
        }
    }

    /// The content type of what is written in it.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Xml => "application/xml",
        }
    }

    /// Whether it is records, which are changed one by one as they pass.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Ndjson | Self::Sse)
    }
}

/// What stands in a head about its body.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) format: Option<Format>,
    content_encoding: Vec<u8>,
    content_length: Option<Vec<u8>>,
    is_partial: bool,
}

impl Head {
    /// What a message's head says.
    pub(crate) fn of(headers: Headers<'_>) -> Self {
        let value = |name| headers.get(name).unwrap_or_default().into_bytes();
        Self {
            format: Format::of(&value("content-type")),
            content_encoding: value("content-encoding"),
            content_length: headers.get("content-length").map(HeaderValue::into_bytes),
            is_partial: headers.contains("content-range"),
        }
    }

    /// How to read a body of which so much may be held.
    pub(crate) fn coding(&self, max_bytes: usize) -> Result<Coding, Obstacle> {
        if self.is_partial {
            return Err(Obstacle::Body(Unread::Partial));
        }
        let length =
            self.content_length.as_ref().and_then(|length| std::str::from_utf8(length).ok()?.trim().parse().ok());
        if length.is_some_and(|length: usize| length > max_bytes) {
            return Err(Obstacle::Body(Unread::TooLarge));
        }
        Coding::of(&self.content_encoding).ok_or(Obstacle::Body(Unread::Encoded))
    }
}

/// The codings that a client takes, of those that are known here.
pub(crate) fn taken(request: Headers<'_>) -> Vec<Coding> {
    let accepted = request.get("accept-encoding").unwrap_or_default();
    let accepted = String::from_utf8_lossy(accepted.as_bytes());
    let takes = |coding: &Coding| coding.name().is_some_and(|name| accepts(&accepted, name));
    [Coding::Gzip, Coding::Zstd, Coding::Brotli].into_iter().filter(takes).collect()
}

/// What a request has to say so that its response can be read: it comes whole, and in no coding but those that the client takes and that are
/// known here.
pub(crate) fn ask_for_readable(headers: &mut HeadersMut<'_>, streams: Streams, taken: &[Coding]) {
    headers.remove("range");
    let offered: Vec<&str> = taken.iter().filter_map(|coding| coding.name()).collect();
    if streams == Streams::None && !offered.is_empty() {
        headers.set("accept-encoding", offered.join(", "));
    } else {
        headers.remove("accept-encoding");
    }
}

/// Whether responses may be streams, which are changed in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    None,
    Some,
}

/// Whether a client takes a coding (RFC 9110 §12.5.3).
fn accepts(accepted: &str, wanted: &str) -> bool {
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        // RFC 9110 §8.4.1.3: `x-gzip` is the same.
        let named = name.strip_prefix("x-").unwrap_or(name).eq_ignore_ascii_case(wanted);
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        named && weight.and_then(|weight| weight.parse::<f32>().ok()).is_none_or(|weight| weight > 0.0)
    })
}

/// What a document becomes.
#[derive(Clone, Copy, Config, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Output {
    /// JSON.
    Json,
    /// A form: of an object, whose fields are no objects.
    Form,
}

impl Output {
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Form => Format::Form,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_says_what_a_body_is() {
        for (kind, want) in [
            ("application/json", Some(Format::Json)),
            ("Application/JSON; charset=utf-8", Some(Format::Json)),
            ("application/problem+json", Some(Format::Json)),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("text/event-stream;charset=utf-8", Some(Format::Sse)),
            ("application/x-www-form-urlencoded", Some(Format::Form)),
            ("application/soap+xml", Some(Format::Xml)),
            ("application/json-seq", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(Format::of(kind.as_bytes()), want, "{kind}");
        }
    }

    #[test]
    fn the_head_says_whether_the_body_can_be_read() {
        for (encoding, length, is_partial, want) in [
            ("", None, false, Ok(Coding::Identity)),
            ("identity", Some("10"), false, Ok(Coding::Identity)),
            ("GZIP", None, false, Ok(Coding::Gzip)),
            ("zstd", None, false, Ok(Coding::Zstd)),
            ("br", None, false, Ok(Coding::Brotli)),
            ("compress", None, false, Err(Obstacle::Body(Unread::Encoded))),
            ("gzip, gzip", None, false, Err(Obstacle::Body(Unread::Encoded))),
            ("", Some("11"), false, Err(Obstacle::Body(Unread::TooLarge))),
            ("", Some("nonsense"), false, Ok(Coding::Identity)),
            ("", None, true, Err(Obstacle::Body(Unread::Partial))),
        ] {
            let content_length = length.map(Into::into);
            let head = Head { format: None, content_encoding: encoding.into(), content_length, is_partial };
            assert_eq!(head.coding(10), want, "{encoding} {length:?}");
        }
    }

    #[test]
    fn a_coding_is_asked_for_where_the_client_takes_it() {
        for (accepted, [gzip, zstd, br]) in [
            ("gzip", [true, false, false]),
            ("br, GZIP;q=0.5, zstd", [true, true, true]),
            ("x-gzip", [true, false, false]),
            ("gzip;q=0, zstd;q=1", [false, true, false]),
            ("gzip; q=0.000, br", [false, false, true]),
            ("*", [false; 3]),
            ("", [false; 3]),
        ] {
            let accepts = ["gzip", "zstd", "br"].map(|coding| accepts(accepted, coding));
            assert_eq!(accepts, [gzip, zstd, br], "{accepted}");
        }
    }
}
