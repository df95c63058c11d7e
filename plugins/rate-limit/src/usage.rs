//! What a response says in its body that it has cost: a number at a place in JSON, found as the body streams by.
//!
//! Nothing is kept but the way to the place, so a body may be as long as it likes. What is no JSON, or has no number there, says
//! nothing. Of several documents (a line each, or an event each) the last that says something counts.

/// How a body's documents are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// It is one document.
    Whole,
    /// Each line is one.
    Lines,
    /// The data of each server-sent event is one, or something else.
    Events,
}

impl Framing {
    fn of(content_type: &str) -> Option<Self> {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &media[..] {
            "text/event-stream" => Some(Self::Events),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Lines),
            media if media == "application/json" || media.ends_with("+json") => Some(Self::Whole),
            _ => None,
        }
    }
}

/// Reads a body for the number at one place.
#[derive(Debug)]
pub(crate) struct Meter {
    framing: Framing,
    line: Line,
    scan: Scan,
}

/// Where in a line of an event stream the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many bytes of `data:` were there.
    Field(usize),
    /// The rest is data.
    Data,
    /// The rest is of no interest.
    Other,
}

const DATA: &[u8] = b"data:";

impl Meter {
    /// For the number that these tokens of a JSON Pointer lead to. `None` for bodies that cannot be read.
    pub(crate) fn new(content_type: &str, tokens: &[String]) -> Option<Self> {
        let framing = Framing::of(content_type)?;
        Some(Self { framing, line: Line::Field(0), scan: Scan::new(tokens.to_vec()) })
    }

    /// Reads on.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.framing, byte) {
                (Framing::Whole, _) => self.scan.byte(*byte),
                (Framing::Lines, b'\n') => self.scan.begin(),
                (Framing::Lines, _) => self.scan.byte(*byte),
                (Framing::Events, _) => self.event_byte(*byte),
            }
        }
    }

    /// The last number that was found.
    pub(crate) fn found(&self) -> Option<u64> {
        self.scan.found
    }

    fn event_byte(&mut self, byte: u8) {
        match (self.line, byte) {
            // A line without anything ends an event.
            (Line::Field(0), b'\n') => self.scan.begin(),
            (Line::Data, b'\n') => {
                self.scan.byte(b'\n');
                self.line = Line::Field(0);
            }
            (_, b'\n') => self.line = Line::Field(0),
            (Line::Field(0), b'\r') => {}
            (Line::Field(seen), byte) if DATA.get(seen) == Some(&byte) => {
                self.line = if seen + 1 == DATA.len() { Line::Data } else { Line::Field(seen + 1) };
            }
            (Line::Field(_), _) => self.line = Line::Other,
            (Line::Data, byte) => self.scan.byte(byte),
            (Line::Other, _) => {}
        }
    }
}

/// A container that is on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Object,
    /// With the place of the item that is read.
    Array(usize),
}

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Nothing,
    Text { escaped: bool },
    Number,
}

/// Follows one document to a place in it.
#[derive(Debug)]
struct Scan {
    tokens: Vec<String>,
    /// The containers on the way that are open, outermost first.
    way: Vec<Frame>,
    /// How many others are open in the innermost of them.
    aside: usize,
    reads: Reads,
    /// The name or number that is read, where it matters.
    text: Vec<u8>,
    /// Whether the name before is the next one on the way.
    named: bool,
    /// Whether the next value is on the way.
    wanted: bool,
    found: Option<u64>,
}

/// Names and numbers that are longer are not the one that is looked for.
const MOST_TEXT: usize = 512;

impl Scan {
    fn new(tokens: Vec<String>) -> Self {
        let (way, text) = (Vec::new(), Vec::new());
        Self { tokens, way, aside: 0, reads: Reads::Nothing, text, named: false, wanted: true, found: None }
    }

    /// Another document begins.
    fn begin(&mut self) {
        self.way.clear();
        (self.aside, self.reads, self.named, self.wanted) = (0, Reads::Nothing, false, true);
    }

    fn byte(&mut self, byte: u8) {
        match (self.reads, byte) {
            (Reads::Text { escaped: false }, b'"') => self.text_ends(),
            (Reads::Text { escaped }, byte) => {
                self.keep(byte);
                self.reads = Reads::Text { escaped: !escaped && byte == b'\\' };
            }
            (Reads::Number, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => self.keep(byte),
            (Reads::Number, _) => {
                self.number_ends();
                self.structure(byte);
            }
            (Reads::Nothing, _) => self.structure(byte),
        }
    }

    /// One byte between names and values.
    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.text.clear();
                self.reads = Reads::Text { escaped: false };
            }
            b'{' => self.open(Frame::Object),
            b'[' => self.open(Frame::Array(0)),
            b'}' | b']' => self.close(),
            b':' if self.aside == 0 => self.wanted = std::mem::take(&mut self.named),
            b',' if self.aside == 0 => {
                self.wanted = false;
                if let Some(Frame::Array(place)) = self.way.last_mut() {
                    *place += 1;
                    self.wanted = self.is_next();
                }
            }
            // Nothing costs less than nothing.
            b'-' if self.aside == 0 => self.wanted = false,
            b'0'..=b'9' if self.wanted && self.aside == 0 && self.way.len() == self.tokens.len() => {
                self.text.clear();
                self.text.push(byte);
                self.reads = Reads::Number;
            }
            _ => {}
        }
    }

    fn open(&mut self, frame: Frame) {
        if self.aside == 0 && self.wanted && self.way.len() < self.tokens.len() {
            self.way.push(frame);
            self.wanted = self.is_next();
        } else {
            self.aside += 1;
        }
    }

    fn close(&mut self) {
        if self.aside > 0 {
            self.aside -= 1;
        } else {
            self.way.pop();
        }
        if self.aside == 0 {
            self.wanted = false;
        }
    }

    /// Whether the item that an array is at is the next one on the way.
    fn is_next(&self) -> bool {
        match (self.way.last(), self.way.len().checked_sub(1).and_then(|place| self.tokens.get(place))) {
            (Some(Frame::Array(place)), Some(token)) => *token == place.to_string(),
            (Some(Frame::Object) | None, _) | (_, None) => false,
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.text.len() <= MOST_TEXT {
            self.text.push(byte);
        }
    }

    fn text_ends(&mut self) {
        self.reads = Reads::Nothing;
        let token = self.way.len().checked_sub(1).and_then(|place| self.tokens.get(place));
        if let (0, Some(Frame::Object), Some(token)) = (self.aside, self.way.last(), token) {
            self.named = self.text == token.as_bytes()
                || self.text.contains(&b'\\')
                    && serde_json::from_slice::<String>(&[b"\"", &self.text[..], b"\""].concat())
                        .is_ok_and(|text| text == *token);
        }
    }

    fn number_ends(&mut self) {
        self.reads = Reads::Nothing;
        let text = std::str::from_utf8(&self.text).unwrap_or_default();
        // A part of one costs one.
        let number = text.parse().ok().or_else(|| text.parse::<f64>().ok().map(whole));
        self.found = number.or(self.found);
    }
}

/// The next whole number, up to what a number of 64 bits holds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and digits came before any sign"
)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content_type: &str, tokens: &[&str], body: &str) -> Option<u64> {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        let whole = |size: usize| {
            let mut meter = Meter::new(content_type, &tokens)?;
            body.as_bytes().chunks(size).for_each(|bytes| meter.read(bytes));
            meter.found()
        };
        let at_once = whole(body.len().max(1));
        assert_eq!([whole(1), whole(3)], [at_once; 2], "however it is cut: {body}");
        at_once
    }

    #[test]
    fn the_number_at_the_place_is_found_and_no_other() {
        let usage = &["usage", "total_tokens"][..];
        for (body, want) in [
            (r#"{"usage":{"total_tokens":17},"x":1}"#, Some(17)),
            (r#"{ "usage" : { "a": [1,{"total_tokens":2}], "total_tokens" : 17 } }"#, Some(17)),
            (r#"{"x":{"usage":{"total_tokens":3}},"total_tokens":4}"#, None),
            (r#"{"usage":[{"total_tokens":3}]}"#, None),
            (r#"[{"usage":{"total_tokens":3}}]"#, None),
            (r#"{"usage":{"total_tokens":"3"}}"#, None),
            (r#"{"usage":{"total_tokens":null,"other":3}}"#, None),
            (r#"{"usage":{"total_tokens":{"of":3}}}"#, None),
            (r#"{"usage":{"total_tokens":-3}}"#, None),
            (r#"{"usage":"usage","total_tokens":3}"#, None),
            (r#"{"a":"\"usage\":{\"total_tokens\":3}","usage":{"total_tokens":9}}"#, Some(9)),
            (r#"{"\u0075sage":{"total_tokens":2.1e1}}"#, Some(21)),
            (r#"{"usage":{"total_tokens":0.2}}"#, Some(1)),
            (r#"{"usage":{"total_tokens":1e300}}"#, Some(u64::MAX)),
            (r#"{"usage":{"total_tokens":1}, "usage":{"total_tokens":2}}"#, Some(2)),
            (r#"{"usage":{"total_tokens":5"#, None),
            ("]]}}{{\"", None),
            ("", None),
        ] {
            assert_eq!(found("application/json", usage, body), want, "{body}");
        }
        assert_eq!(found("application/json", &["a", "1", "n"], r#"{"a":[{"n":1},{"n":2},{"n":3}]}"#), Some(2));
        assert_eq!(found("application/json", &["1"], r#"[[0,7],5,6]"#), Some(5));
    }

    #[test]
    fn of_a_stream_the_last_that_says_something_counts() {
        let lines = "{\"n\":1}\n{\"n\":2}\nnot {json\n{\"n\":3}\n{\"m\":4}\n";
        assert_eq!(found("application/x-ndjson", &["n"], lines), Some(3));
        let events = ": hello\n\nevent: a\ndata: {\"n\":1}\n\ndata:{\"n\":\ndata: 2 }\n\ndata: {\"x\":[\n\nid: {\"n\":9}\n\n\
                      data: {\"n\":3}\n\ndata: [DONE]\n\n";
        assert_eq!(found("text/event-stream; charset=utf-8", &["n"], events), Some(3));
        assert_eq!(found("text/event-stream", &["n"], &events.replace('\n', "\r\n")), Some(3));
        assert_eq!(found("text/event-stream", &["n"], "data: {\"n\":\ndata: 2 }\n\n"), Some(2));
    }

    #[test]
    fn only_json_says_what_it_costs() {
        let tokens = ["n".to_owned()];
        for (content_type, reads) in [
            ("application/problem+json", true),
            ("Application/JSON;charset=utf-8", true),
            ("application/jsonl", true),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(Meter::new(content_type, &tokens).is_some(), reads, "{content_type}");
        }
    }
}
