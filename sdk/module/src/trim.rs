//! Taking exports out of a module that its filter has no use for.
//!
//! The `proxy-wasm` crate exports every callback of the ABI, and a host calls what is exported: for every chunk of every body,
//! and three times at the end of every exchange. The manifest says what the filter needs; the rest of the file stays as it is,
//! byte by byte.

use wasmparser::{ExternalKind, Parser, Payload};

use crate::manifest::Manifest;
use crate::outline::{Outline, Unreadable};

/// Callbacks that no filter of the SDK has a use for: what ends an exchange there is its deletion.
const NEVER: [&str; 9] = [
    "proxy_on_done",
    "proxy_on_queue_ready",
    "proxy_on_new_connection",
    "proxy_on_downstream_data",
    "proxy_on_downstream_connection_close",
    "proxy_on_upstream_data",
    "proxy_on_upstream_connection_close",
    "proxy_on_foreign_function",
    "proxy_validate_configuration",
];

/// Whether a filter with this manifest needs a callback.
#[must_use]
pub fn needed(manifest: &Manifest, export: &str) -> bool {
    let touches = |whose: &str| manifest.bodies.iter().any(|body| body == whose);
    match export {
        "proxy_on_request_body" | "proxy_on_request_trailers" => touches("request"),
        "proxy_on_response_body" | "proxy_on_response_trailers" => touches("response"),
        "proxy_on_log" => manifest.logs,
        other => !NEVER.contains(&other),
    }
}

/// The module without the callbacks that its manifest has no use for; one without a manifest as it is.
///
/// # Errors
/// When it cannot be read.
pub fn trim(wasm: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let Some(manifest) = Outline::of(wasm)?.manifest else { return Ok(wasm.to_vec()) };
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::ExportSection(section) = payload? else { continue };
        let range = section.range();
        let (mut count, mut entries) = (0_u32, Vec::new());
        for export in section {
            let export = export?;
            if export.kind == ExternalKind::Func && !needed(&manifest, export.name) {
                continue;
            }
            count += 1;
            unsigned(u32::try_from(export.name.len()).unwrap_or(u32::MAX), &mut entries);
            entries.extend_from_slice(export.name.as_bytes());
            entries.push(kind(export.kind)?);
            unsigned(export.index, &mut entries);
        }
        let mut contents = Vec::with_capacity(entries.len() + 5);
        unsigned(count, &mut contents);
        contents.append(&mut entries);
        return replaced(wasm, range, &contents);
    }
    Ok(wasm.to_vec())
}

/// The number that the binary format has for what is exported.
fn kind(kind: ExternalKind) -> Result<u8, Unreadable> {
    match kind {
        ExternalKind::Func => Ok(0),
        ExternalKind::Table => Ok(1),
        ExternalKind::Memory => Ok(2),
        ExternalKind::Global => Ok(3),
        ExternalKind::Tag => Ok(4),
        ExternalKind::FuncExact => {
            Err(Unreadable::Malformed("an export of a kind that plugins do not have".to_owned()))
        }
    }
}

/// The module with other contents in the section that is at `range`, and its length before them made right.
fn replaced(wasm: &[u8], range: std::ops::Range<usize>, contents: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let out_of_range = || Unreadable::Malformed("a section beyond its end".to_owned());
    let before = wasm.get(..range.start).ok_or_else(out_of_range)?;
    // The last bytes are the section's length, in as many as the linker took for it: all but the last have the high bit.
    let length = 1 + before.iter().rev().skip(1).take_while(|byte| **byte & 0x80 != 0).count();
    let mut out = before.len().checked_sub(length).and_then(|end| before.get(..end)).ok_or_else(out_of_range)?.to_vec();
    unsigned(u32::try_from(contents.len()).unwrap_or(u32::MAX), &mut out);
    out.extend_from_slice(contents);
    out.extend_from_slice(wasm.get(range.end..).ok_or_else(out_of_range)?);
    Ok(out)
}

/// LEB128, as the binary format has numbers.
fn unsigned(mut number: u32, out: &mut Vec<u8>) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
