//! A template's text, read into pieces.

use super::{Function, Piece, Target, TemplateError, may_stand_in_path};

/// The functions, for whoever misspells one.
const FUNCTIONS: &str = "default(\"…\"), lower, upper, urlencode, json or raw";

pub(super) fn pieces(
    text: &str,
    target: Target,
    known: &dyn Fn(&[String]) -> Result<(), String>,
) -> Result<Vec<Piece>, TemplateError> {
    let mut reader = Reader { text, rest: text };
    let mut pieces = Vec::new();
    let mut literal = String::new();
    while let Some(at) = reader.rest.find("${") {
        let (before, place) = reader.rest.split_at(at);
        reader.check_literal(before, target)?;
        let after = place.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            if target == Target::Path {
                return Err(reader.error("a path has no `{`; write `%7B`"));
            }
            literal.push_str(before);
            literal.push_str("${");
            reader.rest = after;
            continue;
        }
        literal.push_str(before);
        reader.rest = place;
        let start = reader.clone();
        reader.rest = after;
        let (path, functions) = reader.value(&start, target)?;
        known(&path).map_err(|why| start.error(&why))?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Value { path, functions });
    }
    reader.check_literal(reader.rest, target)?;
    literal.push_str(reader.rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

#[derive(Clone)]
struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
}

impl Reader<'_> {
    fn error(&self, why: &str) -> TemplateError {
        let read = self.text.len().saturating_sub(self.rest.len());
        let at = self.text.get(..read).map_or(0, |read| read.chars().count()) + 1;
        TemplateError { at, why: why.to_owned() }
    }

    /// Bytes that the target cannot have are refused when the template is read, not when it is used.
    fn check_literal(&self, literal: &str, target: Target) -> Result<(), TemplateError> {
        match target {
            Target::Header if literal.bytes().any(|byte| byte.is_ascii_control()) => {
                Err(self.error("a header value may not hold control characters"))
            }
            Target::Path if !literal.bytes().all(|byte| may_stand_in_path(byte) || byte == b'?') => {
                Err(self.error("a path may not hold this text; percent-encode what is no letter, digit or mark"))
            }
            Target::Header | Target::Path | Target::Text => Ok(()),
        }
    }

    /// What stands between `${`, which has been read, and the `}`.
    fn value(&mut self, start: &Self, target: Target) -> Result<(Vec<String>, Vec<Function>), TemplateError> {
        if self.rest.starts_with("env:") || self.rest.starts_with("file:") {
            return Err(start.error(
                "`${env:…}` and `${file:…}` are secrets of the gateway's configuration, which nothing has resolved; \
                 give the value as `env.NAME` and write `${env.NAME}`",
            ));
        }
        let mut path = Vec::new();
        loop {
            self.skip_blanks();
            path.push(self.segment()?);
            self.skip_blanks();
            if !self.take('.') {
                break;
            }
        }
        let mut functions = Vec::new();
        while self.take('|') {
            functions.push(self.function(target)?);
            self.skip_blanks();
        }
        if self.take('}') {
            return Ok((path, functions));
        }
        if self.rest.is_empty() {
            return Err(start.error("`${` has no closing brace; write `$${` for a literal `${`"));
        }
        Err(self.error("expected `.`, `|` or `}`; a name with other characters stands in quotes"))
    }

    fn segment(&mut self) -> Result<String, TemplateError> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let plain = |char: char| char.is_ascii_alphanumeric() || "_-!#&'*+^`~/@".contains(char);
        let end = self.rest.find(|char| !plain(char)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err(self.error("expected a name, such as in `${request.headers.x-a}`"));
        }
        self.rest = rest;
        Ok(name.to_owned())
    }

    /// A text in quotes, in which `\"` and `\\` are a quote and a backslash.
    fn quoted(&mut self) -> Result<String, TemplateError> {
        let start = self.clone();
        if !self.take('"') {
            return Err(self.error("expected a text in quotes"));
        }
        let mut text = String::new();
        let mut chars = self.rest.chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => {
                    self.rest = chars.as_str();
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some(escaped @ ('"' | '\\')) => text.push(escaped),
                    _ => return Err(start.error("in quotes, only `\\\"` and `\\\\` are escapes")),
                },
                _ => text.push(char),
            }
        }
        Err(start.error("the quote is not closed"))
    }

    fn function(&mut self, target: Target) -> Result<Function, TemplateError> {
        self.skip_blanks();
        let start = self.clone();
        let name = self.segment()?;
        match (name.as_str(), target) {
            ("default", _) => self.argument().map(Function::Default),
            ("lower", _) => Ok(Function::Lower),
            ("upper", _) => Ok(Function::Upper),
            ("json", _) => Ok(Function::Json),
            ("urlencode", Target::Header | Target::Text) => Ok(Function::UrlEncode),
            ("urlencode", Target::Path) => {
                Err(start.error("values in a path are encoded already; leave `urlencode` out"))
            }
            ("raw", Target::Path) => Ok(Function::Raw),
            ("raw", Target::Header | Target::Text) => Err(start.error("`raw` is for paths; leave it out")),
            _ => Err(start.error(&format!("`{name}` is no function; write {FUNCTIONS}"))),
        }
    }

    fn argument(&mut self) -> Result<String, TemplateError> {
        self.skip_blanks();
        if !self.take('(') {
            return Err(self.error("expected a text, as in `default(\"none\")`"));
        }
        self.skip_blanks();
        let text = self.quoted()?;
        self.skip_blanks();
        if self.take(')') { Ok(text) } else { Err(self.error("expected `)`")) }
    }

    fn take(&mut self, char: char) -> bool {
        let rest = self.rest.strip_prefix(char);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }
}
