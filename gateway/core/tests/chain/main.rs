//! The filter chain, by transcript: what its filters are called with, what they answer, and what the peers then receive.
//!
//! [`script`] is the language for filters, [`world`] for events, [`fake`] plays the one against the real `Host`, [`wire`] asserts
//! what every message must keep. The remaining modules are the tests, one per subject of the ABI reference §7, and [`random`].

mod bodies;
mod callouts;
mod deadlines;
mod failures;
mod fake;
mod lengths;
mod maps;
mod order;
mod pauses;
mod properties;
mod random;
mod replies;
mod script;
mod table;
mod wire;
mod world;
