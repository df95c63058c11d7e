//! Where in a request credentials are, and how they are taken out of it.

use portcullis_sdk::{Config, HeaderList, HeaderName};

use crate::refusal::Refusal;

/// Where a credential may come from.
#[derive(Clone, Config, Debug, Default)]
pub(crate) struct Places {
    /// A header; for tokens `authorization` unless told otherwise, as `Bearer TOKEN`. In others the value is the credential.
    pub(crate) header: Option<HeaderName>,
    /// A cookie.
    pub(crate) cookie: Option<String>,
    /// A parameter of the query. Addresses end up in logs and histories: off unless asked for.
    pub(crate) query: Option<String>,
}

impl Places {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(&self, name: &str) -> Result<(), String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        for place in [&self.cookie, &self.query].into_iter().flatten() {
            if place.is_empty() || !place.bytes().all(token) {
                return Err(format!("`{name}`: `{place}` is not a name of letters, digits, `-`, `_` and `.`"));
            }
        }
        Ok(())
    }

    /// Whether there is none.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.header.is_none() && self.cookie.is_none() && self.query.is_none()
    }

    fn authorization(&self) -> bool {
        self.header.as_ref().is_none_or(|name| name.as_str() == "authorization")
    }
}

/// What of a request is looked at.
pub(crate) struct Credentials(HeaderList);

impl Credentials {
    pub(crate) fn new(headers: HeaderList) -> Self {
        Self(headers)
    }

    /// The path alone.
    pub(crate) fn path(&self) -> &str {
        self.target().split(['?', '#']).next().unwrap_or_default()
    }

    pub(crate) fn method(&self) -> &str {
        self.0.text(":method").unwrap_or_default()
    }

    /// The first value of a header, if it is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.text(name)
    }

    fn target(&self) -> &str {
        self.0.text(":path").unwrap_or_default()
    }

    /// What follows this scheme's word in `authorization`, which there may be one of: with two, the upstream might believe the
    /// one that was not checked. As it came: whether a credential is text is for whoever reads it.
    pub(crate) fn authorization(&self, scheme: &str) -> Result<Option<&[u8]>, Refusal> {
        let mut values = self.0.get_all("authorization");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::Twice);
        }
        let of_scheme = value.get(..scheme.len()).is_some_and(|word| word.eq_ignore_ascii_case(scheme.as_bytes()));
        match (of_scheme, value.get(scheme.len())) {
            (true, None) => Err(Refusal::Malformed),
            (true, Some(b' ')) => Ok(value.get(scheme.len()..).map(<[u8]>::trim_ascii)),
            (true, Some(_)) | (false, _) => Ok(None),
        }
    }

    /// The one token in these places (RFC 6750 §2: never in two).
    pub(crate) fn token(&self, places: &Places) -> Result<Option<&[u8]>, Refusal> {
        let from_header = match &places.header {
            _ if places.authorization() => self.authorization("bearer")?,
            Some(name) => self.header(name)?,
            None => None,
        };
        only([from_header, self.cookie(places)?, self.parameter(places)?])
    }

    /// The one key in these places; without a header of its own there is none in `authorization`.
    pub(crate) fn key(&self, places: &Places) -> Result<Option<&[u8]>, Refusal> {
        let from_header = places.header.as_ref().map_or(Ok(None), |name| self.header(name))?;
        only([from_header, self.cookie(places)?, self.parameter(places)?])
    }

    fn header(&self, name: &HeaderName) -> Result<Option<&[u8]>, Refusal> {
        once(self.0.get_all(name.as_str()).map(<[u8]>::trim_ascii))
    }

    /// The pairs of all cookies. A value that is not text holds none.
    fn cookies(&self) -> impl Iterator<Item = &str> {
        let values = self.0.get_all("cookie").filter_map(|value| std::str::from_utf8(value).ok());
        values.flat_map(|value| value.split(';')).map(str::trim)
    }

    fn cookie(&self, places: &Places) -> Result<Option<&[u8]>, Refusal> {
        let Some(name) = &places.cookie else { return Ok(None) };
        let named = self.cookies().filter_map(|pair| pair.split_once('=')).filter(|(own, _)| own == name);
        once(named.map(|(_, value)| value.trim_matches('"').as_bytes()))
    }

    fn parameter(&self, places: &Places) -> Result<Option<&[u8]>, Refusal> {
        let Some(name) = &places.query else { return Ok(None) };
        let named = parameters(self.target()).filter_map(|pair| pair.split_once('=')).filter(|(own, _)| own == name);
        once(named.map(|(_, value)| value.as_bytes()))
    }

    /// What becomes of the headers that hold a credential of these places when the upstream is not to have it.
    pub(crate) fn without(&self, places: &Places) -> Vec<(String, Option<String>)> {
        let mut changes = Vec::new();
        if let Some(name) = &places.header {
            changes.push((name.to_string(), None));
        }
        if let Some(name) = &places.cookie
            && self.0.get_all("cookie").next().is_some()
        {
            let others = self.cookies().filter(|pair| pair.split('=').next() != Some(name));
            let others = others.collect::<Vec<_>>().join("; ");
            changes.push(("cookie".to_owned(), (!others.is_empty()).then_some(others)));
        }
        if let Some(name) = &places.query
            && let Some((path, _)) = self.target().split_once('?')
        {
            let others = parameters(self.target()).filter(|pair| pair.split('=').next() != Some(name));
            let others = others.collect::<Vec<_>>().join("&");
            let target = if others.is_empty() { path.to_owned() } else { format!("{path}?{others}") };
            changes.push((":path".to_owned(), Some(target)));
        }
        changes
    }
}

fn parameters(target: &str) -> impl Iterator<Item = &str> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('#').next().unwrap_or_default().split('&')
}

fn once<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Refusal> {
    let value = values.next();
    if values.next().is_some() { Err(Refusal::Twice) } else { Ok(value) }
}

fn only(found: [Option<&[u8]>; 3]) -> Result<Option<&[u8]>, Refusal> {
    once(found.into_iter().flatten())
}

#[cfg(test)]
mod tests;
