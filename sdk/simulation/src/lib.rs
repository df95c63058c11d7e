//! A gateway without sockets, for trying filters: exchanges go through the real core, upstreams are closures.
//!
//! Who runs the guests is left to the users: `sdk/testing` runs native ones, with time as a number; `portcullis plugin test`
//! runs modules, in real time. Both see the same exchange, since everything that decides is `gateway/core`.

mod flight;
mod seen;
mod sent;
mod simulation;

pub use seen::{Line, Outcome, Seen};
pub use sent::{Reply, Request};
pub use simulation::{Call, Guests, Origin, Simulation, Stub, numbered};
