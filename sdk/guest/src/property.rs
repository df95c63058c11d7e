//! Properties: what the host knows of an exchange, its connection and its route.
//!
//! Paths and types are Envoy's attributes, which Portcullis has too: `source.address`, `request.protocol`,
//! `connection.mtls`, `xds.route_name`, …

use crate::sys;

/// A type that a property can be read as.
///
/// ```
/// use portcullis_sdk::property::Value;
/// /// Whether there is any.
/// struct Present(bool);
/// impl Value for Present {
///     fn read(bytes: Vec<u8>) -> Option<Self> {
///         Some(Self(!bytes.is_empty()))
///     }
/// }
/// ```
pub trait Value: Sized {
    /// Reads the host's encoding.
    fn read(bytes: Vec<u8>) -> Option<Self>;
}

impl Value for Vec<u8> {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes)
    }
}

impl Value for String {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        Self::from_utf8(bytes).ok()
    }
}

impl Value for bool {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        <[u8; 1]>::try_from(bytes).ok().map(|[byte]| byte != 0)
    }
}

impl Value for i64 {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_le_bytes)
    }
}

impl Value for u64 {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_le_bytes)
    }
}

impl Value for f64 {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_le_bytes)
    }
}

/// The property at a path; nothing where it is absent, not there in this phase, or of another type.
///
/// ```
/// # use portcullis_sdk::property;
/// fn over_tls() -> bool {
///     property::get::<String>(&["connection", "tls_version"]).is_some()
/// }
/// ```
#[must_use]
pub fn get<T: Value>(path: &[&str]) -> Option<T> {
    sys::property(path.join("\0").as_bytes()).ok().and_then(T::read)
}

pub(crate) fn text(path: &[&str]) -> Option<String> {
    get(path)
}
