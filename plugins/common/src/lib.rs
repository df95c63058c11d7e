//! What modules share: templates, path patterns and percent-decoding for every policy; settings and headers for those that stand on the `proxy-wasm` crate alone,
//! the probe and what the benchmarks run.
//!
//! The `proxy-wasm` crate turns an unexpected status or a value that is not UTF-8 into a panic, and a panic ends the VM.
//! So `headers` and `settings` work on bytes, and their users keep two rules: a header map is touched only while its phase
//! lasts, and a client's bytes become text by [`text`] or not at all.

#![warn(missing_docs)]

pub mod headers;
pub mod pattern;
pub mod percent;
pub mod pointer;
pub mod settings;
pub mod template;

/// The property in which `auth` leaves claims of whoever it let in, as a JSON object, for the filters after it.
///
/// One name without a separator: it is found as it was set on Portcullis, and among Envoy's dynamic filter state.
pub const CLAIMS: &str = "auth.claims";

/// The property in which `auth` leaves whom it let in: `sub` of a token, or the id of a consumer.
pub const CONSUMER: &str = "auth.consumer";

/// The bytes as text, if that is what they are and every character is printable ASCII.
#[must_use]
pub fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
}
