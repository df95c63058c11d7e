//! Bodies as authors write them: text, text in a content coding, or bytes.

use std::fmt;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A body. Whoever sends one in a coding says so in the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// `TEXT`.
    Plain(String),
    /// `{ gzip: TEXT }`, and so on: expected is a body that is this text when it is decoded.
    Coded(Coding, String),
    /// `{ base64: … }`.
    Bytes(Vec<u8>),
}

/// A content coding (RFC 9110 §8.4.1), as heads call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

const WRITTEN: &str = "a body is text, or one of `gzip: TEXT`, `br: TEXT`, `zstd: TEXT` and `base64: BYTES`";

/// The most that is decoded of what came: more than a case has a use for.
const MOST_BYTES: u64 = 16 << 20;

/// By hand, since serde's own words for a choice do not say what is wrong.
impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = match Value::deserialize(deserializer)? {
            Value::String(text) => return Ok(Self::Plain(text)),
            Value::Object(fields) => fields,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(D::Error::custom(WRITTEN)),
        };
        let mut fields = fields.into_iter();
        match (fields.next(), fields.next()) {
            (Some((name, Value::String(text))), None) => Self::read(&name, text).map_err(D::Error::custom),
            _ => Err(D::Error::custom(WRITTEN)),
        }
    }
}

impl Body {
    fn read(name: &str, text: String) -> Result<Self, String> {
        let coding = match name {
            "gzip" => Coding::Gzip,
            "br" => Coding::Brotli,
            "zstd" => Coding::Zstd,
            "base64" => {
                let bytes = STANDARD.decode(text.split_whitespace().collect::<String>());
                return bytes.map(Self::Bytes).map_err(|why| format!("`base64`: {why}"));
            }
            _ => return Err(WRITTEN.to_owned()),
        };
        Ok(Self::Coded(coding, text))
    }

    /// As it is sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Plain(text) => text.clone().into_bytes(),
            Self::Coded(coding, text) => coding.encoded(text.as_bytes()),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }

    /// What came, in the words of this one.
    pub(crate) fn like(&self, came: &[u8]) -> String {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Plain(_) => shown(came),
            Self::Coded(coding, _) => {
                coding.decoded(came).map_or_else(|| format!("(not in {coding}) {}", shown(came)), |plain| shown(&plain))
            }
            Self::Bytes(_) => STANDARD.encode(came),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) | Self::Coded(_, text) => f.write_str(text),
            Self::Bytes(bytes) => f.write_str(&STANDARD.encode(bytes)),
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        })
    }
}

impl Coding {
    fn encoded(self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing into memory does not fail.
        let _written = match self {
            Self::Gzip => GzEncoder::new(&mut out, Compression::default()).write_all(plain),
            Self::Brotli => brotli::CompressorWriter::new(&mut out, 4096, 5, 22).write_all(plain),
            Self::Zstd => {
                out = compress_to_vec(plain, CompressionLevel::Fastest);
                Ok(())
            }
        };
        out
    }

    /// Nothing where it is no body in this coding, or not a whole one.
    fn decoded(self, body: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(body).take(MOST_BYTES).read_to_end(&mut out),
            Self::Brotli => brotli::Decompressor::new(body, 4096).take(MOST_BYTES).read_to_end(&mut out),
            Self::Zstd => StreamingDecoder::new(body).ok()?.take(MOST_BYTES).read_to_end(&mut out),
        };
        read.is_ok().then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> Result<Body, String> {
        serde_json::from_str(json).map_err(|why| why.to_string())
    }

    #[test]
    fn a_body_is_sent_encoded_and_compared_decoded() {
        for name in ["gzip", "br", "zstd"] {
            let text = "text ".repeat(1000);
            let written = body(&format!(r#"{{"{name}":"{text}"}}"#)).unwrap();
            let sent = written.bytes();
            assert!(!sent.is_empty() && sent.len() < 200, "{name}: {} bytes", sent.len());
            assert_eq!(written.like(&sent), written.to_string());
            assert_eq!(written.like(b"plain"), format!("(not in {name}) plain"));
            assert!(written.like(&sent[..sent.len() - 5]).starts_with("(not in "), "{name}");
        }
        let bytes = body(r#"{"base64":"AP8B\n/g=="}"#).unwrap();
        assert_eq!(
            (bytes.bytes(), bytes.to_string(), bytes.like(&[0])),
            (vec![0, 255, 1, 254], "AP8B/g==".into(), "AA==".into())
        );
        let plain = body(r#""text""#).unwrap();
        assert_eq!((plain.bytes(), plain.like(b"other")), (b"text".to_vec(), "other".to_owned()));
    }

    #[test]
    fn what_is_no_body_says_what_one_is() {
        for json in [r#"{"deflate":"x"}"#, "{}", r#"{"gzip":1}"#, r#"{"gzip":"a","br":"b"}"#, "1", "null", "[]"] {
            assert!(body(json).unwrap_err().starts_with(WRITTEN), "{json}");
        }
        assert!(body(r#"{"base64":"!"}"#).unwrap_err().starts_with("`base64`: "));
    }
}
