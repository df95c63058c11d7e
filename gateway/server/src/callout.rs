//! Calls made on behalf of a guest.
//!
//! Failures reach the guest as Envoy would tell them: no connection and no answer in time as responses of their own, a response
//! that breaks off or is too large as one without headers (ABI reference §9.2). Plugins tested there read `:status` without
//! looking whether there is one.

use std::rc::Rc;

use bytes::BytesMut;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use portcullis_core::context::{Callout, CalloutResponse};
use portcullis_core::headers::{Headers, strip_hop_by_hop};

use crate::message::RequestBody;
use crate::upstream::{Answer, SendError, Tries};
use crate::worker::Worker;

/// Makes the call, and hands what comes of it to the guest.
pub(crate) async fn run(worker: Rc<Worker>, callout: Callout) {
    let (root, token, timeout) = (callout.root, callout.token, callout.timeout);
    let (trace, upstream) = (callout.trace, callout.upstream);
    let (tries, method) = (Tries::traced(trace), callout.headers.method().cloned().unwrap_or_default());
    let response = tokio::time::timeout(timeout, call(&worker, callout, &tries)).await;
    if let (Some(trace), Some(attempts)) = (trace, tries.take_attempts(&worker.clock)) {
        let (name, tenant) = worker.upstreams.names(upstream).unwrap_or_default();
        worker.telemetry.export_callout(&trace, &attempts, &method, &name, &tenant);
    }
    let response =
        response.unwrap_or_else(|_| synthetic(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout".to_owned()));
    worker.turn_of_vm(root.vm).await;
    worker.deliver(root, token, response);
}

async fn call(worker: &Worker, callout: Callout, tries: &Tries) -> CalloutResponse {
    // Counted as under way until this returns.
    let Callout { upstream, mut headers, body, trailers, trace, calling: _calling, .. } = callout;
    if let Some(trace) = &trace {
        worker.telemetry.begin_span(headers.fields_mut(), trace);
    }
    if !body.is_empty() {
        headers.fields_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let trailers = (!trailers.is_empty()).then_some(trailers);
    let body = RequestBody::Whole(Some(body), trailers);
    match worker.upstreams.send(upstream, (headers, body), None, tries, &worker.clock).await {
        Ok(answer) => collect(worker, answer).await.unwrap_or_default(),
        Err(error) => unanswered(error),
    }
}

/// What Envoy answers in an upstream's stead.
fn unanswered(error: SendError) -> CalloutResponse {
    let reason = match error {
        SendError::Connect | SendError::ConnectTimeout | SendError::Tls => "remote connection failure",
        SendError::Overloaded => "overflow",
        SendError::Reset
        | SendError::Protocol
        | SendError::TryTimeout
        | SendError::NoTunnel
        | SendError::BadRequest => "connection termination",
    };
    let body = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    synthetic(StatusCode::SERVICE_UNAVAILABLE, body)
}

/// The whole response, unless it breaks off or is too large.
async fn collect(worker: &Worker, answer: Answer) -> Option<CalloutResponse> {
    let limit = worker.callout_limit();
    let (mut head, mut incoming) = answer.response.into_parts();
    let mut body = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = incoming.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) if body.len() + data.len() > limit => return None,
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok().map(Headers::trailers),
        }
    }
    answer.lease.done(&worker.clock);
    strip_hop_by_hop(&mut head.headers);
    Some(CalloutResponse { headers: Some(Headers::response(head.status, head.headers)), body: body.freeze(), trailers })
}

fn synthetic(status: StatusCode, body: String) -> CalloutResponse {
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    CalloutResponse { headers: Some(Headers::response(status, fields)), body: body.into(), trailers: None }
}
