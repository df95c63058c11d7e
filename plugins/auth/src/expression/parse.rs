//! Text to expression: a part of the grammar of CEL, read by precedence.

use super::{Expression, Field, Literal, Operator, Quantifier};

/// The longest text, and how deep it may go: each level takes stack.
const MAX_BYTES: usize = 4096;
const MAX_DEPTH: usize = 32;

/// Operators between two operands, the loosest first; those of one row are read from left to right.
const LEVELS: [&[&str]; 4] = [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+"]];

/// What stands between words. The longer ones come first.
const MARKS: [&str; 20] =
    ["||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "!", "-", "?", ":", "(", ")", "[", "]", ",", ".", "*"];

const METHODS: [(&str, Operator); 3] =
    [("startsWith", Operator::StartsWith), ("endsWith", Operator::EndsWith), ("contains", Operator::Contains)];

const FIELDS: [(&str, Field); 6] = [
    ("method", Field::Method),
    ("path", Field::Path),
    ("url_path", Field::UrlPath),
    ("query", Field::Query),
    ("host", Field::Host),
    ("headers", Field::Headers),
];

/// Reads an expression.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn parse(text: &str) -> Result<Expression, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the expression has more than {MAX_BYTES} bytes"));
    }
    let mut parser = Parser { text, tokens: tokens(text)?, at: 0, variables: Vec::new(), depth: 0 };
    let expression = parser.choice()?;
    if parser.peek() == &Token::End { Ok(expression) } else { Err(parser.wrong("an operator or the end")) }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Number(f64),
    Text(String),
    Mark(&'static str),
    End,
}

struct Parser<'t> {
    text: &'t str,
    /// With where each begins; the last is the end.
    tokens: Vec<(usize, Token)>,
    at: usize,
    /// Of the loops around, the innermost last.
    variables: Vec<String>,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    /// Takes a mark, or the word `in`, if it is next.
    fn takes(&mut self, mark: &str) -> bool {
        let is_it = match self.peek() {
            Token::Mark(own) => *own == mark,
            Token::Word(word) => word == mark && mark == "in",
            Token::Number(_) | Token::Text(_) | Token::End => false,
        };
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, mark: &str) -> Result<(), String> {
        if self.takes(mark) { Ok(()) } else { Err(self.wrong(&format!("`{mark}`"))) }
    }

    fn wrong(&self, wanted: &str) -> String {
        let start = self.tokens.get(self.at).map_or(self.text.len(), |(start, _)| *start);
        let found = self.text.get(start..).unwrap_or_default();
        let found: String = found.chars().take(12).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        format!("at character {}: {wanted} was expected, not {found}", start + 1)
    }

    fn choice(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is more than {MAX_DEPTH} levels deep"));
        }
        let condition = self.operation(&LEVELS)?;
        let expression = if self.takes("?") {
            let yes = self.choice()?;
            self.expect(":")?;
            Expression::Choice(Box::new([condition, yes, self.choice()?]))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn operation(&mut self, levels: &[&[&'static str]]) -> Result<Expression, String> {
        let Some((own, tighter)) = levels.split_first() else { return self.unary() };
        let mut left = self.operation(tighter)?;
        while let Some(mark) = own.iter().find(|mark| self.takes(mark)) {
            let parts = Box::new([left, self.operation(tighter)?]);
            left = match *mark {
                "||" => Expression::Or(parts),
                "&&" => Expression::And(parts),
                "==" => Expression::Binary(Operator::Equal, parts),
                "!=" => Expression::Binary(Operator::Unequal, parts),
                "<=" => Expression::Binary(Operator::LessOrEqual, parts),
                ">=" => Expression::Binary(Operator::GreaterOrEqual, parts),
                "<" => Expression::Binary(Operator::Less, parts),
                ">" => Expression::Binary(Operator::Greater, parts),
                "in" => Expression::Binary(Operator::In, parts),
                _ => Expression::Binary(Operator::Plus, parts),
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, String> {
        let mut negations = 0;
        while self.takes("!") {
            negations += 1;
        }
        if negations == 0 && self.takes("-") {
            return match self.next() {
                Token::Number(number) => Ok(Expression::Literal(Literal::Number(-number))),
                Token::Word(_) | Token::Text(_) | Token::Mark(_) | Token::End => {
                    self.at -= 1;
                    Err(self.wrong("a number"))
                }
            };
        }
        let operand = self.member()?;
        let is_negated = negations % 2 == 1;
        Ok(if is_negated { Expression::Not(Box::new(operand)) } else { operand })
    }

    fn member(&mut self) -> Result<Expression, String> {
        let mut expression = self.primary()?;
        loop {
            if self.takes(".") {
                let name = self.word("a name")?;
                expression = if self.takes("(") {
                    self.method(expression, &name)?
                } else {
                    Expression::Select(Box::new(expression), name)
                };
            } else if self.takes("[") {
                let index = self.choice()?;
                self.expect("]")?;
                expression = Expression::Index(Box::new([expression, index]));
            } else {
                return Ok(expression);
            }
        }
    }

    fn word(&mut self, wanted: &str) -> Result<String, String> {
        match self.next() {
            Token::Word(word) => Ok(word),
            Token::Number(_) | Token::Text(_) | Token::Mark(_) | Token::End => {
                self.at -= 1;
                Err(self.wrong(wanted))
            }
        }
    }

    /// What follows `of.name(`.
    fn method(&mut self, of: Expression, name: &str) -> Result<Expression, String> {
        let expression = match name {
            "size" => Expression::Size(Box::new(of)),
            "exists" | "all" => {
                let quantifier = if name == "all" { Quantifier::All } else { Quantifier::Exists };
                let variable = self.word("the name of a variable")?;
                self.expect(",")?;
                self.variables.push(variable);
                let each = self.choice()?;
                self.variables.pop();
                Expression::Loop(quantifier, Box::new([of, each]))
            }
            _ => {
                let known = METHODS.iter().find(|(own, _)| *own == name);
                let (_, operator) = known.ok_or_else(|| {
                    format!("there is no `{name}()`; there are startsWith, endsWith, contains, size, exists and all")
                })?;
                Expression::Binary(*operator, Box::new([of, self.choice()?]))
            }
        };
        self.expect(")")?;
        Ok(expression)
    }

    fn primary(&mut self) -> Result<Expression, String> {
        match self.next() {
            Token::Number(number) => Ok(Expression::Literal(Literal::Number(number))),
            Token::Text(text) => Ok(Expression::Literal(Literal::Text(text))),
            Token::Mark("(") => {
                let inner = self.choice()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Mark("[") => self.list(),
            Token::Word(word) => self.name(word),
            Token::Mark(_) | Token::End => {
                self.at -= 1;
                Err(self.wrong("a value"))
            }
        }
    }

    fn list(&mut self) -> Result<Expression, String> {
        let mut items = Vec::new();
        while !self.takes("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(self.choice()?);
        }
        Ok(Expression::List(items))
    }

    fn name(&mut self, name: String) -> Result<Expression, String> {
        if let Some(at) = self.variables.iter().rposition(|own| *own == name) {
            return Ok(Expression::Variable(at));
        }
        match name.as_str() {
            "true" | "false" => Ok(Expression::Literal(Literal::Truth(name == "true"))),
            "null" => Ok(Expression::Literal(Literal::Null)),
            "claims" => Ok(Expression::Claims),
            "captures" => Ok(Expression::Captures),
            "request" => {
                self.expect(".")?;
                let field = self.word("a field of the request")?;
                let known = FIELDS.iter().find(|(own, _)| *own == field);
                known.map(|(_, field)| Expression::Request(*field)).ok_or_else(|| {
                    format!("there is no `request.{field}`; there are method, path, url_path, query, host and headers")
                })
            }
            "size" if self.takes("(") => {
                let of = self.choice()?;
                self.expect(")")?;
                Ok(Expression::Size(Box::new(of)))
            }
            "has" if self.takes("(") => {
                let of = self.choice()?;
                self.expect(")")?;
                let Expression::Select(of, name) = of else {
                    return Err("`has()` is asked of a member, such as claims.email".to_owned());
                };
                Ok(Expression::Has(of, name))
            }
            _ => Err(format!("there is no `{name}`; there are claims, captures and request")),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let start = text.len() - rest.len();
        let length = match first {
            '\'' | '"' => {
                let (value, length) =
                    quoted(rest, first).ok_or_else(|| format!("at character {}: a text does not end", start + 1))?;
                tokens.push((start, Token::Text(value)));
                length
            }
            '0'..='9' => {
                let length = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
                let number = rest.get(..length).and_then(|digits| digits.parse().ok());
                tokens.push((
                    start,
                    Token::Number(number.ok_or_else(|| format!("at character {}: no number", start + 1))?),
                ));
                length
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let length =
                    rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
                tokens.push((start, Token::Word(rest.get(..length).unwrap_or_default().to_owned())));
                length
            }
            _ => {
                let mark = MARKS.iter().find(|mark| rest.starts_with(**mark));
                let mark = mark.ok_or_else(|| format!("at character {}: `{first}` means nothing here", start + 1))?;
                tokens.push((start, Token::Mark(mark)));
                mark.len()
            }
        };
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

/// A text in quotes, and how long it is with them. A backslash goes before a quote or a backslash.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => match letters.next()? {
                (_, escaped @ ('\\' | '\'' | '"')) => value.push(escaped),
                _ => return None,
            },
            end if end == quote => return Some((value, at + 1)),
            other => value.push(other),
        }
    }
    None
}
