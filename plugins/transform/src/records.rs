//! Streams of records: newline-delimited JSON, and server-sent events with JSON in their data.
//!
//! A record is changed when it is here whole, wherever the network cut it. **Invariant:** at most one record and the piece that
//! came last are held, and a record that grows longer than the cap is passed on as it comes or is left out.

use plugin_bodies::Otherwise;

/// What ends a stream that some APIs send as events, and is no JSON.
const DONE: &[u8] = b"[DONE]";

/// Changes the JSON of one record; none leaves the record out.
pub(crate) trait Change {
    fn change(&mut self, json: &[u8]) -> Option<Vec<u8>>;
    /// A record was too long.
    fn overflows(&mut self);
}

/// How records are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Lines,
    Events,
}

/// A stream, as far as it has come.
pub(crate) struct Records<C> {
    framing: Framing,
    change: C,
    max_bytes: usize,
    on_overflow: Otherwise,
    /// The record that is not yet whole.
    held: Vec<u8>,
    /// How much of it was searched for its end, and where in it the last line begins.
    searched: usize,
    line: usize,
    /// Whether the record is too long, and the rest of it is treated as `on_overflow` says.
    overflown: bool,
}

impl<C: Change> Records<C> {
    pub(crate) fn new(framing: Framing, change: C, max_bytes: usize, on_overflow: Otherwise) -> Self {
        Self { framing, change, max_bytes, on_overflow, held: Vec::new(), searched: 0, line: 0, overflown: false }
    }

    /// What goes on for a piece of the stream.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let mut out = Vec::new();
        while let Some(end) = self.record_end() {
            let rest = self.held.split_off(end);
            let record = std::mem::replace(&mut self.held, rest);
            (self.searched, self.line) = (0, 0);
            self.emit(&record, &mut out);
        }
        if self.held.len() > self.max_bytes {
            self.overflow(&mut out);
        }
        out
    }

    /// What goes on at the end: a last record that nothing ended.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let record = std::mem::take(&mut self.held);
        if !record.is_empty() {
            self.emit(&record, &mut out);
        }
        out
    }

    /// Where the first record ends, if it is whole.
    fn record_end(&mut self) -> Option<usize> {
        loop {
            let rest = self.held.get(self.searched..)?;
            let ends_line = |byte: &u8| *byte == b'\n' || *byte == b'\r' && self.framing == Framing::Events;
            let Some(at) = rest.iter().position(ends_line).map(|at| at + self.searched) else {
                self.searched = self.held.len();
                return None;
            };
            let next = match (self.held.get(at), self.held.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => at + 2,
                // Perhaps half of an end.
                (Some(b'\r'), None) => {
                    self.searched = at;
                    return None;
                }
                _ => at + 1,
            };
            let is_blank = at == self.line;
            (self.searched, self.line) = (next, next);
            if self.framing == Framing::Lines || is_blank {
                return Some(next);
            }
        }
    }

    fn emit(&mut self, record: &[u8], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.overflown) {
            if self.on_overflow == Otherwise::Pass {
                out.extend_from_slice(record);
            }
            return;
        }
        if record.len() > self.max_bytes {
            self.change.overflows();
            if self.on_overflow == Otherwise::Pass {
                out.extend_from_slice(record);
            }
            return;
        }
        match self.framing {
            Framing::Lines => self.emit_line(record, out),
            Framing::Events => self.emit_event(record, out),
        }
    }

    fn emit_line(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let json = record.trim_ascii();
        if json.is_empty() {
            out.extend_from_slice(record);
        } else if let Some(changed) = self.change.change(json) {
            let end = record.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
            out.extend(changed);
            out.extend_from_slice(record.get(end..).unwrap_or_default());
        }
    }

    /// WHATWG HTML §9.2.6: lines `name: value`; those of `data` are the lines of one text.
    fn emit_event(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let lines = lines(record);
        let text = lines.iter().filter_map(|(line, _)| data(line)).collect::<Vec<_>>().join(&b'\n');
        if text.trim_ascii().is_empty() || text.trim_ascii() == DONE {
            out.extend_from_slice(record);
            return;
        }
        let Some(changed) = self.change.change(&text) else { return };
        let mut changed = Some(changed);
        for (line, end) in lines {
            match (data(line), changed.take()) {
                (None, left) => {
                    out.extend_from_slice(line);
                    out.extend_from_slice(end);
                    changed = left;
                }
                (Some(_), Some(json)) => {
                    out.extend_from_slice(b"data: ");
                    out.extend(json);
                    out.extend_from_slice(end);
                }
                (Some(_), None) => {}
            }
        }
    }

    fn overflow(&mut self, out: &mut Vec<u8>) {
        if !self.overflown {
            self.overflown = true;
            self.change.overflows();
        }
        // What was searched goes; a half of a line's end stays.
        let rest = self.held.split_off(self.searched);
        let begun = std::mem::replace(&mut self.held, rest);
        // A line that has begun is not blank, whatever follows.
        self.line = if self.line == self.searched { 0 } else { usize::MAX };
        self.searched = 0;
        if self.on_overflow == Otherwise::Pass {
            out.extend(begun);
        }
    }
}

/// The lines of an event, each with its end.
fn lines(mut record: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut lines = Vec::new();
    while !record.is_empty() {
        let at = record.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(record.len());
        let (line, rest) = record.split_at(at);
        let (end, rest) = rest.split_at(if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) });
        lines.push((line, end));
        record = rest;
    }
    lines
}

/// What a line adds to an event's data.
fn data(line: &[u8]) -> Option<&[u8]> {
    // A byte order mark may stand in front of the first.
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    if line == b"data" {
        return Some(b"");
    }
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests;
