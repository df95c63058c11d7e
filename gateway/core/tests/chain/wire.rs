//! What one peer receives: the rules every message must keep, asserted on each effect as it is performed.

use bytes::Bytes;
use portcullis_core::event::{Direction, Effect, Part};
use portcullis_core::headers::Headers;

/// How far a message has come at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    Open,
    Ended,
    Aborted,
}

/// One message as its receiver sees it.
#[derive(Debug)]
pub(crate) struct Wire {
    direction: Direction,
    /// Whether the message answers a HEAD request.
    pub(crate) to_head: bool,
    pub(crate) stage: Stage,
    declared: Option<u64>,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, to_head: false, stage: Stage::Waiting, declared: None, body: Vec::new() }
    }

    /// Whether nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Aborted)
    }

    /// Takes an effect in, checks that it may come here, and describes it.
    pub(crate) fn receive(&mut self, effect: Effect) -> String {
        assert!(!self.is_over(), "{effect:?} comes after the end");
        let part = match effect {
            Effect::Abort(failure) => {
                self.stage = Stage::Aborted;
                return format!("abort {}", failure.code());
            }
            Effect::Send(part) => part,
        };
        let ends = part.end().is_end();
        let text = match part {
            Part::Head(headers, _) => self.head(&headers, ends),
            Part::Body(data, _) => self.data(&data, ends),
            Part::Trailers(fields) => {
                assert_eq!(self.stage, Stage::Open, "trailers before the head");
                format!("trailers{}", fields_text(&Headers::trailers(fields)))
            }
        };
        if ends {
            self.end();
        }
        format!("{text}{}", if ends { " end" } else { "" })
    }

    fn head(&mut self, headers: &Headers, ends: bool) -> String {
        assert_eq!(self.stage, Stage::Waiting, "a second head");
        self.stage = Stage::Open;
        let status = headers.status().map(|status| status.as_u16());
        let bodiless = self.to_head || matches!(status, Some(204 | 304));
        assert!(!bodiless || ends, "a message without a body must end with its head");
        assert!(status != Some(204) || headers.content_length().is_none(), "204 declares no length");
        if !bodiless {
            self.declared = headers.content_length();
        }
        let start = match status {
            Some(status) => status.to_string(),
            None => {
                let method = headers.method().expect("requests have methods");
                format!("{method} {}", headers.path().map_or("(no path)", |path| path.as_str()))
            }
        };
        format!("{start}{}", fields_text(headers))
    }

    fn data(&mut self, data: &Bytes, ends: bool) -> String {
        assert_eq!(self.stage, Stage::Open, "body before the head");
        assert!(ends || !data.is_empty(), "an empty chunk in the middle");
        self.body.extend_from_slice(data);
        let sent = self.body.len() as u64;
        assert!(
            self.declared.is_none_or(|declared| sent <= declared),
            "{sent} bytes sent, {:?} declared",
            self.declared
        );
        format!("body {}", shown(data))
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        let sent = self.body.len() as u64;
        assert!(
            self.declared.is_none_or(|declared| sent == declared),
            "{:?}: {sent} bytes at the end, {:?} declared",
            self.direction,
            self.declared
        );
    }
}

fn fields_text(headers: &Headers) -> String {
    let fields = headers.fields().iter();
    fields.map(|(name, value)| format!(" {name}={}", String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// A body in a transcript: the gateway's own documents by their code word, what is long by its length.
pub(crate) fn shown(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    if let Some((_, rest)) = text.split_once("\"code\":\"") {
        return format!("<{}>", rest.split('"').next().unwrap_or_default());
    }
    if text.len() > 40 { format!("({} bytes)", text.len()) } else { format!("\"{text}\"") }
}
