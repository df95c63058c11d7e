//! Who may do what: a small table of methods and paths, and the scopes and roles they need.

use plugin_common::pattern::{Captures, Pattern};
use portcullis_sdk::Config;
use serde_json::{Map, Value};

use crate::credentials::Credentials;
use crate::expression::{self, Expression, Scope};
use crate::identity::Identity;
use crate::refusal::Refusal;

/// A row of the table. The first that fits a request is the one that counts.
#[derive(Config, Debug)]
pub(crate) struct Rule {
    /// Of these methods; any, if there are none.
    #[serde(default)]
    methods: Vec<String>,
    /// Of this path: `{name}` is any one segment, `*` at the end any rest after the `/`, as in routes. Any path, if there is none.
    path: Option<String>,
    /// Scopes that are all needed.
    #[serde(default)]
    scopes: Vec<String>,
    /// Roles of which one is needed.
    #[serde(default)]
    roles: Vec<String>,
    /// A condition that has to hold, in CEL: `claims.tenant == captures.tenant`.
    when: Option<String>,
    /// Whether a request without credentials passes. One with wrong credentials does not.
    #[serde(default)]
    anonymous: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Needed by every request, anonymous ones excepted.
    pub(crate) scopes: Vec<String>,
    /// Empty: every request whose credentials are right passes.
    pub(crate) rules: Table,
    pub(crate) anonymous: bool,
}

/// Rows, of which each says what it is taken to say.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

/// A row whose path and condition have been read.
#[derive(Debug)]
struct Row {
    rule: Rule,
    path: Option<Pattern>,
    when: Option<Expression>,
}

/// What one request needs.
#[derive(Debug)]
pub(crate) struct Needs<'a> {
    /// Of every request, and of this one.
    scopes: [&'a [String]; 2],
    roles: &'a [String],
    when: Option<Condition<'a>>,
    pub(crate) anonymous: bool,
}

/// A condition, and what the row's path has in braces.
#[derive(Debug)]
struct Condition<'a> {
    expression: &'a Expression,
    captures: Captures,
}

impl Access {
    /// Finds what a request needs.
    ///
    /// # Errors
    /// There is a table, and it says nothing of such a request.
    pub(crate) fn needs(&self, method: &str, path: &str) -> Result<Needs<'_>, Refusal> {
        let Table(rows) = &self.rules;
        if rows.is_empty() {
            return Ok(Needs { scopes: [&self.scopes, &[]], roles: &[], when: None, anonymous: self.anonymous });
        }
        let mut fitting =
            rows.iter().filter(|row| row.is_for(method)).filter_map(|row| Some((row, row.captures(path)?)));
        let (Row { rule, when, .. }, captures) = fitting.next().ok_or(Refusal::NoRule)?;
        Ok(Needs {
            scopes: [&self.scopes, &rule.scopes],
            roles: &rule.roles,
            when: when.as_ref().map(|expression| Condition { expression, captures }),
            anonymous: self.anonymous || rule.anonymous,
        })
    }

    /// Whether a row looks at claims themselves.
    pub(crate) fn has_conditions(&self) -> bool {
        self.rules.0.iter().any(|row| row.when.is_some())
    }
}

impl Needs<'_> {
    /// Whether somebody has what is needed.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), Refusal> {
        if !self.scopes.into_iter().flatten().all(|scope| identity.scopes.contains(scope)) {
            return Err(Refusal::Scope);
        }
        if self.roles.is_empty() || self.roles.iter().any(|role| identity.roles.contains(role)) {
            Ok(())
        } else {
            Err(Refusal::Role)
        }
    }

    /// Whether the row's condition holds, for somebody with these claims.
    pub(crate) fn check_condition(
        &self,
        claims: &Map<String, Value>,
        credentials: &Credentials,
    ) -> Result<(), Refusal> {
        let Some(Condition { expression, captures }) = &self.when else { return Ok(()) };
        let holds = expression.holds(&Scope { claims, captures, header: &|name| credentials.text(name) });
        if holds { Ok(()) } else { Err(Refusal::Condition) }
    }

    /// The scopes that are needed, each once.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let [of_all, own] = self.scopes;
        of_all.iter().chain(own.iter().filter(|scope| !of_all.contains(scope))).cloned().collect()
    }
}

impl Table {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(rules: Vec<Rule>) -> Result<Self, String> {
        let rows = rules.into_iter().enumerate();
        let rows = rows.map(|(at, rule)| rule.checked().map_err(|why| format!("rules[{at}]: {why}")));
        let table = Self(rows.collect::<Result<_, _>>()?);
        table.0.iter().enumerate().try_for_each(|(at, row)| table.check_rest(at, row))?;
        Ok(table)
    }

    /// `/orders/*` is not for `/orders`, as people may think it is. Where a later row would let such requests through on other terms,
    /// they have to say what they mean.
    fn check_rest(&self, at: usize, row: &Row) -> Result<(), String> {
        let Some(bare) = row.path.as_ref().and_then(Pattern::without_rest) else { return Ok(()) };
        // A method that no row names stands for all of those.
        let named = self.0.iter().flat_map(|row| row.rule.methods.iter().map(String::as_str));
        let methods = named.chain([""]).filter(|method| row.is_for(method));
        let covers = |path: &Option<Pattern>| path.as_ref().is_none_or(|path| path.covers(&bare));
        for method in methods {
            let decides = |(_, row): &(usize, &Row)| row.is_for(method) && covers(&row.path);
            let Some((other, decides)) = self.0.iter().enumerate().find(decides) else { continue };
            let is_meant = decides.path.as_ref().is_some_and(|path| path.precedence(&bare).is_eq());
            if other > at && !is_meant {
                let path = row.rule.path.as_deref().unwrap_or_default();
                let bare = path.trim_end_matches("/*");
                return Err(format!(
                    "rules[{at}]: `{path}` is not for `{bare}`, which rules[{other}] decides; say in a row for `{bare}` before that what it needs"
                ));
            }
        }
        Ok(())
    }
}

impl Row {
    fn is_for(&self, method: &str) -> bool {
        self.rule.methods.is_empty() || self.rule.methods.iter().any(|own| own == method)
    }

    /// What the names in its path stand for; nothing where the path is another one.
    fn captures(&self, path: &str) -> Option<Captures> {
        self.path.as_ref().map_or_else(|| Some(Captures::new()), |pattern| pattern.captures(path))
    }
}

impl Rule {
    fn checked(self) -> Result<Row, String> {
        let path = self.path.as_deref().map(Pattern::parse).transpose()?;
        let upper = |method: &String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if let Some(method) = self.methods.iter().find(|method| !upper(method)) {
            return Err(format!("`{method}` is not a method in upper case"));
        }
        check_scopes(&self.scopes)?;
        let when = self.when.as_deref().map(expression::parse).transpose().map_err(|why| format!("`when`: {why}"))?;
        Ok(Row { rule: self, path, when })
    }
}

/// Scopes are words (RFC 6749 §3.3); they are quoted in `WWW-Authenticate`.
///
/// # Errors
/// The one that is none.
pub(crate) fn check_scopes(scopes: &[String]) -> Result<(), String> {
    let token = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    match scopes.iter().find(|scope| scope.is_empty() || !scope.bytes().all(token)) {
        Some(scope) => Err(format!("`{scope}` is not a scope")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
