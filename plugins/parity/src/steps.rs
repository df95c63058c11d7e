//! Taking steps: the arguments of a hostcall out of words, and its answers into the log.

use std::fmt::Write as _;

use crate::hostcalls::{self, Hostcall, Kind};
use crate::script::{Part, Step, Word, number, truncated};
use crate::state;

/// Takes the steps for a callback of a context; what it is to return.
pub(crate) fn take(id: u32, callback: &'static str, args: &[u32], part: Part) -> u32 {
    let Some(told) = state::enter(id, callback, part) else { return 0 };
    let say = |line: &str| hostcalls::log(&format!("{}|{callback}: {line}", told.label));
    let mut returned = 0;
    for step in &told.steps {
        match step.name.as_str() {
            "return" => returned = int(told.root, step.words.first()),
            "starve" => state::starve(truncated(int(told.root, step.words.first()))),
            "args" => say(&format!("{args:?}")),
            "end" => say(if part == Part::End { "end" } else { "more" }),
            "trap" => std::process::abort(),
            "exit" => std::process::exit(3),
            name => match hostcalls::named(name) {
                Some(hostcall) => say(&answer(told.root, hostcall, step)),
                None => say(&format!("{}: there is no such step", step.text)),
            },
        }
    }
    truncated(returned)
}

fn int(root: u32, word: Option<&Word>) -> i64 {
    match word {
        Some(Word::Bare(text)) => number(text),
        Some(Word::Known(name)) => little_endian(&state::known(root, name)),
        _ => 0,
    }
}

fn bytes(root: u32, word: Option<&Word>, kind: Kind) -> Vec<u8> {
    match word {
        Some(Word::Bare(text)) if kind == Kind::Path => text.replace('.', "\0").into_bytes(),
        Some(Word::Bare(text)) => text.as_bytes().to_vec(),
        Some(Word::Text(bytes) | Word::Pairs(bytes)) => bytes.clone(),
        Some(Word::Known(name)) => state::known(root, name),
        _ => Vec::new(),
    }
}

fn little_endian(bytes: &[u8]) -> i64 {
    let mut whole = [0; 8];
    whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    i64::from_le_bytes(whole)
}

/// One answer of a hostcall: where the host was to put it, and what is there.
struct Place {
    kind: Kind,
    /// For [`Kind::Answer`] an address and a length, else a number.
    cell: Box<[u8; 8]>,
}

/// Makes a hostcall; the step with what it answered.
fn answer(root: u32, hostcall: &Hostcall, step: &Step) -> String {
    let (mut name, mut shown) = (None, None);
    let mut given = Vec::new();
    for word in &step.words {
        match word {
            Word::Name(to) => name = Some(to),
            Word::Shown(how) => shown = Some(how.as_str()),
            other @ (Word::Bare(_) | Word::Text(_) | Word::Pairs(_) | Word::Place(..) | Word::Known(_)) => {
                given.push(other)
            }
        }
    }
    let mut given = given.into_iter().peekable();
    // What the host reads has to stay where it is until the call has been made.
    let (mut words, mut read, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for kind in hostcall.kinds.iter().copied() {
        match kind {
            Kind::Number => words.push(int(root, given.next())),
            Kind::Bytes | Kind::Path => match given.next() {
                Some(Word::Place(address, len)) => words.extend([i64::from(*address), i64::from(*len)]),
                word => {
                    let bytes = bytes(root, word, kind);
                    let (address, len) = hostcalls::place(&bytes);
                    words.extend([address, len]);
                    read.push(bytes);
                }
            },
            Kind::Answer | Kind::Word | Kind::Long => {
                let cells = if kind == Kind::Answer { 2 } else { 1 };
                let cell = Box::new([0; 8]);
                let (address, _) = hostcalls::place(&cell[..]);
                for index in 0..cells {
                    let wrong = given.next_if(|word| matches!(word, Word::Place(..)));
                    words.push(match wrong {
                        Some(Word::Place(address, _)) => i64::from(*address),
                        _ => address + 4 * index,
                    });
                }
                places.push(Place { kind, cell });
            }
        }
    }
    let status = (hostcall.call)(&words);
    drop(read);
    let mut line = format!("{} = {status}", step.text);
    for place in places {
        let value = place.value();
        let numeric = place.kind != Kind::Answer;
        match name {
            Some(name) => state::learn(root, name, value),
            None => show(&mut line, &value, shown.unwrap_or(if numeric { "u64" } else { "text" })),
        }
    }
    line
}

impl Place {
    fn value(&self) -> Vec<u8> {
        match self.kind {
            Kind::Answer => hostcalls::answer(&self.cell),
            Kind::Long => self.cell.to_vec(),
            Kind::Word | Kind::Number | Kind::Bytes | Kind::Path => self.cell.iter().take(4).copied().collect(),
        }
    }
}

fn show(line: &mut String, value: &[u8], how: &str) {
    let written = match how {
        "none" => Ok(()),
        "len" => write!(line, " ({} bytes)", value.len()),
        "u64" => write!(line, " {}", little_endian(value)),
        "pairs" => match pairs(value) {
            Some(pairs) => {
                let shown =
                    |(name, value): &(&[u8], &[u8])| format!("{}={}", name.escape_ascii(), value.escape_ascii());
                write!(line, " {{{}}}", pairs.iter().map(shown).collect::<Vec<_>>().join(" | "))
            }
            None => write!(line, " no pairs"),
        },
        _ => write!(line, " '{}'", value.escape_ascii()),
    };
    // Writing to a string does not fail.
    _ = written;
}

/// Pairs out of how the ABI writes them; none for what is none.
fn pairs(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let word = |index: usize| Some(little_endian(bytes.get(index * 4..index * 4 + 4)?));
    let count = usize::try_from(word(0)?).ok()?;
    let mut rest = bytes.get(4 + 8 * count..)?;
    let mut next = |len: i64| {
        let (part, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        rest = after.strip_prefix(b"\0")?;
        Some(part)
    };
    (0..count).map(|index| Some((next(word(1 + 2 * index)?)?, next(word(2 + 2 * index)?)?))).collect()
}
