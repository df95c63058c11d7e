//! Every size, count and time limit, with its default.
//!
//! Hitting one is a typed refusal that the client, the guest or the operator can see; nothing here is enforced by luck.

use std::time::Duration;

/// Bytes of a request's head, its first line included; over HTTP/2 with 32 more for each field (RFC 9113 §10.5.1). Envoy's.
pub const HEAD_BYTES: usize = 60 << 10;
/// Fields of a request's head. Envoy's.
pub const HEAD_FIELDS: usize = 100;
/// Bytes of a request's target.
pub const TARGET_BYTES: usize = 16 << 10;
/// Bytes of the trailers of a chunked request. Below what the HTTP library takes.
pub const TRAILER_BYTES: usize = 8 << 10;

/// The limits of one gateway.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Body bytes held back per direction of an exchange while a filter pauses. Over it, requests get 413 and responses 502.
    pub held_bytes: usize,
    /// How long a filter may keep an exchange paused before it ends with 504.
    pub filter_pause: Duration,
    /// How long an exchange may be without any progress.
    pub exchange_idle: Duration,
    /// Callouts in flight per VM.
    pub callouts: usize,
    /// Body bytes of a callout's response.
    pub callout_response_bytes: usize,
    /// How long a callout may take when the guest names no time.
    pub callout_timeout: Duration,
    /// Bytes of properties that guests set on one exchange.
    pub property_bytes: usize,
    /// Header fields in one map, after a guest's changes.
    pub header_fields: usize,
    /// How long a plugin that is no longer used may take to finish, if it asks for time.
    pub farewell: Duration,
    /// The shortest period of a guest's timer.
    pub shortest_tick: Duration,
    /// Bytes of the head of an upstream's response, or of its trailers. Over it, the client gets 502.
    pub response_head_bytes: usize,
    /// Fields in the head of an upstream's response, or in its trailers.
    pub response_head_fields: usize,
    /// Bytes of a request's body kept so that it can be sent again. A larger one is not.
    pub retry_body_bytes: usize,
    /// Interim responses (1xx) before an upstream's response.
    pub interim_responses: usize,
}

impl Limits {
    /// The defaults. `held_bytes` and `callout_response_bytes` are Envoy's buffer limits, `exchange_idle` its stream idle timeout, the
    /// bounds on a head those that it has for requests.
    pub const DEFAULT: Self = Self {
        held_bytes: 1 << 20,
        filter_pause: Duration::from_secs(30),
        exchange_idle: Duration::from_secs(300),
        callouts: 256,
        callout_response_bytes: 1 << 20,
        callout_timeout: Duration::from_secs(60),
        property_bytes: 64 << 10,
        header_fields: 256,
        farewell: Duration::from_secs(5),
        shortest_tick: Duration::from_millis(1),
        response_head_bytes: 60 << 10,
        response_head_fields: 100,
        retry_body_bytes: 64 << 10,
        interim_responses: 16,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
