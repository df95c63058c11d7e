//! Settings: JSON from the host, read once, into the filter's own type.

use portcullis_abi::BufferType;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::schema::Schema;
use crate::sys;

/// What a filter's settings are: something that can be read from JSON and that says what it looks like.
///
/// Derive it. The derive is serde's `Deserialize` with unknown keys refused, and takes serde's attributes; doc comments go
/// into the JSON Schema that the module carries.
///
/// ```
/// use portcullis_sdk::{Config, Upstream, parse_config};
///
/// #[derive(Config)]
/// struct Settings {
///     /// Where countries are looked up.
///     country: Upstream,
///     /// Whether requests without a country are refused.
///     #[serde(default)]
///     strict: bool,
/// }
///
/// let settings: Settings = parse_config(br#"{ "country": "geo" }"#).unwrap();
/// assert!(!settings.strict);
/// let why = parse_config::<Settings>(br#"{ "country": "geo", "strikt": true }"#).err().unwrap();
/// assert_eq!(why, "unknown field `strikt`, expected `country` or `strict`");
/// ```
pub trait Config: DeserializeOwned + Schema {}

impl<T: DeserializeOwned + Schema> Config for T {}

/// Settings of a filter that has none: any key is refused.
///
/// ```
/// use portcullis_sdk::{NoConfig, parse_config};
/// assert!(parse_config::<NoConfig>(b"").is_ok());
/// assert!(parse_config::<NoConfig>(b"{\"colour\": 1}").is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads settings as [`Filter::start`](crate::Filter::start) gets them; none at all are the same as `{}`.
///
/// # Errors
/// What is wrong, in which setting and where, for the operator.
///
/// ```
/// # use portcullis_sdk::{Config, parse_config};
/// #[derive(Config)]
/// struct Settings {
///     limits: Limits,
/// }
/// #[derive(Config)]
/// struct Limits {
///     bytes: u32,
/// }
///
/// let why = parse_config::<Settings>(br#"{ "limits": { "bytes": "many" } }"#).err().unwrap();
/// assert_eq!(why, "`limits.bytes`: invalid type: string \"many\", expected u32");
/// ```
pub fn parse_config<T: Config>(bytes: &[u8]) -> Result<T, String> {
    load(bytes)
}

pub(crate) fn load<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let settings = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, why) = (error.path().to_string(), reason(error.inner()));
        // Errors about a key name it themselves, and the path would be of what is around it.
        if path == "." || why.starts_with("unknown field") { why } else { format!("`{path}`: {why}") }
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(settings)
}

/// What is wrong. Of settings that are JSON it says in words where: the lines are not those of the operator's file.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).filter(|_| error.is_data()).map_or(text.clone(), str::to_owned)
}

/// The configuration's bytes as the host passed them; empty without any.
pub(crate) fn bytes() -> Vec<u8> {
    sys::buffer(BufferType::PluginConfiguration, usize::MAX)
}

/// What the host does beyond the ABI. There is no asking hosts, so the VM's configuration says it: see the crate's
/// documentation.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Abilities {
    /// It lets a filter read a body whose head it holds.
    #[serde(default)]
    pub(crate) holds_headers: bool,
    /// It lets a filter give a body to a message without one, and add to one when its trailers are there.
    #[serde(default)]
    pub(crate) adds_bodies: bool,
}

pub(crate) fn abilities() -> Abilities {
    let bytes = sys::buffer(BufferType::VmConfiguration, usize::MAX);
    serde_json::from_slice(&bytes).unwrap_or_default()
}
