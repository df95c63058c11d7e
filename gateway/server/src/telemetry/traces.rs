//! One worker's part in traces: where a request stands in its trace, and what those who are called are told of it.

use std::cell::RefCell;

use bytes::{BufMut as _, BytesMut};
use http::HeaderValue;
use http::header::HeaderMap;
use portcullis_core::forward::Trust;
use portcullis_core::trace::{self, LEN, Policy, SpanId, TRACEPARENT, Trace};

/// Bytes that header values are cut from: some dozens of values for one allocation.
const CHUNK: usize = 64 * LEN;

/// What a worker writes into `traceparent` fields.
#[derive(Debug, Default)]
pub(super) struct TraceParents {
    chunk: RefCell<BytesMut>,
}

impl TraceParents {
    /// Gives a request its place in a trace, and tells those that it is sent to.
    pub(super) fn join(&self, fields: &mut HeaderMap, policy: &Policy, trust: Trust) -> Trace {
        let trace = trace::join(fields, policy, trust, || fastrand::u64(..));
        self.write(fields, trace.text());
        trace
    }

    /// Begins a span within a trace, and tells whoever the request is sent to.
    pub(super) fn begin(&self, fields: &mut HeaderMap, trace: &Trace) -> SpanId {
        let span = SpanId::fresh(&mut || fastrand::u64(..));
        self.write(fields, trace.text_of(span));
        span
    }

    fn write(&self, fields: &mut HeaderMap, text: [u8; LEN]) {
        let mut chunk = self.chunk.borrow_mut();
        if chunk.capacity() < LEN {
            chunk.reserve(CHUNK);
        }
        chunk.put_slice(&text);
        if let Ok(value) = HeaderValue::from_maybe_shared(chunk.split().freeze()) {
            fields.insert(TRACEPARENT, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::trace::Parents;

    use super::*;

    #[test]
    fn every_request_is_told_of_a_trace_and_a_span_of_its_own() {
        let (parents, policy) = (TraceParents::default(), Policy::new(Parents::Trusted, 0.5));
        let mut seen = std::collections::HashSet::new();
        let mut kept = Vec::new();
        for _ in 0..1000 {
            let mut fields = HeaderMap::new();
            let trace = parents.join(&mut fields, &policy, Trust::Stranger);
            assert_eq!(fields[TRACEPARENT].as_bytes(), trace.text());
            let span = parents.begin(&mut fields, &trace);
            assert_eq!(fields[TRACEPARENT].as_bytes(), trace.text_of(span));
            assert!(seen.insert(trace.id) && span != trace.span);
            kept.push((fields, trace.text_of(span)));
        }
        assert!(kept.iter().all(|(fields, text)| fields[TRACEPARENT].as_bytes() == text), "none overwrites another");
    }
}
