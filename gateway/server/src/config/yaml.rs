//! YAML text to a tree with places.
//!
//! A strict part of YAML 1.2: one document per file, string keys, no tags, no merge keys. Anchors and aliases work.
//! `saphyr-parser` is used below its own loaders because they lose the places of keys and accept duplicate keys.
//! **Invariant:** the tree is bounded in depth, and its size by that of the file and [`MAX_REPEATED`].

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::tree::{Key, Map, Node, Origin, Text, Value};
use crate::diagnostic::{Diagnostic, Position, Source, Span};

/// Far deeper than any configuration, shallow enough for the stack.
const MAX_DEPTH: usize = 64;
/// What is written is bounded by the size of the file; what aliases of aliases repeat would be bounded by nothing.
const MAX_REPEATED: usize = 100_000;

/// Reads one file.
///
/// Problems that leave the rest readable, such as a key written twice, are added to `problems`. An empty file is an empty
/// mapping.
///
/// # Errors
/// The problem after which nothing more can be read.
pub(crate) fn read(source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Result<Node, Diagnostic> {
    let parser = Parser::new_from_str(&source.text);
    let mut reader = Reader { source, parser, anchors: HashMap::new(), nodes: 0, repeated: 0, problems };
    reader.document()
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    parser: Parser<'a, StrInput<'a>>,
    /// Finished nodes that have an anchor, with the number of nodes in each.
    anchors: HashMap<usize, (Node, usize)>,
    /// Nodes so far, and those of them that aliases have repeated.
    nodes: usize,
    repeated: usize,
    problems: &'a mut Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Diagnostic> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(Diagnostic::error("a second document begins here")
                        .at(&span, "one file holds one document")
                        .help("put it into a file of its own and name both files, or their directory"));
                }
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::MappingStart(..)
                | Event::Alias(_)
                | Event::SequenceEnd
                | Event::MappingEnd => root = Some(self.node(event, span, 0)?),
            }
        }
        let empty = || Node { span: Span::beginning(self.source), value: Value::Map(Map::default()) };
        Ok(root.filter(|node| !matches!(node.value, Value::Null)).unwrap_or_else(empty))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Diagnostic> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let span =
                    Span { source: Arc::clone(self.source), start: position(&span.start), end: position(&span.end) };
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::beginning(self.source))),
        }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let mut start = position(error.marker());
        // The end of a file is shown behind its last line.
        let lines = self.source.text.lines().count();
        if start.line > lines {
            let last = self.source.text.lines().last().map_or(0, |line| line.chars().count());
            start = Position { line: lines, column: last + 1 };
        }
        let span = Span { source: Arc::clone(self.source), start, end: start };
        let help = match error.info() {
            info if info.contains("mapping values are not allowed") => {
                Some("a value that contains `: ` needs quotes, and keys of one mapping begin in one column")
            }
            info if info.contains("tabs disallowed") => Some("indent with spaces"),
            info if info.contains("unexpected character") => {
                Some("a value that begins with this character needs quotes")
            }
            info if info.contains("quoted scalar") => Some("is a closing quote missing?"),
            info if info.contains("indentation") || info.contains("did not find") => {
                Some("is a bracket, brace or quote above not closed?")
            }
            info if info.contains("anchor") => Some("define it earlier with `&name`, or put a `*` in quotes"),
            _ => None,
        };
        let message = format!("`{}` is not valid YAML", self.source.name);
        Diagnostic::error(message).at(&span, error.info()).maybe_help(help.map(str::to_owned))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(Diagnostic::error(format!("values are nested more than {MAX_DEPTH} deep")).at(&span, ""));
        }
        let before = self.nodes;
        self.nodes += 1;
        let (anchor, tag, node) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, tag, Node { value: scalar(&text, style), span }),
            Event::SequenceStart(anchor, tag) => (anchor, tag, self.list(span, depth)?),
            Event::MappingStart(anchor, tag) => (anchor, tag, self.mapping(span, depth)?),
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Diagnostic::error("a value is missing").at(&span, "")),
        };
        if let Some(tag) = tag {
            let problem = Diagnostic::error(format!("the YAML tag `{}` means nothing here", tag.suffix));
            self.problems.push(problem.at(&node.span, "").help("quote a value to make it a string"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Diagnostic> {
        let Some((node, nodes)) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::error("an alias refers to a value that contains it").at(&span, ""));
        };
        self.nodes += nodes;
        self.repeated += nodes;
        if self.repeated > MAX_REPEATED {
            return Err(Diagnostic::error(format!("aliases repeat more than {MAX_REPEATED} values")).at(&span, ""));
        }
        Ok(Node { span, value: node.value.clone() })
    }

    fn list(&mut self, mut span: Span, depth: usize) -> Result<Node, Diagnostic> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                span.end = at.end;
                return Ok(Node { span, value: Value::List(items) });
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn mapping(&mut self, mut span: Span, depth: usize) -> Result<Node, Diagnostic> {
        let mut map = Map::default();
        // A hundred thousand routes must not be compared with one another.
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                span.end = at.end;
                return Ok(Node { span, value: Value::Map(map) });
            }
            let key = self.key(event, at)?;
            let (event, at) = self.next()?;
            let node = self.node(event, at, depth + 1)?;
            if let Some(first) = seen.get(&key.name) {
                self.problems.push(twice(&key, first));
            } else {
                seen.insert(key.name.clone(), key.span.clone());
                map.entries.push((key, node));
            }
        }
    }

    fn key(&mut self, event: Event<'a>, span: Span) -> Result<Key, Diagnostic> {
        match event {
            Event::Scalar(name, ScalarStyle::Plain, ..) if name == "<<" => {
                Err(Diagnostic::error("merge keys (`<<`) are not supported")
                    .at(&span, "")
                    .help("`policies:` share filters, and an alias (`*name`) repeats a whole value"))
            }
            Event::Scalar(name, ..) => Ok(Key { name: name.into_owned(), span }),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::Alias(_)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => Err(Diagnostic::error("a key is a string").at(&span, "this is not one")),
        }
    }
}

/// The same key in the same mapping, or the same name in two files.
pub(crate) fn twice(second: &Key, first: &Span) -> Diagnostic {
    Diagnostic::error(format!("`{}` is defined twice", second.name))
        .at(&second.span, "defined again here")
        .at(first, "first defined here")
        .help("remove or rename one of them")
}

fn position(marker: &saphyr_parser::Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

/// The core schema of YAML 1.2 (§10.3.2): `no` and `on` are strings.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(Text { text: text.to_owned(), origin: Origin::Written });
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text)
            .map_or_else(|| Value::Text(Text { text: text.to_owned(), origin: Origin::Written }), Value::Number),
    }
}

fn number(text: &str) -> Option<serde_json::Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Into::into);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Into::into);
    }
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
    if !text.chars().all(numeric) || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let integer = text.parse::<u64>().map(Into::into).or_else(|_| text.parse::<i64>().map(Into::into));
    integer.ok().or_else(|| serde_json::Number::from_f64(text.parse().ok()?))
}
