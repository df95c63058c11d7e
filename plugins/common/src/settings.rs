//! Settings: the plugin configuration as JSON, read once in `proxy_on_configure`.

use proxy_wasm::hostcalls;
use proxy_wasm::types::BufferType;
use serde::de::DeserializeOwned;

/// The configuration's bytes as the host passed them; empty without any.
#[must_use]
pub fn bytes() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// Reads settings; none at all are the same as `{}`.
///
/// # Errors
/// What is wrong and where, for the operator.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Reads settings, checks them, and tells the operator why when they cannot be used.
///
/// `None` is what `proxy_on_configure` answers with `false`.
pub fn load<T: DeserializeOwned, C>(check: impl FnOnce(T, &[u8]) -> Result<C, String>) -> Option<C> {
    let bytes = bytes();
    match parse(&bytes).and_then(|written| check(written, &bytes)) {
        Ok(checked) => Some(checked),
        Err(why) => {
            log::error!("configuration refused: {why}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        a: u8,
    }

    #[test]
    fn no_settings_are_empty_settings() {
        for text in ["", "  \n", "{}"] {
            assert_eq!(parse(text.as_bytes()), Ok(Sample { a: 0 }), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_and_where() {
        let why = parse::<Sample>(b"{\"b\": 1}").unwrap_err();
        assert_eq!(why, "unknown field `b`, expected `a` at line 1 column 4");
    }
}
