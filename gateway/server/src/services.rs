//! What the gateway offers beside passing requests on: services of its own, each on an address of its own.

pub(crate) mod rate_limit;
