//! The foreign functions: what `proxy_call_foreign_function` finds by name (ABI reference §10). All are Envoy's but one, which takes
//! from limits in one step.
//!
//! Each is given bytes and gives bytes. **Invariant:** one call's time is bounded by what goes in and comes out; what a guest does
//! over and over is for its budget to end.

mod crypto;
mod expression;
mod limit;
mod pattern;

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use portcullis_abi::Status;
use portcullis_abi::protobuf::{Fields, Value};
use portcullis_core::host::Host;

pub(crate) use self::expression::Expressions;
use crate::shared::Space;

/// The most bytes a function takes.
const MOST_IN: usize = 1 << 20;
/// The most bytes it gives.
const MOST_OUT: u64 = 4 << 20;

type Answer = Result<Vec<u8>, Status>;

/// What a function works on.
struct Call<'c, 'h> {
    expressions: &'c mut Expressions,
    host: &'c mut Host<'h>,
    /// What its tenant shares.
    space: &'c Space,
    arguments: &'c [u8],
}

type Function = fn(Call<'_, '_>) -> Answer;

/// Every function, by its name.
const FUNCTIONS: &[(&str, Function)] = &[
    ("compress", |call| compress(call.arguments)),
    ("uncompress", |call| uncompress(call.arguments)),
    ("clear_route_cache", |call| {
        call.host.clear_route_cache();
        Ok(Vec::new())
    }),
    ("set_envoy_filter_state", |call| set_filter_state(call.host, call.arguments)),
    ("declare_property", |call| declare_property(call.host, call.arguments)),
    ("verify_signature", |call| crypto::verify(call.arguments)),
    ("sign", |call| crypto::sign(call.arguments)),
    ("expr_create", |call| call.expressions.create(call.arguments)),
    ("expr_evaluate", |call| call.expressions.evaluate(call.host, call.arguments)),
    ("expr_delete", |call| call.expressions.delete(call.arguments)),
    (portcullis_abi::limit::FUNCTION, |call| limit::answer(call.space, call.host.exchanges.now, call.arguments)),
];

/// The names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, _)| *name)
}

/// Calls a function; nothing if there is none of this name.
pub(crate) fn call(
    expressions: &mut Expressions,
    (host, space): (&mut Host<'_>, &Space),
    name: &[u8],
    arguments: &[u8],
) -> Option<Answer> {
    let (_, function) = FUNCTIONS.iter().find(|(known, _)| known.as_bytes() == name)?;
    if arguments.len() > MOST_IN {
        return Some(Err(Status::BadArgument));
    }
    Some(function(Call { expressions, host, space, arguments }))
}

fn compress(bytes: &[u8]) -> Answer {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).map_err(|_| Status::InternalFailure)?;
    encoder.finish().map_err(|_| Status::InternalFailure)
}

/// What would become larger than a guest may have at once is no good input either.
fn uncompress(bytes: &[u8]) -> Answer {
    let mut out = Vec::new();
    let read = ZlibDecoder::new(bytes).take(MOST_OUT + 1).read_to_end(&mut out);
    match read {
        Ok(_) if out.len() as u64 <= MOST_OUT => Ok(out),
        _ => Err(Status::SerializationFailure),
    }
}

/// The fields of an argument that is a message.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Value<'_>), Status>> {
    Fields::of(message).map(|field| field.map_err(|_| Status::BadArgument))
}

/// Envoy knows which names have a type, and refuses others. Here any name may be set and read as `filter_state.<name>`.
fn set_filter_state(host: &mut Host<'_>, message: &[u8]) -> Answer {
    let (mut path, mut value) = (&b""[..], &b""[..]);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => path = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    if path.is_empty() {
        return Err(Status::NotFound);
    }
    host.set_property(&[b"filter_state\0", path].concat(), value)?;
    Ok(Vec::new())
}

fn declare_property(host: &mut Host<'_>, message: &[u8]) -> Answer {
    let (mut name, mut readonly) = (&b""[..], false);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Number(flag)) => readonly = flag != 0,
            _ => {}
        }
    }
    host.contexts.declare_property(name, readonly)?;
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_bombs_do_not() {
        let text = b"again and again ".repeat(1000);
        let small = compress(&text).unwrap();
        assert!(small.len() < text.len() / 50 && small.starts_with(b"\x78"));
        assert_eq!(uncompress(&small), Ok(text));
        assert_eq!(uncompress(&compress(b"").unwrap()), Ok(Vec::new()));
        for bad in [&b""[..], b"nonsense", &small[..small.len() - 5]] {
            assert_eq!(uncompress(bad), Err(Status::SerializationFailure));
        }
        let bomb = compress(&vec![0; 64 << 20]).unwrap();
        assert!(bomb.len() < MOST_IN);
        assert_eq!(uncompress(&bomb), Err(Status::SerializationFailure));
    }
}
