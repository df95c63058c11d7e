//! Filters in the simulated gateway: what each promise of the SDK comes to, and a plugin that knows nothing of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what cannot go on in a test panics")]

mod basics;
mod bodies;
mod callouts;
mod ends;
mod failures;
mod grpc;
mod queues;
mod unmodified;
