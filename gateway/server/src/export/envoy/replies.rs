//! What clients are told when there is no answer to pass on: the same problem documents.

use portcullis_core::reply::Failure;
use serde_json::{Value, json};

/// Envoy's response flags, and what the gateway calls that.
const FLAGS: [(&[&str], Failure); 8] = [
    (&["UF", "UH"], Failure::UpstreamConnect),
    (&["UO"], Failure::UpstreamOverloaded),
    (&["UT"], Failure::UpstreamTimeout),
    (&["UC", "UR", "LR"], Failure::UpstreamReset),
    (&["UPE"], Failure::UpstreamProtocol),
    (&["DT"], Failure::RequestTimeout),
    (&["SI"], Failure::Idle),
    (&["RL"], Failure::TenantRequests),
];

/// The bodies of Envoy's own replies. Those of filters carry no flag, and stay as they are.
pub(super) fn local_replies() -> Value {
    let mappers: Vec<Value> = FLAGS
        .iter()
        .map(|(flags, failure)| {
            json!({
                "filter": { "response_flag_filter": { "flags": flags } },
                "status_code": failure.status().as_u16(),
                "body_format_override": body(*failure),
            })
        })
        .collect();
    json!({ "mappers": mappers })
}

/// A reply that a route makes itself.
pub(super) fn direct(failure: Failure) -> Value {
    json!({ "status": failure.status().as_u16(), "body_format": body(failure) })
}

fn body(failure: Failure) -> Value {
    json!({
        "content_type": "application/problem+json",
        "json_format": {
            "type": "about:blank",
            "title": failure.title(),
            "status": failure.status().as_u16(),
            "code": failure.code(),
            "request_id": "%REQ(X-REQUEST-ID)%",
        },
    })
}
