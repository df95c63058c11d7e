//! A query's text, read.

use serde_json::{Number, Value};

use super::{Comparison, Extent, From, Inner, Logical, Operand, Pattern, Query, Reach, Segment, Selector};
use crate::condition::pattern;

/// How deep filters and parentheses may be nested.
const MAX_DEPTH: usize = 32;

/// I-JSON's integers (RFC 7493 §2.2).
const MAX_INTEGER: i64 = (1 << 53) - 1;

type Read<T> = Result<T, String>;

impl Query {
    /// # Errors
    /// What is wrong, and at which character.
    pub(crate) fn parse(text: &str) -> Read<Self> {
        let mut reader = Reader { text, rest: text, depth: 0 };
        if !reader.take("$") {
            return Err(reader.error("a query begins with `$`"));
        }
        let segments = reader.segments()?;
        if reader.rest.is_empty() { Ok(Self(segments)) } else { Err(reader.error("expected `.` or `[`")) }
    }
}

struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
    depth: usize,
}

/// What stands in a filter before it is known what for.
enum Term {
    Operand(Operand),
    Test(Logical),
}

impl<'t> Reader<'t> {
    fn error(&self, why: &str) -> String {
        let read = self.text.len().saturating_sub(self.rest.len());
        let at = self.text.get(..read).map_or(0, |read| read.chars().count()) + 1;
        format!("`{}`, character {at}: {why}", self.text)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Read<()> {
        if self.take(text) { Ok(()) } else { Err(self.error(&format!("expected `{text}`"))) }
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|char| !fits(char)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn blanks(&mut self) {
        self.take_while(|char| matches!(char, ' ' | '\t' | '\n' | '\r'));
    }

    fn segments(&mut self) -> Read<Vec<Segment>> {
        let mut segments = Vec::new();
        loop {
            let before = self.rest;
            self.blanks();
            let reach = if self.take("..") { Reach::Descendants } else { Reach::Children };
            let dotted = reach == Reach::Descendants || self.take(".");
            let selectors = match self.peek() {
                Some('[') if !dotted || reach == Reach::Descendants => self.bracketed()?,
                Some('*') if dotted => {
                    self.take("*");
                    vec![Selector::Wildcard]
                }
                Some(_) if dotted => vec![Selector::Name(self.short_name()?)],
                None if dotted => return Err(self.error("expected a name")),
                _ => {
                    // Blanks that nothing follows are not the query's.
                    self.rest = before;
                    return Ok(segments);
                }
            };
            segments.push(Segment { reach, selectors });
        }
    }

    fn short_name(&mut self) -> Read<String> {
        let starts = |char: char| char.is_ascii_alphabetic() || char == '_' || !char.is_ascii();
        if !self.peek().is_some_and(starts) {
            return Err(self.error("expected a name; others than plain words stand in `['…']`"));
        }
        Ok(self.take_while(|char| starts(char) || char.is_ascii_digit()).to_owned())
    }

    fn bracketed(&mut self) -> Read<Vec<Selector>> {
        self.expect("[")?;
        let mut selectors = Vec::new();
        loop {
            self.blanks();
            selectors.push(self.selector()?);
            self.blanks();
            if self.take("]") {
                return Ok(selectors);
            }
            self.expect(",")?;
        }
    }

    fn selector(&mut self) -> Read<Selector> {
        match self.peek() {
            Some('\'' | '"') => self.string().map(Selector::Name),
            Some('*') => {
                self.take("*");
                Ok(Selector::Wildcard)
            }
            Some('?') => {
                self.take("?");
                self.blanks();
                self.or().map(Selector::Filter)
            }
            _ => self.index_or_slice(),
        }
    }

    fn index_or_slice(&mut self) -> Read<Selector> {
        let start = self.integer()?;
        let after_start = self.rest;
        self.blanks();
        if !self.take(":") {
            self.rest = after_start;
            return start.map(Selector::Index).ok_or_else(|| self.error("expected a name, a number, `*`, `?` or `:`"));
        }
        self.blanks();
        let end = self.integer()?;
        let after_end = self.rest;
        self.blanks();
        let step = if self.take(":") {
            let after_colon = self.rest;
            self.blanks();
            let step = self.integer()?;
            if step.is_none() {
                self.rest = after_colon;
            }
            step
        } else {
            self.rest = after_end;
            None
        };
        Ok(Selector::Slice { start, end, step: step.unwrap_or(1) })
    }

    fn integer(&mut self) -> Read<Option<i64>> {
        let before = self.rest;
        let minus = self.take("-");
        let digits = self.take_while(|char| char.is_ascii_digit());
        if digits.is_empty() && !minus {
            return Ok(None);
        }
        let plain = digits == "0" && !minus || !digits.starts_with('0') && !digits.is_empty();
        let number = digits.parse::<i64>().ok().filter(|number| plain && *number <= MAX_INTEGER);
        match number {
            Some(number) => Ok(Some(if minus { -number } else { number })),
            None => {
                self.rest = before;
                Err(self.error("not an integer of JSONPath"))
            }
        }
    }

    fn string(&mut self) -> Read<String> {
        let start = self.rest;
        let quote = if self.take("'") { '\'' } else { self.expect("\"").map(|()| '"')? };
        let mut text = String::new();
        loop {
            let Some(char) = self.peek() else {
                self.rest = start;
                return Err(self.error("the quote is not closed"));
            };
            self.rest = self.rest.get(char.len_utf8()..).unwrap_or_default();
            match char {
                _ if char == quote => return Ok(text),
                '\\' => text.push(self.escaped(quote)?),
                '\0'..='\u{1f}' => return Err(self.error("a control character stands in a name")),
                _ => text.push(char),
            }
        }
    }

    fn escaped(&mut self, quote: char) -> Read<char> {
        let wrong = self.error("no such escape");
        let char = self.peek().ok_or_else(|| wrong.clone())?;
        self.rest = self.rest.get(char.len_utf8()..).unwrap_or_default();
        match char {
            'b' => Ok('\u{8}'),
            't' => Ok('\t'),
            'n' => Ok('\n'),
            'f' => Ok('\u{c}'),
            'r' => Ok('\r'),
            '/' | '\\' => Ok(char),
            _ if char == quote => Ok(quote),
            'u' => {
                let first = self.hex().ok_or_else(|| wrong.clone())?;
                let code = match first {
                    0xd800..0xdc00 if self.take("\\u") => {
                        let second = self.hex().filter(|second| (0xdc00..0xe000).contains(second));
                        0x10000 + ((first - 0xd800) << 10) + (second.ok_or_else(|| wrong.clone())? - 0xdc00)
                    }
                    _ => first,
                };
                char::from_u32(code).ok_or(wrong)
            }
            _ => Err(wrong),
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.rest = self.rest.get(4..).unwrap_or_default();
        u32::from_str_radix(digits, 16).ok()
    }

    fn or(&mut self) -> Read<Logical> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let any = self.joined("||", Self::and)?;
        self.depth -= 1;
        Ok(if any.len() == 1 { any.into_iter().next().unwrap_or(Logical::Or(Vec::new())) } else { Logical::Or(any) })
    }

    fn and(&mut self) -> Read<Logical> {
        let all = self.joined("&&", Self::basic)?;
        Ok(if all.len() == 1 { all.into_iter().next().unwrap_or(Logical::And(Vec::new())) } else { Logical::And(all) })
    }

    fn joined(&mut self, by: &str, part: impl Fn(&mut Self) -> Read<Logical>) -> Read<Vec<Logical>> {
        let mut parts = vec![part(self)?];
        loop {
            let before = self.rest;
            self.blanks();
            if !self.take(by) {
                self.rest = before;
                return Ok(parts);
            }
            self.blanks();
            parts.push(part(self)?);
        }
    }

    fn basic(&mut self) -> Read<Logical> {
        let not = self.take("!");
        self.blanks();
        let inner = if self.take("(") {
            self.blanks();
            let inner = self.or()?;
            self.blanks();
            self.expect(")")?;
            inner
        } else {
            match self.term()? {
                Term::Test(test) => test,
                Term::Operand(operand) => self.comparison(operand, not)?,
            }
        };
        Ok(if not { Logical::Not(Box::new(inner)) } else { inner })
    }

    /// What an operand is for: to be compared, or, if it is a query, to be there.
    fn comparison(&mut self, left: Operand, not: bool) -> Read<Logical> {
        const COMPARISONS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let before = self.rest;
        self.blanks();
        let comparison = COMPARISONS.iter().find(|(text, _)| !not && self.take(text));
        let Some((_, comparison)) = comparison else {
            self.rest = before;
            return match left {
                Operand::Query(query) => Ok(Logical::Exists(query)),
                Operand::Literal(_) | Operand::Length(_) | Operand::Count(_) | Operand::Value(_) => {
                    Err(self.error("expected a comparison"))
                }
            };
        };
        let left = self.single(left)?;
        self.blanks();
        match self.term()? {
            Term::Operand(right) => Ok(Logical::Compare(left, *comparison, self.single(right)?)),
            Term::Test(_) => Err(self.error("a test cannot be compared")),
        }
    }

    /// An operand that is one value at most.
    fn single(&self, operand: Operand) -> Read<Operand> {
        let single = |segment: &Segment| {
            segment.reach == Reach::Children
                && matches!(segment.selectors.as_slice(), [Selector::Name(_) | Selector::Index(_)])
        };
        if let Operand::Query(query) = &operand
            && !query.segments.iter().all(single)
        {
            return Err(self.error("a query that may find several values cannot be compared"));
        }
        Ok(operand)
    }

    fn term(&mut self) -> Read<Term> {
        let literal = |value| Ok(Term::Operand(Operand::Literal(value)));
        match self.peek() {
            Some('@' | '$') => self.query().map(|query| Term::Operand(Operand::Query(query))),
            Some('\'' | '"') => literal(Value::String(self.string()?)),
            Some('-' | '0'..='9') => literal(self.number()?),
            Some('a'..='z') => {
                let word = self.take_while(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
                if self.take("(") {
                    return self.call(word);
                }
                match word {
                    "true" => literal(Value::Bool(true)),
                    "false" => literal(Value::Bool(false)),
                    "null" => literal(Value::Null),
                    _ => Err(self.error("expected a query, a literal or a function")),
                }
            }
            _ => Err(self.error("expected a query, a literal or a function")),
        }
    }

    fn query(&mut self) -> Read<Inner> {
        let from = if self.take("@") { From::Current } else { self.expect("$").map(|()| From::Root)? };
        Ok(Inner { from, segments: self.segments()? })
    }

    fn number(&mut self) -> Read<Value> {
        let start = self.rest;
        self.take("-");
        let whole = self.take_while(|char| char.is_ascii_digit());
        let mut fits = whole == "0" || !whole.starts_with('0') && !whole.is_empty();
        if self.take(".") {
            fits &= !self.take_while(|char| char.is_ascii_digit()).is_empty();
        }
        if self.take("e") || self.take("E") {
            _ = self.take("-") || self.take("+");
            fits &= !self.take_while(|char| char.is_ascii_digit()).is_empty();
        }
        let text = start.get(..start.len().saturating_sub(self.rest.len())).unwrap_or_default();
        match text.parse::<Number>() {
            Ok(number) if fits => Ok(Value::Number(number)),
            _ => Err(self.error("not a number of JSON")),
        }
    }

    fn call(&mut self, name: &str) -> Read<Term> {
        self.blanks();
        let operand = |operand| Ok(Term::Operand(operand));
        let term = match name {
            "length" => operand(Operand::Length(Box::new(self.value_argument()?))),
            "count" => operand(Operand::Count(self.query()?)),
            "value" => operand(Operand::Value(self.query()?)),
            "match" | "search" => {
                let text = self.value_argument()?;
                self.blanks();
                self.expect(",")?;
                self.blanks();
                let extent = if name == "match" { Extent::Whole } else { Extent::Part };
                let wanted = self.value_argument()?;
                let pattern = if let Operand::Literal(Value::String(text)) = &wanted {
                    Pattern::Fixed(pattern(&extent.of(text)).map_err(|why| self.error(&why))?)
                } else {
                    Pattern::Found(Box::new(wanted), extent)
                };
                Ok(Term::Test(Logical::Matches(Box::new(text), pattern)))
            }
            _ => Err(self.error(&format!("`{name}` is no function; write length, count, value, match or search"))),
        }?;
        self.blanks();
        self.expect(")")?;
        Ok(term)
    }

    fn value_argument(&mut self) -> Read<Operand> {
        match self.term()? {
            Term::Operand(operand) => self.single(operand),
            Term::Test(_) => Err(self.error("a test is no value")),
        }
    }
}

impl Extent {
    /// A pattern of RFC 9485 as the regex crates write it: there, a dot matches carriage returns too.
    pub(super) fn of(self, text: &str) -> String {
        let mut made = String::with_capacity(text.len() + 8);
        let (mut in_class, mut escaped) = (false, false);
        for char in text.chars() {
            match char {
                '.' if !in_class && !escaped => made.push_str(r"[^\n\r]"),
                _ => made.push(char),
            }
            match char {
                '[' if !escaped => in_class = true,
                ']' if !escaped => in_class = false,
                _ => {}
            }
            escaped = char == '\\' && !escaped;
        }
        match self {
            Self::Whole => format!("^(?:{made})$"),
            Self::Part => made,
        }
    }
}
