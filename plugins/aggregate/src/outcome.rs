//! What came of a call: its answer, what stands in for it, or nothing.

use std::cell::OnceCell;
use std::rc::Rc;

use portcullis_sdk::Reply;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::plan::Form;

/// A document of JSON: as it was written, or as a value, and the other of the two when somebody asks for it.
///
/// Most documents go into the reply as they came, and are never more than checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    text: OnceCell<String>,
    value: OnceCell<Value>,
}

/// What came of a call that was made, or not.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was answered, as it should be; a call for each item of an array several times.
    Answered { answers: Vec<Rc<Reply>>, document: Document },
    /// It failed, and this stands in.
    StoodIn(Document),
    /// It failed, and is left out.
    LeftOut,
    /// Its condition does not hold, or it needs the answer of one whose condition does not.
    Skipped,
}

impl Outcome {
    /// What others may use of it, and what goes into the reply.
    pub(crate) fn document(&self) -> Option<&Document> {
        match self {
            Self::Answered { document, .. } | Self::StoodIn(document) => Some(document),
            Self::LeftOut | Self::Skipped => None,
        }
    }

    /// Its answers, for their heads.
    pub(crate) fn answers(&self) -> &[Rc<Reply>] {
        match self {
            Self::Answered { answers, .. } => answers,
            Self::StoodIn(_) | Self::LeftOut | Self::Skipped => &[],
        }
    }
}

impl Document {
    /// The body of an answer, if it is what it should be.
    pub(crate) fn read(reply: &Reply, form: Form) -> Result<Self, Failure> {
        let body = reply.body();
        match form {
            _ if matches!(reply.status(), 204 | 205) => Ok(Value::Null.into()),
            Form::Text => {
                let text = std::str::from_utf8(body).map_err(|_| Failure::NotText)?;
                Ok(Value::from(text).into())
            }
            Form::Json => {
                let json: &RawValue = serde_json::from_slice(body).map_err(|_| Failure::NotJson)?;
                Ok(Self::written(json.get().to_owned()))
            }
        }
    }

    /// JSON text that has been checked.
    pub(crate) fn written(text: String) -> Self {
        Self { text: text.into(), value: OnceCell::new() }
    }

    /// As text.
    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| self.value.get().map(Value::to_string).unwrap_or_default())
    }

    /// The value itself.
    pub(crate) fn into_value(self) -> Value {
        self.value();
        self.value.into_inner().unwrap_or_default()
    }

    /// As a value.
    pub(crate) fn value(&self) -> &Value {
        self.value.get_or_init(|| self.text.get().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self { text: OnceCell::new(), value: value.into() }
    }
}

/// How large a document is as a value: what a few bytes of text may become takes a multiple of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// How deep arrays and objects lie in each other.
    pub(crate) depth: usize,
    /// How many values there are, empty arrays and objects counted twice.
    pub(crate) values: usize,
}

impl Extent {
    /// Looks at brackets and commas alone, so that it needs no room: what is no JSON is found out by whoever reads it.
    pub(crate) fn of(body: &[u8]) -> Self {
        let (mut extent, mut open, mut in_text) = (Self { depth: 0, values: 1 }, 0_usize, false);
        let mut bytes = body.iter();
        while let Some(byte) = bytes.next() {
            match (in_text, byte) {
                (_, b'"') => in_text = !in_text,
                (true, b'\\') => _ = bytes.next(),
                (false, b'[' | b'{') => {
                    open += 1;
                    extent.depth = extent.depth.max(open);
                    extent.values += 1;
                }
                (false, b']' | b'}') => open = open.saturating_sub(1),
                (false, b',') => extent.values += 1,
                (_, _) => {}
            }
        }
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extent_is_that_of_brackets_and_commas_outside_texts() {
        for (text, depth, values) in [
            ("1", 0, 1),
            ("[]", 1, 2),
            (r#"{"a":[1,[2]],"b":[3]}"#, 3, 7),
            (r#"["[[[", "\"[[,", "\\"]"#, 1, 4),
            ("[[],[],[]]", 2, 7),
        ] {
            assert_eq!(Extent::of(text.as_bytes()), Extent { depth, values }, "{text}");
        }
    }

    #[test]
    fn a_document_is_text_or_value_as_it_is_asked_for() {
        let written = Document::written(r#"{"a": 1.50}"#.to_owned());
        assert_eq!((written.text(), written.value().to_string().as_str()), (r#"{"a": 1.50}"#, r#"{"a":1.50}"#));
        assert_eq!(Document::from(Value::from("x")).text(), "\"x\"");
    }
}
