//! What the plugins share: reading settings, touching headers, answering with a problem document.
//!
//! The `proxy-wasm` crate turns an unexpected status or a value that is not UTF-8 into a panic, and a panic ends the VM. So
//! everything here works on bytes, and its users keep two rules: a header map is touched only while its phase lasts, and a
//! client's bytes become text by [`text`] or not at all.

#![warn(missing_docs)]

pub mod headers;
pub mod period;
pub mod problem;
pub mod settings;

/// The bytes as text, if that is what they are and every character is printable ASCII.
#[must_use]
pub fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
}

/// The wall clock, in nanoseconds since the Unix epoch; it may step backwards.
#[must_use]
pub fn now_ns() -> u64 {
    let since_epoch = proxy_wasm::hostcalls::get_current_time()
        .ok()
        .and_then(|now| now.duration_since(std::time::UNIX_EPOCH).ok())
        .unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
