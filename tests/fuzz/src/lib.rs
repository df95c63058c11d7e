//! What must hold for any bytes at all, one function per target.
//!
//! A function panics when it does not hold. `cargo xtask fuzz` runs them on what libFuzzer makes up, starting from the seeds in
//! `corpus/NAME`; `tests/corpus.rs` runs them on the seeds alone, so that each is tried with every toolchain. An input that
//! fails becomes a seed. A further target is a function here, a file in `targets`, a directory in `corpus`, and a row each in
//! `tests/corpus.rs` and `xtask/src/fuzz.rs`.
#![allow(clippy::unwrap_used, reason = "a panic is how a target says that something does not hold")]

#[cfg(feature = "configuration")]
mod configuration;
mod frames;
mod heads;
#[cfg(feature = "modules")]
mod modules;
mod pairs;
mod paths;
mod proxied;

#[cfg(feature = "configuration")]
pub use configuration::configuration;
pub use frames::frames;
pub use heads::heads;
#[cfg(feature = "modules")]
pub use modules::modules;
pub use pairs::pairs;
pub use paths::paths;
pub use proxied::proxied;
