//! Header access by bytes, on the map that belongs to the running phase.
//!
//! Statuses are dropped on purpose: `proxy-wasm` answers `Ok` or panics, so there is nothing left to handle.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;

/// The map a filter works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Request headers.
    Request,
    /// Response headers.
    Response,
}

impl Side {
    fn map(self) -> MapType {
        match self {
            Self::Request => MapType::HttpRequestHeaders,
            Self::Response => MapType::HttpResponseHeaders,
        }
    }

    /// The first entry of this name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(self.map(), name).ok().flatten()
    }

    /// Every entry of this name, in order.
    #[must_use]
    pub fn get_all(self, name: &str) -> Vec<Vec<u8>> {
        let pairs = hostcalls::get_map_bytes(self.map()).unwrap_or_default();
        pairs.into_iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// Leaves exactly one entry of this name.
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) {
        let _ok = hostcalls::set_map_value_bytes(self.map(), name, Some(value.as_ref()));
    }

    /// Adds an entry beside those of this name.
    pub fn append(self, name: &str, value: impl AsRef<[u8]>) {
        let _ok = hostcalls::add_map_value_bytes(self.map(), name, value.as_ref());
    }

    /// Removes every entry of this name.
    pub fn remove(self, name: &str) {
        let _ok = hostcalls::remove_map_value(self.map(), name);
    }
}

/// A name as it may stand in settings: a lower-case token (RFC 9110 §5.6.2), no pseudo-header and none that frames the message.
///
/// # Errors
/// Says what is wrong with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    const FRAMING: &[&str] =
        &["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("`{name}` is not a header name in lower case"));
    }
    if FRAMING.contains(&name) {
        return Err(format!("`{name}` belongs to the connection, not to the message"));
    }
    Ok(())
}

/// A value as it may stand in settings: no control characters, so it cannot end its line.
///
/// # Errors
/// Says what is wrong with the value.
pub fn check_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
        return Err("a header value may not hold control characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_a_message_are_refused() {
        for (name, fine) in [
            ("x-user", true),
            ("x_user.1", true),
            ("", false),
            ("X-User", false),
            ("x user", false),
            ("x\r\ny", false),
            (":path", false),
            ("content-length", false),
            ("transfer-encoding", false),
        ] {
            assert_eq!(check_name(name).is_ok(), fine, "{name:?}");
        }
    }

    #[test]
    fn values_that_could_end_their_line_are_refused() {
        assert!(check_value("plain, tab\tand é").is_ok());
        assert!(check_value("a\r\nb: c").is_err());
        assert!(check_value("a\0").is_err());
    }
}
