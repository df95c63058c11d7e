//! A plugin's module: what compiles it, and what stands in it without running it: the ABI it speaks, what it imports and exports, the manifest that
//! `portcullis-sdk` puts in it. And [`trim`], which takes out the callbacks that a filter has no use for.

mod manifest;
mod outline;
mod toolchain;
mod trim;

pub use manifest::{HOLDS_HEADERS, HOLDS_HEADERS_HERE, Manifest, upstreams};
pub use outline::{Import, Outline, Unreadable};
pub use toolchain::{NoToolchain, TARGET, Toolchain};
pub use trim::{needed, trim};
