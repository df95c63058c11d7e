//! Changes to headers.

use plugin_common::template::Template;
use portcullis_sdk::{HeaderName, HeaderValue, HeadersMut, Message};

use crate::obstacle::Obstacle;
use crate::values::Scope;

/// Changes to headers, in this order. A name that ends with `*` in `remove` or `rename` is all that begin so.
#[derive(Debug, Default)]
pub(crate) struct HeaderRules {
    pub(crate) remove: Vec<HeaderName>,
    pub(crate) rename: Vec<(HeaderName, HeaderName)>,
    pub(crate) set: Vec<(HeaderName, Template)>,
    pub(crate) append: Vec<(HeaderName, Template)>,
}

impl HeaderRules {
    /// Changes headers. All values are as they were before.
    pub(crate) fn apply(&self, message: &mut impl Message, scope: &Scope) -> Result<(), Obstacle> {
        let (set, append) = (rendered(&self.set, scope)?, rendered(&self.append, scope)?);
        for name in &self.remove {
            match name.strip_suffix('*') {
                None => message.headers_mut().remove(name),
                Some(prefix) => {
                    for (name, _) in beginning(message, prefix) {
                        message.headers_mut().remove(&name);
                    }
                }
            }
        }
        for (from, to) in &self.rename {
            match (from.strip_suffix('*'), to.strip_suffix('*')) {
                (Some(prefix), Some(new)) => {
                    for (name, rest) in beginning(message, prefix) {
                        rename(message, &name, &format!("{new}{rest}"));
                    }
                }
                _ => rename(message, from, to),
            }
        }
        let mut headers: HeadersMut<'_> = message.headers_mut();
        for (name, value) in set.iter().filter(|(_, value)| !value.is_empty()) {
            headers.set(name, value);
        }
        for (name, value) in append.iter().filter(|(_, value)| !value.is_empty()) {
            headers.append(name, value);
        }
        Ok(())
    }

    /// Whether any of it is to be made of values.
    pub(crate) fn has_values(&self) -> bool {
        !self.set.is_empty() || !self.append.is_empty()
    }
}

fn rendered<'r>(rules: &'r [(HeaderName, Template)], scope: &Scope) -> Result<Vec<(&'r HeaderName, String)>, Obstacle> {
    let one = |(name, template): &'r (HeaderName, Template)| {
        template.render(&|path| scope.get(path)).map(|value| (name, value)).map_err(|_| Obstacle::Unfit)
    };
    rules.iter().map(one).collect()
}

/// The headers that begin so, with what follows in their names; none of those that frame the message.
fn beginning(message: &impl Message, prefix: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, _) in message.headers().all() {
        let rest = name.strip_prefix(prefix).map(str::to_owned);
        if let Some(rest) = rest.filter(|_| HeaderName::try_from(name.as_str()).is_ok())
            && !found.iter().any(|(own, _)| *own == name)
        {
            found.push((name, rest));
        }
    }
    found
}

/// What had the new name before goes: it would be taken for what was renamed.
fn rename(message: &mut impl Message, from: &str, to: &str) {
    let values: Vec<HeaderValue> = message.headers().get_all(from);
    if values.is_empty() || HeaderName::try_from(to).is_err() {
        return;
    }
    let mut headers = message.headers_mut();
    headers.remove(from);
    headers.remove(to);
    for value in values {
        headers.append(to, value);
    }
}
