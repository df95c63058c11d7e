//! The VM host by its behaviour: tiny guests in text format, one module per capability.
#![allow(clippy::unwrap_used, reason = "what cannot go on in a test panics; the lint exempts only test functions")]

mod abi;
mod callbacks;
mod capabilities;
mod copies;
mod endings;
mod failures;
mod foreign;
mod harness;
mod headers;
mod leaks;
mod loading;
mod messages;
mod queues;
mod rest;
mod services;
