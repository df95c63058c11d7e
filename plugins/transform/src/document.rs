//! Documents: bodies of any format, read as a JSON value and written again.

use plugin_bodies::Unread;
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::media::Format;
use crate::obstacle::Obstacle;
use crate::{form, xml};

/// Reads a body, or a record of one.
pub(crate) fn read(format: Format, body: &[u8]) -> Result<Value, Obstacle> {
    match format {
        Format::Json | Format::Ndjson | Format::Sse => {
            serde_json::from_slice(body).map_err(|_| Obstacle::Body(Unread::Malformed))
        }
        Format::Form => form::read(body).ok_or(Obstacle::Body(Unread::Malformed)),
        Format::Xml => xml::read(body).map_err(|_| Obstacle::Body(Unread::Malformed)),
    }
}

/// Writes it; XML is not written.
pub(crate) fn write(format: Format, document: &Value) -> Result<Vec<u8>, Obstacle> {
    match format {
        Format::Form => form::write(document).ok_or(Obstacle::Body(Unread::Malformed)),
        Format::Json | Format::Ndjson | Format::Sse | Format::Xml => {
            serde_json::to_vec(document).map_err(|_| Obstacle::Body(Unread::Malformed))
        }
    }
}

/// Adds a field; those of one name become a list. No value may be a list by itself.
pub(crate) fn add(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.entry(name) {
        Entry::Vacant(field) => _ = field.insert(value),
        Entry::Occupied(mut field) => {
            let field = field.get_mut();
            if let Value::Array(items) = field {
                items.push(value);
            } else {
                *field = Value::Array(vec![field.take(), value]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_one_json_document_is_malformed() {
        let deep = "[".repeat(100_000);
        for body in ["", "{", "{} {}", "nul", "\"\u{1}\"", deep.as_str()] {
            assert_eq!(read(Format::Json, body.as_bytes()), Err(Obstacle::Body(Unread::Malformed)));
        }
    }
}
