//! What the guest is told to do.
//!
//! ```text
//! request_headers: get_header_map_value 0 x-a; add_header_map_value 0 x-b '1 2'; return 1 | http_call_response: continue_stream 0
//! ```
//!
//! Clauses are separated by `|`, their steps by `;`, the words of a step by blanks. A clause is for one callback: behind its
//! name may stand `(end)` or `(more)`, for the last part of a message and the others, and `#2`, for the second time the context
//! hears it. Words:
//!
//! | word | is |
//! | --- | --- |
//! | `-1`, `0xff` | a number |
//! | `text`, `'text'` | text; between quotes, `\xHH`, `\0`, `\n`, `\'` and `\\` are bytes |
//! | `{a=1 b='2 3'}` | pairs as the ABI writes them |
//! | `a.b.c` | as a property's path, `a`, `b` and `c` |
//! | `@16:4`, `@16` | an address with a length, an address, instead of a good one |
//! | `$name` | what an earlier step called so; `$ctx` is the newest exchange's context, `$root` its root, `$label` begins a line |
//! | `=name` | calls the step's answer so, and leaves it out of the log |
//! | `%len`, `%none`, `%u64`, `%pairs` | how the answer is logged |

/// A whole script.
#[derive(Default)]
pub(crate) struct Script(Vec<Clause>);

/// What is done in one callback.
struct Clause {
    callback: String,
    part: Option<Part>,
    turn: Option<u32>,
    steps: Vec<Step>,
}

/// Which part of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    End,
    More,
}

/// One thing to do.
#[derive(Clone)]
pub(crate) struct Step {
    /// As it is written.
    pub(crate) text: String,
    pub(crate) name: String,
    pub(crate) words: Vec<Word>,
}

/// An argument.
#[derive(Clone)]
pub(crate) enum Word {
    /// Out of bare characters.
    Bare(String),
    Text(Vec<u8>),
    Pairs(Vec<u8>),
    /// An address and a length.
    Place(u32, u32),
    Known(String),
    Name(String),
    Shown(String),
}

impl Script {
    /// Reads a script; what cannot be read is left out, and shows as a step that answers nothing.
    pub(crate) fn parse(text: &str) -> Self {
        Self(split(text, '|').into_iter().filter_map(clause).collect())
    }

    /// The steps for a callback that comes for the `turn`th time.
    pub(crate) fn steps(&self, callback: &str, part: Part, turn: u32) -> Vec<Step> {
        let fits = |clause: &&Clause| {
            clause.callback == callback
                && clause.part.is_none_or(|wanted| wanted == part)
                && clause.turn.is_none_or(|wanted| wanted == turn)
        };
        self.0.iter().filter(fits).flat_map(|clause| clause.steps.iter().cloned()).collect()
    }

    /// Whether a callback is named at all.
    pub(crate) fn names(&self, callback: &str) -> bool {
        self.0.iter().any(|clause| clause.callback == callback)
    }
}

fn clause(text: &str) -> Option<Clause> {
    let (head, steps) = text.split_once(':')?;
    let (head, turn) = match head.trim().split_once('#') {
        Some((head, turn)) => (head, turn.parse().ok()),
        None => (head.trim(), None),
    };
    let (callback, part) = match head.split_once('(') {
        Some((callback, "end)")) => (callback, Some(Part::End)),
        Some((callback, _)) => (callback, Some(Part::More)),
        None => (head, None),
    };
    Some(Clause {
        callback: callback.to_owned(),
        part,
        turn,
        steps: split(steps, ';').into_iter().filter_map(step).collect(),
    })
}

fn step(text: &str) -> Option<Step> {
    let text = text.trim();
    let mut words = split(text, ' ').into_iter().filter(|word| !word.is_empty());
    let name = words.next()?.to_owned();
    Some(Step { text: text.to_owned(), name, words: words.map(word).collect() })
}

/// Takes a text apart at a character that stands neither in quotes nor in braces.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut braces) = (false, false, 0_u32);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ if c == at && braces == 0 => {
                parts.push(text.get(begin..index).unwrap_or_default());
                begin = index + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..).unwrap_or_default());
    parts
}

fn word(text: &str) -> Word {
    let inner = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(inner) = inner("{", "}") {
        return Word::Pairs(pairs(inner));
    }
    if text.starts_with('\'') {
        return Word::Text(unquoted(text));
    }
    if let Some(place) = text.strip_prefix('@') {
        let (address, len) = place.split_once(':').unwrap_or((place, "0"));
        return Word::Place(truncated(number(address)), truncated(number(len)));
    }
    match (text.strip_prefix('$'), text.strip_prefix('='), text.strip_prefix('%')) {
        (Some(name), ..) => Word::Known(name.to_owned()),
        (_, Some(name), _) => Word::Name(name.to_owned()),
        (.., Some(how)) => Word::Shown(how.to_owned()),
        (None, None, None) => Word::Bare(text.to_owned()),
    }
}

/// A number as it is written; 0 for what is none.
pub(crate) fn number(text: &str) -> i64 {
    let hex = text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok());
    hex.or_else(|| text.parse().ok()).unwrap_or_default()
}

/// Its low half.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "-1 is written for the largest number")]
pub(crate) fn truncated(number: i64) -> u32 {
    number as u32
}

/// A word's bytes, without its quotes.
fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => {}
            b'\\' => match bytes.next() {
                Some(b'x') => {
                    let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                    out.push(u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or_default());
                }
                Some(b'0') => out.push(0),
                Some(b'n') => out.push(b'\n'),
                Some(other) => out.push(other),
                None => {}
            },
            byte => out.push(byte),
        }
    }
    out
}

/// Pairs as the ABI writes them (reference §4.1).
fn pairs(text: &str) -> Vec<u8> {
    let pair = |word: &&str| !word.is_empty();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = split(text, ' ')
        .into_iter()
        .filter(pair)
        .map(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            (unquoted(name), unquoted(value))
        })
        .collect();
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for (name, value) in &pairs {
        out.extend_from_slice(&size(name));
        out.extend_from_slice(&size(value));
    }
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(part);
        out.push(0);
    }
    out
}
