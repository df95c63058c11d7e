//! The gateway end to end, over real sockets: one module per capability.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "what cannot go on in a test panics, and a test is as long as its table; the lints exempt only test functions"
)]

mod access_log;
mod admin;
mod attacks;
mod bodies;
mod callouts;
mod check;
mod client_address;
mod clients;
mod compiling;
mod config;
mod connections;
mod deploy;
mod documentation;
mod drain;
mod export;
mod failures;
mod filters;
mod foreign;
mod grpc;
mod h2_floods;
mod hostile;
mod metrics;
mod modules;
mod otlp;
mod outages;
mod overload;
mod plugins;
mod policies;
mod proxy;
mod proxy_protocol;
mod readme;
mod refusals;
mod reload;
mod retries;
mod revisions;
mod rollouts;
mod sdk;
mod streaming;
mod strict;
mod survival;
mod tcp;
mod tenants;
mod timeouts;
mod tls;
mod tracing;
mod upgrade;
mod upgrades;
mod upstream_h2;
mod upstream_timeouts;
mod upstreams;
mod websockets;
mod workshop;
