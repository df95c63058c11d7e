//! What a gateway decides, and nothing it waits for.
//!
//! An exchange takes [`event::Event`]s and yields [`event::Effect`]s; in between, the filter [`chain`] calls guests through the
//! one trait [`filter::Filters`]. Routing, balancing, header rules, limits and local replies live here too. There is no socket,
//! no clock, no thread and no randomness in this crate: time is an argument, so that the same events always give the same
//! effects and every rule can be tested without a network.

pub mod admission;
pub mod answer;
pub mod authority;
pub mod buffer;
pub mod chain;
pub mod context;
pub mod downstream;
pub mod event;
pub mod exchange;
pub mod filter;
pub mod flow;
pub mod forward;
pub mod frames;
pub mod grpc;
pub mod headers;
pub mod health;
pub mod host;
mod kept;
pub mod limits;
mod meter;
pub mod path;
pub mod property;
pub mod proxy_protocol;
pub mod reply;
pub mod retry;
pub mod rollout;
pub mod route;
mod scan;
pub mod tenant;
pub mod throttle;
pub mod time;
pub mod timing;
pub mod tls;
pub mod trace;
pub mod upgrade;
pub mod upstream;
pub mod wire;
