//! What stands on the banner.

use plugin_common::headers::{check_name, check_value};
use serde::Deserialize;

/// Settings: `{ header: "x-banner", value: "hello" }`, both optional.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Banner {
    pub(crate) header: String,
    pub(crate) value: String,
}

impl Default for Banner {
    fn default() -> Self {
        Self { header: "x-banner".to_owned(), value: "hello".to_owned() }
    }
}

impl Banner {
    /// Refuses what could not be a header.
    pub(crate) fn checked(self) -> Result<Self, String> {
        check_name(&self.header)?;
        check_value(&self.value)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_common::settings::parse;

    #[test]
    fn settings_fill_in_what_is_missing_and_refuse_what_is_odd() {
        for (text, want) in [
            ("", Some(("x-banner", "hello"))),
            ("{\"header\":\"x-acme\"}", Some(("x-acme", "hello"))),
            ("{\"header\":\"x-acme\",\"value\":\"v\"}", Some(("x-acme", "v"))),
            ("{\"header\":\"X-Acme\"}", None),
            ("{\"value\":\"a\\r\\nb\"}", None),
            ("{\"colour\":\"red\"}", None),
        ] {
            let got = parse::<Banner>(text.as_bytes()).and_then(Banner::checked).ok();
            let got = got.as_ref().map(|banner| (banner.header.as_str(), banner.value.as_str()));
            assert_eq!(got, want, "{text}");
        }
    }
}
