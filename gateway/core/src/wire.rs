//! The bytes of an HTTP/1 connection, judged before anything parses them.
//!
//! An [`Inspector`] follows a client's bytes from head to body to head and lets pass only what RFC 9112 can be read as in one way.
//! Where the HTTP library is lenient (bare line feeds, a length beside a coding, chunk extensions), two parsers could disagree on
//! where a message ends, and that is how requests are smuggled. The library still parses: here nothing is taken apart, only
//! looked at.
//!
//! A head passes whole or not at all, so that the library never sees a part of one that is refused. In its place goes a *stand-in*
//! ([`Refusal::stand_in`]), which the gateway recognises ([`refused`]) and answers in its turn, behind earlier requests of the same
//! connection. It cannot be forged: it has no `Host`, and no HTTP/1.1 request without one ever passes.
//!
//! **Invariants:** what is said of bytes does not depend on how they were split into reads; a connection's first refusal is its
//! last. No allocation, and a byte is looked at twice only in lines that come in pieces.

mod body;
mod fields;
mod head;
mod lines;
mod refusal;

pub use refusal::{Reason, Refusal, refused};

use body::Body;
use head::{Head, Line};

/// How a client opens an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What follows a connection's bytes.
#[derive(Debug, Default)]
pub struct Inspector {
    state: State,
    heads: u64,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing has passed yet: it may become HTTP/2.
    #[default]
    Opening,
    /// In a head, or before one.
    Head(Head),
    /// In a body.
    Body(Body, After),
    /// The last request asked for another protocol, and nobody has answered it yet.
    Undecided,
    /// It is not HTTP/1, or no longer: everything passes.
    Off,
    Refused(Refusal),
}

/// What comes after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Head,
    Decision,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// So many of the bytes may be handed on. The rest must come again, with more behind it.
    pub passed: usize,
    /// What to do about the rest.
    pub next: Next,
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes are needed to say more.
    More,
    /// What follows waits until the request that asked for another protocol is answered; see [`Inspector::decide`].
    Decision,
    /// Nothing of the rest may pass, now or later.
    Refused(Refusal),
}

impl Inspector {
    /// Looks at the bytes behind those that have passed.
    pub fn inspect(&mut self, bytes: &[u8]) -> Seen {
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            match self.step(rest) {
                Ok(Some(len)) => passed += len,
                Ok(None) => return Seen { passed, next: Next::More },
                Err(next) => return Seen { passed, next },
            }
            if passed == bytes.len() {
                return Seen { passed, next: Next::More };
            }
        }
    }

    /// How many of the bytes at the front pass; none when more are needed.
    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, Next> {
        match &mut self.state {
            State::Opening if rest.len() < PREFACE.len() && PREFACE.starts_with(rest) => Ok(None),
            State::Opening => {
                self.state = if rest.starts_with(PREFACE) { State::Off } else { State::Head(Head::default()) };
                Ok(Some(0))
            }
            State::Head(head) => match head.judge(rest) {
                Ok(None) => Ok(None),
                Ok(Some((len, message))) => {
                    self.heads += 1;
                    self.state = match message.body {
                        Some(body) => State::Body(body, message.after),
                        None => State::after(message.after),
                    };
                    Ok(Some(len))
                }
                Err(reason) => {
                    let line = head.line();
                    Err(self.refuse(reason, line))
                }
            },
            State::Body(body, after) => match body.judge(rest) {
                Ok((len, body::Progress::Ended)) => {
                    self.state = State::after(*after);
                    Ok(Some(len))
                }
                Ok((len, body::Progress::Open)) => Ok(Some(len)),
                Ok((_, body::Progress::Short)) => Ok(None),
                Err(reason) => Err(self.refuse(reason, Line::Body)),
            },
            State::Undecided => Err(Next::Decision),
            State::Off => Ok(Some(rest.len())),
            State::Refused(refusal) => Err(Next::Refused(*refusal)),
        }
    }

    fn refuse(&mut self, reason: Reason, line: Line) -> Next {
        let refusal = Refusal { reason, line };
        self.state = State::Refused(refusal);
        Next::Refused(refusal)
    }

    /// How many requests have passed.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether everything passes from here on.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.state, State::Off)
    }

    /// Says whether the client got the protocol it asked for: if it did, what follows is no longer HTTP/1.
    ///
    /// Only after [`Next::Decision`], or while nothing has come since the request.
    pub fn decide(&mut self, granted: bool) {
        if matches!(self.state, State::Undecided) {
            self.state = if granted { State::Off } else { State::Head(Head::default()) };
        }
    }

    /// Whether it waits for [`Self::decide`].
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self.state, State::Undecided)
    }
}

impl State {
    fn after(after: After) -> Self {
        match after {
            After::Head => Self::Head(Head::default()),
            After::Decision => Self::Undecided,
        }
    }
}

#[cfg(test)]
mod tests;
