//! What may hold resolved secrets: it is overwritten before its memory is somebody else's.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

/// Any value, as read from the files with secrets in place.
pub(crate) struct Private(Value);

impl Private {
    /// Takes a value's strings into keeping.
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }
}

impl Deref for Private {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(entries) => entries.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private")
    }
}

impl<'de> Deserialize<'de> for Private {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Private {
    fn inline_schema() -> bool {
        Value::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Value::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Value::json_schema(generator)
    }
}

/// What a plugin is configured with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Configuration(Arc<Zeroizing<Vec<u8>>>);

impl Configuration {
    /// A string as it is, anything else as JSON.
    pub(crate) fn of(value: &Value) -> Self {
        if let Value::String(text) = value {
            return Self(Arc::new(Zeroizing::new(text.clone().into_bytes())));
        }
        // Room for all of it at once: growing would leave copies behind.
        let mut size = Count(0);
        let _counts = serde_json::to_writer(&mut size, value);
        let mut bytes = Vec::with_capacity(size.0);
        let _in_memory = serde_json::to_writer(&mut bytes, value);
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// These bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.to_vec())))
    }

    /// The same, without a copy.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl Deref for Configuration {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Configuration {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Hash for Configuration {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Configuration({} bytes)", self.0.len())
    }
}

struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_passed_as_it_is_and_anything_else_as_json() {
        assert_eq!(&*Configuration::of(&json!("a: {}")), b"a: {}");
        assert_eq!(&*Configuration::of(&json!({ "a": ["\n", 1] })), br#"{"a":["\n",1]}"#);
        let configuration = Configuration::of(&json!([1]));
        assert_eq!(configuration.bytes(), &b"[1]"[..]);
        assert_eq!(format!("{configuration:?}"), "Configuration(3 bytes)");
    }
}
