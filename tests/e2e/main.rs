//! The gateway end to end, over real sockets: one module per capability.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what cannot go on in a test panics; the lints exempt only test functions"
)]

mod bodies;
mod proxy;
mod refusals;
mod upstreams;
