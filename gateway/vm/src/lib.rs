//! Proxy-Wasm guests, run on wasmtime.
//!
//! An [`Engine`] compiles modules for the whole process; a worker's [`Vms`] are instances of them and answer the filter chain's
//! callbacks ([`portcullis_core::filter::Filters`]). What a guest asks while it runs goes to [`portcullis_core::host::Host`]:
//! this crate moves bytes across the border, checks them, and decides nothing about HTTP.
//!
//! Nothing here waits. Guests are called synchronously and within a budget of processor time and memory; one that traps or uses
//! up its budget loses its VM, which is replaced, and takes nobody else along.

mod bounds;
mod budget;
mod cache;
mod callbacks;
mod capabilities;
mod cells;
mod compiler;
mod engine;
mod exposed;
mod failure;
mod foreign;
mod guest;
mod hostcalls;
mod image;
mod instance;
mod log;
mod memory;
mod metrics;
mod module;
mod plugin;
mod queues;
mod shared;
mod signature;
mod ticker;
mod trace;
mod vms;
mod wasi;

pub use bounds::{MODULE_BYTES, MODULE_FUNCTIONS};
pub use capabilities::Capabilities;
pub use cells::{Count, Occasion, VmCells, VmState};
pub use compiler::{CompileLimits, Compiler, compile_alone};
pub use engine::{Engine, EngineError, EngineOptions};
pub use failure::{Cause, Fault, StartError, StartFailure};
pub use metrics::{BUCKETS, GuestMetrics, METRIC_NAME_BYTES, MOST_METRICS, Metric, MetricValue};
pub use module::{LoadError, Module};
pub use plugin::{Isolation, RootSpec, VmSpec};
pub use queues::{Inbox, Letter, MOST_QUEUES, QUEUE_BYTES, QUEUE_ITEMS};
pub use shared::{Limits, SPACE_BYTES, Shared};
pub use trace::tell_of_calls;
pub use vms::{Newborn, Retired, Vms};

/// Every function a guest may import from `env`, in the order of the ABI's text.
pub fn hostcalls() -> impl Iterator<Item = &'static str> {
    hostcalls::ROWS.iter().map(|row| row.name)
}

/// Every function a guest may import from WASI.
pub fn wasi_functions() -> impl Iterator<Item = &'static str> {
    wasi::ROWS.iter().map(|row| row.name)
}

/// Every export that the gateway may call.
pub fn callbacks() -> impl Iterator<Item = &'static str> {
    callbacks::names()
}

/// Every function a guest may call by its name.
pub fn foreign_functions() -> impl Iterator<Item = &'static str> {
    foreign::names()
}
