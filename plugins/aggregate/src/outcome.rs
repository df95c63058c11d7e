//! What came of a call: its answer, what stands in for it, or nothing.

use std::rc::Rc;

use portcullis_sdk::Reply;

use crate::failure::Failure;
use crate::json::Json;
use crate::json::text::{check, quoted};
use crate::plan::Form;
use crate::shape::{Step, TooLarge, apply};

/// A document: the text of a value of JSON, which has been checked. There may be white space around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document(Rc<String>);

/// An answer that can be used.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Without its body.
    pub(crate) head: Reply,
    pub(crate) document: Document,
    /// How many values of JSON there are in it.
    pub(crate) values: usize,
}

/// What came of a call that was made, or not.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was answered, as it should be; a call for each item of an array several times.
    Answered {
        answers: Vec<Rc<Answer>>,
        /// What others may use of it.
        document: Document,
        /// What goes into the reply.
        result: Result<Document, TooLarge>,
    },
    /// It failed, and this stands in.
    StoodIn(Document),
    /// It failed, and is left out.
    LeftOut,
    /// Its condition does not hold, or it needs the answer of one whose condition does not.
    Skipped,
}

impl Outcome {
    /// What others may use of it.
    pub(crate) fn document(&self) -> Option<&Document> {
        match self {
            Self::Answered { document, .. } | Self::StoodIn(document) => Some(document),
            Self::LeftOut | Self::Skipped => None,
        }
    }

    /// What goes into the reply. A stand-in is what its author wants to see there, so nothing is done to it.
    pub(crate) fn result(&self) -> Result<Option<&Document>, TooLarge> {
        match self {
            Self::Answered { result, .. } => result.as_ref().map(Some).map_err(|error| *error),
            Self::StoodIn(document) => Ok(Some(document)),
            Self::LeftOut | Self::Skipped => Ok(None),
        }
    }

    /// Its answers, for their heads.
    pub(crate) fn answers(&self) -> &[Rc<Answer>] {
        match self {
            Self::Answered { answers, .. } => answers,
            Self::StoodIn(_) | Self::LeftOut | Self::Skipped => &[],
        }
    }
}

impl Answer {
    /// An answer, if it is what it should be.
    pub(crate) fn read(mut reply: Reply, form: Form, max_depth: usize) -> Result<Self, Failure> {
        let body = reply.take_body();
        let (text, values) = match form {
            _ if matches!(reply.status(), 204 | 205) => ("null".to_owned(), 1),
            Form::Text => (quoted(&String::from_utf8(body).map_err(|_| Failure::NotText)?), 1),
            Form::Json => {
                let text = String::from_utf8(body).map_err(|_| Failure::NotJson)?;
                let values = check(&text, max_depth)?;
                (text, values)
            }
        };
        Ok(Self { head: reply, document: Document::of(text), values })
    }
}

impl Document {
    /// Of text that has been checked.
    pub(crate) fn of(text: String) -> Self {
        Self(Rc::new(text))
    }

    /// As text, without white space around it.
    pub(crate) fn text(&self) -> &str {
        self.0.trim_ascii()
    }

    /// What these steps make of it; joins may add so many bytes.
    pub(crate) fn shaped(&self, steps: &[Step], room: usize) -> Result<Self, TooLarge> {
        if steps.is_empty() {
            return Ok(self.clone());
        }
        let mut document = Json::of(self.text());
        apply(steps, &mut document, room)?;
        Ok(Self::of(document.to_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_text_that_it_came_with() {
        let document = Document::of(" {\"a\" : 1.50}\n".to_owned());
        assert_eq!(document.text(), "{\"a\" : 1.50}");
        assert_eq!(document.shaped(&[], 0), Ok(document));
    }
}
