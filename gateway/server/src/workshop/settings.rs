//! A plugin's settings on the command line: a file, or the text itself.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::written;

/// Reads settings. What begins with `{` is them, as JSON or YAML; anything else names a file that has them. None are none.
pub(super) fn read(argument: Option<&str>) -> anyhow::Result<Value> {
    match argument {
        None => Ok(Value::Null),
        Some(text) if text.trim_start().starts_with('{') => {
            Ok(written::parse("--config", text).context("the settings cannot be read")?.json())
        }
        Some(path) => Ok(written::tree(Path::new(path)).context("the settings cannot be read")?.json()),
    }
}
