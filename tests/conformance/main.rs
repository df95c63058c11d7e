//! The ABI by what a client and an origin can observe: one module per section of the reference.
//!
//! Guests are written in text format around [`guest`], so that no SDK stands between the test and the numbers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "what cannot go on in a test panics, and a test is as long as its table; the lints exempt only test functions"
)]

mod bodies;
mod grpc;
mod guest;
mod headers;
mod hostile;
mod life;
mod lists;
mod loading;
mod replies;
mod services;
mod tcp;
