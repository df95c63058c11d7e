//! Who may do what: a small table of methods and paths, and the scopes and roles they need.

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
    /// Of this path: `{name}` is any one segment, `*` at the end is the rest. Any path, if there is none.
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
    pub(crate) rules: Vec<Row>,
    pub(crate) anonymous: bool,
}

/// A row whose condition has been read.
#[derive(Debug)]
pub(crate) struct Row {
    rule: Rule,
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
    captures: Vec<(&'a str, &'a str)>,
}

impl Access {
    /// Finds what a request needs.
    ///
    /// # Errors
    /// There is a table, and it says nothing of such a request.
    pub(crate) fn needs<'a>(&'a self, method: &str, path: &'a str) -> Result<Needs<'a>, Refusal> {
        if self.rules.is_empty() {
            return Ok(Needs { scopes: [&self.scopes, &[]], roles: &[], when: None, anonymous: self.anonymous });
        }
        let Row { rule, when } = self.rules.iter().find(|row| row.rule.fits(method, path)).ok_or(Refusal::NoRule)?;
        let captures = || rule.path.as_ref().map(|pattern| captures(pattern, path)).unwrap_or_default();
        Ok(Needs {
            scopes: [&self.scopes, &rule.scopes],
            roles: &rule.roles,
            when: when.as_ref().map(|expression| Condition { expression, captures: captures() }),
            anonymous: self.anonymous || rule.anonymous,
        })
    }

    /// Whether a row looks at claims themselves.
    pub(crate) fn has_conditions(&self) -> bool {
        self.rules.iter().any(|row| row.when.is_some())
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

impl Rule {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Row, String> {
        if let Some(path) = &self.path {
            let star = path.find('*').is_none_or(|at| at + 1 == path.len() && path.ends_with("/*"));
            if !path.starts_with('/') || !star {
                return Err(format!("`{path}` is not a path such as /orders/{{id}} or /orders/*"));
            }
        }
        let upper = |method: &String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if let Some(method) = self.methods.iter().find(|method| !upper(method)) {
            return Err(format!("`{method}` is not a method in upper case"));
        }
        check_scopes(&self.scopes)?;
        let when = self.when.as_deref().map(expression::parse).transpose().map_err(|why| format!("`when`: {why}"))?;
        Ok(Row { rule: self, when })
    }

    fn fits(&self, method: &str, path: &str) -> bool {
        let by_method = self.methods.is_empty() || self.methods.iter().any(|own| own == method);
        by_method && self.path.as_ref().is_none_or(|pattern| fits(pattern, path))
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

fn fits(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        match (wanted, segments.next()) {
            ("*", _) => return true,
            (_, None) => return false,
            (wanted, Some(segment)) if wanted.starts_with('{') && wanted.ends_with('}') => {
                if segment.is_empty() {
                    return false;
                }
            }
            (wanted, Some(segment)) if wanted == segment => {}
            (_, Some(_)) => return false,
        }
    }
    segments.next().is_none()
}

/// What a path has where its pattern has names in braces.
fn captures<'a>(pattern: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    let named = |wanted: &'a str| wanted.strip_prefix('{')?.strip_suffix('}');
    pattern.split('/').zip(path.split('/')).filter_map(|(wanted, segment)| Some((named(wanted)?, segment))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_whole_segments() {
        for (pattern, path, want) in [
            ("/orders", "/orders", true),
            ("/orders", "/orders/", false),
            ("/orders/*", "/orders/1/2", true),
            ("/orders/*", "/orders", true),
            ("/orders/*", "/ordersx", false),
            ("/orders/{id}", "/orders/7", true),
            ("/orders/{id}", "/orders/", false),
            ("/orders/{id}", "/orders/7/lines", false),
            ("/*", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(fits(pattern, path), want, "{pattern} {path}");
        }
    }
}
