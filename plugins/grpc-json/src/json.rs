//! JSON to messages and back, by the proto3 JSON mapping.
//!
//! Numbers are handed on as numbers here: the plugins' `serde_json` keeps every digit, and shows a number to others as a map.

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// How JSON is read and written.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    pub(crate) read: DeserializeOptions,
    pub(crate) write: SerializeOptions,
}

impl Json {
    /// # Errors
    /// What does not fit, for the one who sent it.
    pub(crate) fn message(&self, of: &MessageDescriptor, json: &Value) -> Result<DynamicMessage, String> {
        DynamicMessage::deserialize_with_options(of.clone(), Plain(json), &self.read).map_err(|why| why.to_string())
    }

    /// A message as text; with `field`, that field of it.
    ///
    /// # Errors
    /// When it has no JSON: an `Any` of a type that the descriptors do not have, say.
    pub(crate) fn text(&self, message: &DynamicMessage, field: Option<&str>) -> Result<Vec<u8>, String> {
        let written = |options: &SerializeOptions| {
            let mut text = Vec::new();
            let mut serializer = serde_json::Serializer::new(&mut text);
            message.serialize_with_options(&mut serializer, options).map_err(|why| why.to_string())?;
            Ok::<_, String>(text)
        };
        let Some(field) = field else { return written(&self.write) };
        // Written whole, since a field that has its default is the answer too.
        let whole = written(&self.write.clone().skip_default_fields(false).use_proto_field_name(true))?;
        let whole: Value = serde_json::from_slice(&whole).map_err(|why| why.to_string())?;
        Ok(whole.get(field).unwrap_or(&Value::Null).to_string().into_bytes())
    }
}

/// A value whose numbers are numbers.
struct Plain<'v>(&'v Value);

impl<'v> IntoDeserializer<'v, Error> for Plain<'v> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Plain<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(number) => {
                if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_f64(number.as_f64().ok_or_else(|| Error::custom("a number is out of range"))?)
                }
            }
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Plain))),
            Value::Object(members) => visitor
                .visit_map(MapDeserializer::new(members.iter().map(|(name, value)| (name.as_str(), Plain(value))))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
