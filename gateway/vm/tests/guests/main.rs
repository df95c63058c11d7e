//! The VM host by its behaviour: tiny guests in text format, one module per capability.

mod abi;
mod callbacks;
mod failures;
mod harness;
mod headers;
mod loading;
mod messages;
mod scratch;
mod services;
