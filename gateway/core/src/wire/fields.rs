//! Field lines, of heads and of trailers.

use super::refusal::Reason;
use super::text::{TOKEN, control, run};
use crate::limits::HEAD_FIELDS;

/// What is known of a section of fields whose bytes have come in part.
#[derive(Debug, Default)]
pub(super) struct Fields {
    count: usize,
    /// Where the line begins that is being looked at; its value, if that is what is looked at.
    line: usize,
    value: Option<(Kind, usize)>,
    begun: bool,
}

/// The fields that say where a message ends and for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    Length,
    Coding,
    Upgrade,
    Other,
}

/// Whether there was enough to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    On,
    /// More bytes are needed.
    Short,
}

impl Fields {
    /// Looks at the lines from `at` on, until behind the empty one. `take` is told the value of each field that matters.
    pub(super) fn walk(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        mut take: impl FnMut(Kind, &[u8]) -> Result<(), Reason>,
    ) -> Result<Progress, Reason> {
        if !self.begun {
            (self.begun, self.line) = (true, *at);
        }
        loop {
            let Some((kind, start)) = self.value else {
                match self.name(bytes, at)? {
                    Step::Short => return Ok(Progress::Short),
                    Step::End => return Ok(Progress::On),
                    Step::Name => continue,
                }
            };
            let Some(end) = control(bytes, *at) else {
                *at = bytes.len();
                return Ok(Progress::Short);
            };
            *at = end;
            match (bytes.get(end), bytes.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => return Ok(Progress::Short),
                (Some(b'\r'), Some(_)) => return Err(Reason::BareCarriageReturn),
                (Some(b'\n'), _) => return Err(Reason::BareLineFeed),
                _ => return Err(Reason::ControlByte),
            }
            if kind != Kind::Other {
                take(kind, trimmed(bytes.get(start..end).unwrap_or_default()))?;
            }
            (*at, self.line, self.value) = (end + 2, end + 2, None);
        }
    }

    /// A name with its colon, or the empty line.
    fn name(&mut self, bytes: &[u8], at: &mut usize) -> Result<Step, Reason> {
        let Some(end) = run(bytes, *at, TOKEN) else {
            *at = bytes.len();
            return Ok(Step::Short);
        };
        *at = end;
        if end == self.line {
            return self.empty(bytes, at);
        }
        match bytes.get(end) {
            Some(b':') => {}
            Some(b' ' | b'\t') => return Err(Reason::SpaceBeforeColon),
            Some(b'\n') => return Err(Reason::BareLineFeed),
            _ => return Err(Reason::FieldName),
        }
        self.count += 1;
        if self.count > HEAD_FIELDS {
            return Err(Reason::TooManyFields);
        }
        self.value = Some((Kind::of(bytes.get(self.line..end).unwrap_or_default()), end + 1));
        *at = end + 1;
        Ok(Step::Name)
    }

    fn empty(&self, bytes: &[u8], at: &mut usize) -> Result<Step, Reason> {
        match (bytes.get(self.line), bytes.get(self.line + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                *at = self.line + 2;
                Ok(Step::End)
            }
            (Some(b'\r'), None) => Ok(Step::Short),
            (Some(b'\r'), Some(_)) => Err(Reason::BareCarriageReturn),
            (Some(b'\n'), _) => Err(Reason::BareLineFeed),
            (Some(b' ' | b'\t'), _) => Err(Reason::FoldedLine),
            _ => Err(Reason::FieldName),
        }
    }
}

enum Step {
    Name,
    End,
    Short,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => Self::Host,
            7 if name.eq_ignore_ascii_case(b"upgrade") => Self::Upgrade,
            14 if name.eq_ignore_ascii_case(b"content-length") => Self::Length,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Self::Coding,
            _ => Self::Other,
        }
    }
}

/// Without the white space around it, which is only spaces and tabs here (RFC 9110 §5.6.3).
fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}
