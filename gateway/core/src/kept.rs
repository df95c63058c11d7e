//! A head that was sent on, kept since a filter may look back at it.
//!
//! Nearly every filter could, as far as its exports tell, and few do. So the head is packed into memory that the next exchange uses
//! again, which costs a fraction of a copy of its map, and is unpacked only when it is asked for.

use std::cell::OnceCell;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::headers::{Headers, StartLine};

/// What a place may keep of its memory for the next head.
const SPARE: usize = 4096;

/// Room for one head.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    start: Option<StartLine>,
    /// For each field the lengths of its name and its value, then both.
    packed: Vec<u8>,
    unpacked: OnceCell<Headers>,
}

impl Kept {
    /// Keeps a head.
    pub(crate) fn keep(&mut self, headers: &Headers) {
        self.clear();
        self.start = Some(headers.start().clone());
        for (name, value) in headers.fields() {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            self.packed.extend_from_slice(&name.len().to_le_bytes());
            self.packed.extend_from_slice(&value.len().to_le_bytes());
            self.packed.extend_from_slice(name);
            self.packed.extend_from_slice(value);
        }
    }

    /// The head, if one is kept.
    pub(crate) fn head(&self) -> Option<&Headers> {
        let start = self.start.as_ref()?;
        Some(self.unpacked.get_or_init(|| Headers::new(start.clone(), unpack(&self.packed))))
    }

    /// Forgets it.
    pub(crate) fn clear(&mut self) {
        self.start = None;
        self.packed.clear();
        self.packed.shrink_to(SPARE);
        self.unpacked.take();
    }
}

fn unpack(mut packed: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    while let Some((name, value)) = take_field(&mut packed) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    fields
}

fn take_field<'a>(packed: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (name, rest) = packed.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from_le_bytes(*name))?;
    let (value, rest) = rest.split_at_checked(usize::from_le_bytes(*value))?;
    *packed = rest;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn a_kept_head_is_the_head_that_was_sent() {
        let mut fields = HeaderMap::new();
        fields.append("set-cookie", HeaderValue::from_static("a=1"));
        fields.append("x-empty", HeaderValue::from_static(""));
        fields.append("set-cookie", HeaderValue::from_static("b=2"));
        fields.append("x-bytes", HeaderValue::from_bytes(b"\xff\t\x80").unwrap());
        let headers = Headers::response(StatusCode::IM_A_TEAPOT, fields.clone());
        let mut kept = Kept::default();
        assert!(kept.head().is_none());
        kept.keep(&headers);
        let (start, unpacked) = kept.head().unwrap().clone().into_parts();
        assert!(matches!(start, StartLine::Response { status: StatusCode::IM_A_TEAPOT }));
        assert_eq!(unpacked, fields);
        kept.clear();
        assert!(kept.head().is_none());
        kept.keep(&Headers::response(StatusCode::OK, HeaderMap::new()));
        assert_eq!(kept.head().unwrap().count(), 1, "nothing of the one before is left");
    }
}
