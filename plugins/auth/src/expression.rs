//! Conditions of rules, in a part of CEL, evaluated here: with whatever claims there are, and the same on every host.
//!
//! Hosts have CEL too (`expr_create`), but a module can show them texts only, not the lists and objects of a token, and is not told what is wrong
//! with an expression. What there is means what CEL says of it, errors included: a claim that is not there is an error, and so
//! is what is made of it, unless `&&` or `||` can be decided without.

mod parse;

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

pub(crate) use parse::parse;

/// What evaluating may take: an expression can loop over a list within a list, and clients bring the lists.
const MAX_STEPS: u32 = 20_000;

/// An expression whose names are all known.
#[derive(Debug, PartialEq)]
pub(crate) enum Expression {
    Literal(Literal),
    Claims,
    Captures,
    Request(Field),
    /// A variable of a loop, by how many loops are around the one it belongs to.
    Variable(usize),
    List(Vec<Expression>),
    Select(Box<Expression>, String),
    Index(Box<[Expression; 2]>),
    Has(Box<Expression>, String),
    Size(Box<Expression>),
    Not(Box<Expression>),
    Or(Box<[Expression; 2]>),
    And(Box<[Expression; 2]>),
    Binary(Operator, Box<[Expression; 2]>),
    Choice(Box<[Expression; 3]>),
    Loop(Quantifier, Box<[Expression; 2]>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Truth(bool),
    Number(f64),
    Text(String),
}

/// What there is of a request, by Envoy's names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Method,
    Path,
    UrlPath,
    Query,
    Host,
    Headers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Plus,
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantifier {
    All,
    Exists,
}

/// What an expression is evaluated with.
pub(crate) struct Scope<'a> {
    pub(crate) claims: &'a Map<String, Value>,
    /// What the rule's path has in braces, by name.
    pub(crate) captures: &'a [(String, String)],
    pub(crate) header: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// A value; borrowed wherever it can be.
#[derive(Clone)]
enum Item<'a> {
    Null,
    Truth(bool),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Item<'a>>),
    Array(&'a [Value]),
    Object(&'a Map<String, Value>),
    Captures,
    Headers,
}

/// There is no value: something is not there, or not of the kind it would have to be, or takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoValue;

type Evaluated<'a> = Result<Item<'a>, NoValue>;

impl Expression {
    /// Whether it is true; what has no value is not.
    pub(crate) fn holds<'a>(&'a self, scope: &Scope<'a>) -> bool {
        let mut run = Run { scope, variables: Vec::new(), steps: MAX_STEPS };
        matches!(run.value(self), Ok(Item::Truth(true)))
    }
}

/// One evaluation.
struct Run<'a, 's> {
    scope: &'s Scope<'a>,
    /// Of the loops that run, the innermost last.
    variables: Vec<Item<'a>>,
    steps: u32,
}

impl<'a> Run<'a, '_> {
    fn value(&mut self, expression: &'a Expression) -> Evaluated<'a> {
        self.steps = self.steps.checked_sub(1).ok_or(NoValue)?;
        match expression {
            Expression::Literal(literal) => Ok(Item::from(literal)),
            Expression::Claims => Ok(Item::Object(self.scope.claims)),
            Expression::Captures => Ok(Item::Captures),
            Expression::Request(field) => self.field(*field),
            Expression::Variable(at) => self.variables.get(*at).cloned().ok_or(NoValue),
            Expression::List(items) => {
                Ok(Item::List(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?))
            }
            Expression::Select(of, name) => {
                let of = self.value(of)?;
                self.member(&of, name)
            }
            Expression::Index(parts) => {
                let [of, index] = parts.as_ref();
                let (of, index) = (self.value(of)?, self.value(index)?);
                self.indexed(&of, &index)
            }
            Expression::Has(of, name) => {
                let of = self.value(of)?;
                Ok(Item::Truth(self.member(&of, name).is_ok()))
            }
            Expression::Size(of) => size(&self.value(of)?),
            Expression::Not(of) => Ok(Item::Truth(!truth(self.value(of))?)),
            Expression::Or(parts) => self.decided(true, parts),
            Expression::And(parts) => self.decided(false, parts),
            Expression::Binary(operator, parts) => {
                let [left, right] = parts.as_ref();
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(*operator, left, right)
            }
            Expression::Choice(parts) => {
                let [condition, yes, no] = parts.as_ref();
                if truth(self.value(condition))? { self.value(yes) } else { self.value(no) }
            }
            Expression::Loop(quantifier, parts) => {
                let [of, each] = parts.as_ref();
                let of = self.value(of)?;
                self.loops(*quantifier, &of, each)
            }
        }
    }

    fn field(&self, field: Field) -> Evaluated<'a> {
        let header = |name| (self.scope.header)(name).ok_or(NoValue);
        Ok(Item::text(match field {
            Field::Headers => return Ok(Item::Headers),
            Field::Method => header(":method")?,
            Field::Host => header(":authority")?,
            Field::Path => header(":path")?,
            Field::UrlPath => header(":path")?.split(['?', '#']).next().unwrap_or_default(),
            Field::Query => {
                let query = header(":path")?.split_once('?').map_or("", |(_, query)| query);
                query.split('#').next().unwrap_or_default()
            }
        }))
    }

    fn member(&self, of: &Item<'a>, name: &str) -> Evaluated<'a> {
        match of {
            Item::Object(map) => map.get(name).map(Item::from).ok_or(NoValue),
            Item::Captures => {
                let named = self.scope.captures.iter().find(|(own, _)| *own == name);
                named.map(|(_, value)| Item::text(value)).ok_or(NoValue)
            }
            Item::Headers => (self.scope.header)(name).map(Item::text).ok_or(NoValue),
            Item::Null | Item::Truth(_) | Item::Number(_) | Item::Text(_) | Item::List(_) | Item::Array(_) => {
                Err(NoValue)
            }
        }
    }

    fn indexed(&self, of: &Item<'a>, index: &Item<'a>) -> Evaluated<'a> {
        match index {
            Item::Text(name) => self.member(of, name),
            Item::Number(at) => {
                let at = whole(*at)?;
                items(of)?.into_iter().nth(at).ok_or(NoValue)
            }
            Item::Null
            | Item::Truth(_)
            | Item::List(_)
            | Item::Array(_)
            | Item::Object(_)
            | Item::Captures
            | Item::Headers => Err(NoValue),
        }
    }

    /// `||` or `&&`, which one side can decide alone, whatever the other is.
    fn decided(&mut self, by: bool, parts: &'a [Expression; 2]) -> Evaluated<'a> {
        let [left, right] = parts;
        let left = truth(self.value(left));
        if left == Ok(by) {
            return Ok(Item::Truth(by));
        }
        match (left, truth(self.value(right))) {
            (_, Ok(right)) if right == by => Ok(Item::Truth(by)),
            (Ok(_), Ok(_)) => Ok(Item::Truth(!by)),
            (Err(NoValue), _) | (_, Err(NoValue)) => Err(NoValue),
        }
    }

    fn binary(&mut self, operator: Operator, left: Item<'a>, right: Item<'a>) -> Evaluated<'a> {
        let texts = |fits: fn(&str, &str) -> bool| match (&left, &right) {
            (Item::Text(left), Item::Text(right)) => Ok(Item::Truth(fits(left, right))),
            _ => Err(NoValue),
        };
        let ordered = |fits: fn(Ordering) -> bool| order(&left, &right).map(|order| Item::Truth(fits(order)));
        match operator {
            Operator::Equal => self.equal(&left, &right).map(Item::Truth),
            Operator::Unequal => self.equal(&left, &right).map(|equal| Item::Truth(!equal)),
            Operator::In => self.is_in(&left, &right).map(Item::Truth),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::StartsWith => texts(|text, part| text.starts_with(part)),
            Operator::EndsWith => texts(|text, part| text.ends_with(part)),
            Operator::Contains => texts(|text, part| text.contains(part)),
            Operator::Plus => match (left, right) {
                (Item::Number(left), Item::Number(right)) => Ok(Item::Number(left + right)),
                (Item::Text(left), Item::Text(right)) => Ok(Item::Text(left + right)),
                _ => Err(NoValue),
            },
        }
    }

    /// Values of two kinds are not equal, but for that there is no order between them.
    fn equal(&mut self, left: &Item<'a>, right: &Item<'a>) -> Result<bool, NoValue> {
        self.steps = self.steps.checked_sub(1).ok_or(NoValue)?;
        match (left, right) {
            (Item::Null, Item::Null) => Ok(true),
            (Item::Truth(left), Item::Truth(right)) => Ok(left == right),
            (Item::Number(_), Item::Number(_)) | (Item::Text(_), Item::Text(_)) => {
                Ok(order(left, right).is_ok_and(Ordering::is_eq))
            }
            (Item::List(_) | Item::Array(_), Item::List(_) | Item::Array(_)) => {
                let (left, right) = (items(left)?, items(right)?);
                let mut same = left.len() == right.len();
                for (left, right) in left.iter().zip(&right) {
                    same = same && self.equal(left, right)?;
                }
                Ok(same)
            }
            (Item::Object(left), Item::Object(right)) => Ok(left == right),
            _ => Ok(false),
        }
    }

    fn is_in(&mut self, item: &Item<'a>, of: &Item<'a>) -> Result<bool, NoValue> {
        if let (Item::Text(name), Item::Object(_) | Item::Captures | Item::Headers) = (item, of) {
            return Ok(self.member(of, name).is_ok());
        }
        for own in items(of)? {
            if self.equal(&own, item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As `&&` or `||` over all items.
    fn loops(&mut self, quantifier: Quantifier, of: &Item<'a>, each: &'a Expression) -> Evaluated<'a> {
        let decides = quantifier == Quantifier::Exists;
        let mut outcome = Ok(Item::Truth(!decides));
        for item in items(of)? {
            self.variables.push(item);
            let holds = truth(self.value(each));
            self.variables.pop();
            match holds {
                Ok(holds) if holds == decides => return Ok(Item::Truth(decides)),
                Ok(_) => {}
                Err(NoValue) => outcome = Err(NoValue),
            }
        }
        outcome
    }
}

impl<'a> Item<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a Literal> for Item<'a> {
    fn from(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Truth(truth) => Self::Truth(*truth),
            Literal::Number(number) => Self::Number(*number),
            Literal::Text(text) => Self::text(text),
        }
    }
}

impl<'a> From<&'a Value> for Item<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Truth(*truth),
            Value::Number(number) => number.as_f64().map_or(Self::Null, Self::Number),
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::Array(items),
            Value::Object(map) => Self::Object(map),
        }
    }
}

fn truth(of: Evaluated<'_>) -> Result<bool, NoValue> {
    match of? {
        Item::Truth(truth) => Ok(truth),
        Item::Null
        | Item::Number(_)
        | Item::Text(_)
        | Item::List(_)
        | Item::Array(_)
        | Item::Object(_)
        | Item::Captures
        | Item::Headers => Err(NoValue),
    }
}

/// The items of a list; of a map, its keys.
fn items<'a>(of: &Item<'a>) -> Result<Vec<Item<'a>>, NoValue> {
    match of {
        Item::List(items) => Ok(items.clone()),
        Item::Array(values) => Ok(values.iter().map(Item::from).collect()),
        Item::Object(map) => Ok(map.keys().map(|key| Item::text(key)).collect()),
        Item::Null | Item::Truth(_) | Item::Number(_) | Item::Text(_) | Item::Captures | Item::Headers => Err(NoValue),
    }
}

fn size<'a>(of: &Item<'a>) -> Evaluated<'a> {
    let size = match of {
        Item::Text(text) => text.chars().count(),
        Item::List(_) | Item::Array(_) | Item::Object(_) => items(of)?.len(),
        Item::Null | Item::Truth(_) | Item::Number(_) | Item::Captures | Item::Headers => return Err(NoValue),
    };
    u32::try_from(size).map(|size| Item::Number(f64::from(size))).map_err(|_| NoValue)
}

/// A number as the place of an item.
fn whole(number: f64) -> Result<usize, NoValue> {
    (0..=1024).find(|place: &u16| f64::from(*place) == number).map(usize::from).ok_or(NoValue)
}

fn order(left: &Item<'_>, right: &Item<'_>) -> Result<Ordering, NoValue> {
    match (left, right) {
        (Item::Number(left), Item::Number(right)) => left.partial_cmp(right).ok_or(NoValue),
        (Item::Text(left), Item::Text(right)) => Ok(left.cmp(right)),
        _ => Err(NoValue),
    }
}

#[cfg(test)]
mod tests;
