//! What the micro-benchmarks measure, set up once for both ways of measuring it.
//!
//! `chain.rs` and `crossing.rs` time these with criterion, `counts.rs` counts their instructions. [`exchange`], [`traffic`] and
//! [`routes`] need the core alone; [`guests`] puts a wasm guest behind it. Nothing in here opens a socket: whole gateways are
//! measured by `cargo xtask bench proxy`.

pub mod exchange;
pub mod guests;
pub mod routes;
pub mod traffic;
