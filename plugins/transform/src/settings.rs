//! Settings as an operator writes them, and as the policy reads them.

use std::collections::BTreeMap;

use plugin_common::headers::{check_name, check_value};
use serde::Deserialize;
use serde_json::Value;

use crate::pointer::Pointer;
use crate::policy::{BodyRules, HeaderRules, Rules, Side};

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    request: SideSettings,
    #[serde(default)]
    response: SideSettings,
    #[serde(default = "default_max_bytes")]
    max_bytes: usize,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SideSettings {
    #[serde(default)]
    headers: HeaderSettings,
    body: Option<BodySettings>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeaderSettings {
    remove: Vec<String>,
    rename: BTreeMap<String, String>,
    set: BTreeMap<String, String>,
    append: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BodySettings {
    remove: Vec<String>,
    rename: BTreeMap<String, String>,
    /// A `Map`, for the order in which they are written is the order in which they are made.
    set: serde_json::Map<String, Value>,
}

fn default_max_bytes() -> usize {
    1024 * 1024
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Rules, String> {
        Ok(Rules {
            request: self.request.checked().map_err(|why| format!("request: {why}"))?,
            response: self.response.checked().map_err(|why| format!("response: {why}"))?,
            max_bytes: self.max_bytes,
        })
    }
}

impl SideSettings {
    fn checked(self) -> Result<Side, String> {
        Ok(Side { headers: self.headers.checked()?, body: self.body.map(BodySettings::checked).transpose()? })
    }
}

impl HeaderSettings {
    fn checked(self) -> Result<HeaderRules, String> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let written = self.set.keys().chain(self.append.keys());
        self.remove.iter().chain(renamed).chain(written).try_for_each(|name| check_name(name))?;
        self.set.values().chain(self.append.values()).try_for_each(|value| check_value(value))?;
        Ok(HeaderRules {
            remove: self.remove,
            rename: self.rename.into_iter().collect(),
            set: self.set.into_iter().collect(),
            append: self.append.into_iter().collect(),
        })
    }
}

impl BodySettings {
    fn checked(self) -> Result<BodyRules, String> {
        let pointer = |text: &String| Pointer::parse(text);
        let renames = self.rename.iter().map(|(from, to)| Ok((pointer(from)?, pointer(to)?)));
        Ok(BodyRules {
            remove: self.remove.iter().map(pointer).collect::<Result<_, _>>()?,
            rename: renames.collect::<Result<_, String>>()?,
            set: self.set.into_iter().map(|(at, value)| Ok((pointer(&at)?, value))).collect::<Result<_, String>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_common::settings::parse;

    #[test]
    fn settings_say_what_is_wrong_with_them() {
        for (json, want) in [
            ("", ""),
            (r#"{"request":{"headers":{"set":{"x-a":"1"}}},"max_bytes":10}"#, ""),
            (r#"{"request":{"body":{"set":{"/a":{"b":[1]}},"rename":{"/x":"/y"},"remove":["/z"]}}}"#, ""),
            (r#"{"request":{"headers":{"set":{"X-A":"1"}}}}"#, "request: `X-A` is not a header name in lower case"),
            (
                r#"{"response":{"headers":{"remove":["content-length"]}}}"#,
                "response: `content-length` belongs to the connection, not to the message",
            ),
            (
                r#"{"request":{"headers":{"append":{"x":"\n"}}}}"#,
                "request: a header value may not hold control characters",
            ),
            (r#"{"response":{"body":{"remove":["a.b"]}}}"#, "response: `a.b` is not a JSON Pointer such as /user/name"),
        ] {
            let got = parse::<Settings>(json.as_bytes()).and_then(|settings| settings.checked().map(|_| ()));
            assert_eq!(got.err().unwrap_or_default(), want, "{json}");
        }
    }
}
