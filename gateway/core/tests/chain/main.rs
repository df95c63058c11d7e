//! The filter chain, by transcript: what its filters are called with, what they answer, and what the peers then receive.
//!
//! [`script`] is the language for filters, [`world`] for events. [`fake`] keeps the VMs and [`scene`] plays one callback, both with
//! the real tables and the real `Host`; [`wire`] asserts what every message must keep. The remaining modules are the tests, one per
//! subject of the ABI reference, and [`random`].

#![allow(clippy::too_many_lines, reason = "a test is as long as its transcript")]

mod bodies;
mod callouts;
mod closings;
mod connections;
mod deadlines;
mod deaths;
mod failures;
mod fake;
mod forms;
mod full;
mod lengths;
mod maps;
mod order;
mod pauses;
mod properties;
mod random;
mod replies;
mod resumes;
mod rollouts;
mod scene;
mod script;
mod table;
mod wire;
mod world;
mod writes;
