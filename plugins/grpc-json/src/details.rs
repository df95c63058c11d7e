//! What a service says of a failure beside its message: `grpc-status-details-bin`, a `google.rpc.Status` with details of any type.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use portcullis_abi::protobuf::{Fields, Value as Field};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Map, Value};

use crate::json::Json;

/// gRPC lets senders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_encode_padding(true),
);

/// The details as a list of JSON, each as the mapping has an `Any`; nothing where there are none, or what is there is no status.
///
/// One whose type the descriptors do not have is its bytes: `{"@type": …, "value": BASE64}`.
pub(crate) fn read(header: &[u8], pool: &DescriptorPool, json: &Json) -> Option<Value> {
    let status = BASE64.decode(header).ok()?;
    let mut details = Vec::new();
    for field in Fields::of(&status) {
        if let (3, Field::Bytes(detail)) = field.ok()? {
            details.push(one(detail, pool, json)?);
        }
    }
    (!details.is_empty()).then_some(Value::Array(details))
}

/// A `google.protobuf.Any`.
fn one(detail: &[u8], pool: &DescriptorPool, json: &Json) -> Option<Value> {
    let (mut url, mut bytes) = (&b""[..], &b""[..]);
    for field in Fields::of(detail) {
        match field.ok()? {
            (1, Field::Bytes(name)) => url = name,
            (2, Field::Bytes(message)) => bytes = message,
            _ => {}
        }
    }
    let url = std::str::from_utf8(url).ok()?;
    let mut members = Map::new();
    members.insert("@type".to_owned(), Value::from(url));
    match known(url, bytes, pool, json) {
        Some(Value::Object(fields)) => members.extend(fields),
        // A duration, say, which JSON has another form for.
        Some(value) => _ = members.insert("value".to_owned(), value),
        None => _ = members.insert("value".to_owned(), Value::from(BASE64.encode(bytes))),
    }
    Some(Value::Object(members))
}

fn known(url: &str, bytes: &[u8], pool: &DescriptorPool, json: &Json) -> Option<Value> {
    let descriptor = pool.get_message_by_name(url.rsplit('/').next()?)?;
    let message = DynamicMessage::decode(descriptor, bytes).ok()?;
    serde_json::from_slice(&json.text(&message, None).ok()?).ok()
}
