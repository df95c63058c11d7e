//! An answer made JSON: one message and a status, or a stream of them.

use portcullis_sdk::Response;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::frames::{BadFrame, Frames};
use crate::json::Json;
use crate::rules::Rule;
use crate::status::Status;

/// Messages of one method, to JSON.
#[derive(Debug)]
pub(crate) struct Written {
    json: Json,
    of: MessageDescriptor,
    field: Option<String>,
    max_bytes: usize,
}

/// Why an answer of the upstream's is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadAnswer {
    Frame(BadFrame),
    /// Not one message.
    Count,
    /// It ended without a status.
    NoStatus,
    /// A message that its type does not describe, or JSON cannot.
    Message(String),
}

impl BadAnswer {
    pub(crate) fn reply(&self) -> Response {
        log::warn!("the upstream's answer is refused: {self:?}");
        Response::problem(502, "grpc_malformed").title("The answer of the service could not be read")
    }
}

impl Written {
    pub(crate) fn new(rule: &Rule, json: &Json, max_bytes: usize) -> Self {
        Self { json: json.clone(), of: rule.method.output(), field: rule.response_body.clone(), max_bytes }
    }

    fn one(&self, message: &[u8]) -> Result<Vec<u8>, BadAnswer> {
        let message =
            DynamicMessage::decode(self.of.clone(), message).map_err(|why| BadAnswer::Message(why.to_string()))?;
        self.json.text(&message, self.field.as_deref()).map_err(BadAnswer::Message)
    }

    /// The JSON of a whole body.
    ///
    /// # Errors
    /// When it is not one message.
    pub(crate) fn unary(&self, body: &[u8]) -> Result<Vec<u8>, BadAnswer> {
        let mut frames = Frames::new(self.max_bytes);
        let mut messages = Vec::new();
        frames.push(body, |message| messages.push(self.one(message))).map_err(BadAnswer::Frame)?;
        frames.end().map_err(BadAnswer::Frame)?;
        match <[_; 1]>::try_from(messages) {
            Ok([message]) => message,
            Err(_) => Err(BadAnswer::Count),
        }
    }
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A document a line.
    Lines,
    /// Server-sent events.
    Events,
}

impl Form {
    /// What this `accept` asks for.
    pub(crate) fn of(accept: &str) -> Self {
        if accept.contains("text/event-stream") { Self::Events } else { Self::Lines }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    fn write(self, json: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Lines => out.extend([json, b"\n"].concat()),
            Self::Events => out.extend([b"data: ", json, b"\n\n"].concat()),
        }
    }

    /// What has gone wrong, as the last of a stream.
    fn write_failure(self, json: &str, out: &mut Vec<u8>) {
        if self == Self::Events {
            out.extend(b"event: error\n");
        }
        self.write(json.as_bytes(), out);
    }
}

/// A stream as it passes.
#[derive(Debug)]
pub(crate) struct Stream {
    written: Written,
    form: Form,
    frames: Frames,
    /// After what cannot be read, nothing is.
    is_broken: bool,
}

impl Stream {
    pub(crate) fn new(written: Written, form: Form) -> Self {
        let frames = Frames::new(written.max_bytes);
        Self { written, form, frames, is_broken: false }
    }

    /// The JSON of what these bytes complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_broken {
            return out;
        }
        let mut failure = None;
        let (written, form) = (&self.written, self.form);
        let pushed = self.frames.push(bytes, |message| match written.one(message) {
            Ok(json) if failure.is_none() => form.write(&json, &mut out),
            Ok(_) => {}
            Err(why) => failure = failure.take().or(Some(why)),
        });
        if let Some(why) = failure.or(pushed.map_err(BadAnswer::Frame).err()) {
            self.fail(&why, &mut out);
        }
        out
    }

    /// The last of it.
    pub(crate) fn end(&mut self, status: Option<&Status>) -> Vec<u8> {
        let mut out = Vec::new();
        match status {
            _ if self.is_broken => {}
            Some(status) if !status.is_ok() => self.form.write_failure(&status.json(), &mut out),
            Some(_) => {
                if let Err(why) = self.frames.end() {
                    self.fail(&BadAnswer::Frame(why), &mut out);
                }
            }
            None => self.fail(&BadAnswer::NoStatus, &mut out),
        }
        out
    }

    fn fail(&mut self, why: &BadAnswer, out: &mut Vec<u8>) {
        log::warn!("the upstream's stream is cut short: {why:?}");
        self.is_broken = true;
        let status = Status { code: 13, message: "the answer of the service could not be read".to_owned() };
        self.form.write_failure(&status.json(), out);
    }
}
