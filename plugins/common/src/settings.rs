//! The plugin configuration.

use proxy_wasm::hostcalls;
use proxy_wasm::types::BufferType;

/// The configuration's bytes as the host passed them; empty without any.
#[must_use]
pub fn bytes() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}
