//! gRPC-Web: the same frames over any HTTP, with the trailers as a last frame; `-text` is all of it in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::frames::framed;

/// The flag of the frame that has the trailers.
const TRAILERS: u8 = 0x80;

/// How a gRPC-Web client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Web {
    pub(crate) is_text: bool,
    /// `+proto`, or nothing.
    format: String,
}

impl Web {
    /// Of a request with this `content-type`.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let rest = essence.strip_prefix("application/grpc-web")?;
        let (is_text, format) = match rest.strip_prefix("-text") {
            Some(format) => (true, format),
            None => (false, rest),
        };
        (format.is_empty() || format.starts_with('+')).then(|| Self { is_text, format: format.to_owned() })
    }

    /// What its upstream is told.
    pub(crate) fn upstream_type(&self) -> String {
        format!("application/grpc{}", self.format)
    }

    /// What its client is told.
    pub(crate) fn client_type(&self) -> String {
        format!("application/grpc-web{}{}", if self.is_text { "-text" } else { "" }, self.format)
    }

    /// A request's body as gRPC has it; nothing when it is no base64. Base64 may be padded anywhere, as each piece of it may be
    /// encoded by itself.
    pub(crate) fn request(body: &[u8]) -> Option<Vec<u8>> {
        let body: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let mut plain = Vec::with_capacity(body.len());
        for four in body.chunks(4) {
            plain.extend(STANDARD.decode(four).ok()?);
        }
        Some(plain)
    }

    /// A piece of an answer as its client wants it.
    pub(crate) fn piece(&self, bytes: &[u8]) -> Vec<u8> {
        if self.is_text { STANDARD.encode(bytes).into_bytes() } else { bytes.to_vec() }
    }

    /// The last frame of an answer.
    pub(crate) fn trailers<'t>(&self, trailers: impl Iterator<Item = (&'t str, &'t [u8])>) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, value) in trailers {
            text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        self.piece(&framed(TRAILERS, &text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_say_how_a_client_speaks() {
        for (kind, want) in [
            ("application/grpc-web", Some(("application/grpc", "application/grpc-web"))),
            ("application/grpc-web+proto", Some(("application/grpc+proto", "application/grpc-web+proto"))),
            ("Application/GRPC-Web-Text; charset=x", Some(("application/grpc", "application/grpc-web-text"))),
            ("application/grpc-web-text+proto", Some(("application/grpc+proto", "application/grpc-web-text+proto"))),
            ("application/grpc-website", None),
            ("application/grpc", None),
        ] {
            let web = Web::of(kind).map(|web| (web.upstream_type(), web.client_type()));
            let want = want.map(|(upstream, client)| (upstream.to_owned(), client.to_owned()));
            assert_eq!(web, want, "{kind}");
        }
    }

    #[test]
    fn base64_may_be_padded_in_the_middle() {
        assert_eq!(Web::request(b"YQ==YmM=\nZGVm").as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(Web::request(b"YQ=").as_deref(), None);
        assert_eq!(Web::request(b"a*==").as_deref(), None);
    }
}
