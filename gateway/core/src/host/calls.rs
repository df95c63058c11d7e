//! Calls to upstreams (ABI reference §6.5): HTTP callouts, gRPC calls and streams. They are recorded, and made when the callback
//! has returned.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use portcullis_abi::Status;

use super::Host;
use crate::context::{Callout, CalloutResponse, ContextId, ContextRef, UpstreamId};
use crate::event::End;
use crate::grpc::{self, Begin, Sends, Wish};
use crate::headers::{Headers, Scheme};

/// A callout as a guest asks for it.
#[derive(Clone, Copy, Debug)]
pub struct GuestCallout<'a> {
    /// The upstream's name.
    pub upstream: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// How long it may take; 0 leaves it to the host.
    pub timeout_ms: u32,
}

/// A gRPC method as a guest names it.
#[derive(Clone, Copy, Debug)]
pub struct GuestGrpc<'a> {
    /// The upstream's name, or a message that has it.
    pub upstream: &'a [u8],
    /// The service.
    pub service: &'a [u8],
    /// Its method.
    pub method: &'a [u8],
}

impl Host<'_> {
    /// Whether the guest is a shadow, which wants to call somebody: nobody is called on its behalf, and it is not compared.
    fn is_shadow(&mut self) -> bool {
        if self.contexts.shadow
            && let Some((exchange, _)) = self.exchange_mut()
        {
            exchange.give_up();
        }
        self.contexts.shadow
    }

    /// Starts an HTTP callout; the answer is a later callback of the root. Returns its token.
    ///
    /// # Errors
    /// `BadArgument` for a time beyond 2³¹ ms, an unknown upstream, or a head without method, path or authority;
    /// `InternalFailure` when too many are in flight.
    pub fn http_call<'p>(
        &mut self,
        callout: GuestCallout<'_>,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        trailers: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    ) -> Result<u32, Status> {
        let limits = self.exchanges.limits;
        if callout.timeout_ms >= 1 << 31 {
            return Err(Status::BadArgument);
        }
        let name = std::str::from_utf8(callout.upstream).map_err(|_| Status::BadArgument)?;
        let upstream = *self.contexts.upstreams.get(name).ok_or(Status::BadArgument)?;
        let headers = callout_head(pairs, limits.header_fields)?;
        let root = self.root_ref().ok_or(Status::BadArgument)?;
        if self.is_shadow() {
            return Ok(self.contexts.token());
        }
        let calling = self.contexts.call(limits.callouts, self.exchanges.now)?;
        let mut tail = Headers::trailers(HeaderMap::new());
        tail.set_all(trailers, limits.header_fields);
        let asked = Duration::from_millis(u64::from(callout.timeout_ms));
        self.contexts.callouts_in_flight += 1;
        let token = self.contexts.token();
        let trace = self.exchange().and_then(|(exchange, _)| exchange.facts()?.trace);
        self.exchanges.callouts.push(Callout {
            root,
            token,
            upstream,
            headers,
            body: Bytes::copy_from_slice(callout.body),
            trailers: tail.into_parts().1,
            timeout: if asked.is_zero() { limits.callout_timeout } else { asked.min(limits.callout_timeout) },
            trace,
            calling,
        });
        Ok(token)
    }

    /// Starts a gRPC call: one message each way, told by one callback of the root. Returns its token.
    ///
    /// # Errors
    /// `ParseFailure` for an upstream that is not known, `InternalFailure` when it cannot be started.
    pub fn grpc_call<'p>(
        &mut self,
        call: GuestGrpc<'_>,
        metadata: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        message: &[u8],
        timeout_ms: u32,
    ) -> Result<u32, Status> {
        let limits = self.exchanges.limits;
        let asked = Duration::from_millis(u64::from(timeout_ms));
        let told = (!asked.is_zero()).then_some(asked.min(limits.callout_timeout));
        let (root, upstream, headers) = self.grpc_begin(call, metadata, told)?;
        if message.len() > limits.callout_response_bytes {
            return Err(Status::InternalFailure);
        }
        let calling = self.contexts.call(limits.callouts, self.exchanges.now)?;
        let token = self.contexts.grpc.begin_call(root.id, calling);
        let sends = Sends::One(Bytes::copy_from_slice(message), told.unwrap_or(limits.callout_timeout));
        self.exchanges.grpc.push(Wish::Begin(Begin { root, token, upstream, headers, sends }));
        Ok(token)
    }

    /// Opens a gRPC stream. Returns its token.
    ///
    /// # Errors
    /// As [`Self::grpc_call`].
    pub fn grpc_stream<'p>(
        &mut self,
        call: GuestGrpc<'_>,
        metadata: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    ) -> Result<u32, Status> {
        let (root, upstream, headers) = self.grpc_begin(call, metadata, None)?;
        let calling = self.contexts.call(self.exchanges.limits.callouts, self.exchanges.now)?;
        let (token, waiting) = self.contexts.grpc.begin_stream(root.id, calling);
        let sends = Sends::Many(waiting);
        self.exchanges.grpc.push(Wish::Begin(Begin { root, token, upstream, headers, sends }));
        Ok(token)
    }

    fn grpc_begin<'p>(
        &mut self,
        call: GuestGrpc<'_>,
        metadata: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        timeout: Option<Duration>,
    ) -> Result<(ContextRef, UpstreamId, Headers), Status> {
        if self.is_shadow() {
            return Err(Status::InternalFailure);
        }
        let upstreams = &self.contexts.upstreams;
        let target = grpc::target(call.upstream, |name| upstreams.contains_key(name))?;
        let upstream = *upstreams.get(target.upstream).ok_or(Status::ParseFailure)?;
        let max_fields = self.exchanges.limits.header_fields;
        let headers = grpc::head(&target, (call.service, call.method), metadata, timeout, max_fields)?;
        let root = self.root_ref().ok_or(Status::InternalFailure)?;
        Ok((root, upstream, headers))
    }

    fn grpc_name(&self, token: u32) -> Result<(ContextId, grpc::Name), Status> {
        let root = self.root_ref().ok_or(Status::NotFound)?;
        Ok((root.id, grpc::Name { life: root.life, token }))
    }

    /// Sends a message on a stream.
    ///
    /// # Errors
    /// `NotFound` for a stream that is not under way; `BadArgument` for what is no stream, one that the guest has closed, or
    /// one on which as much waits as may.
    pub fn grpc_send(&mut self, token: u32, message: &[u8], end: End) -> Result<(), Status> {
        let (root, name) = self.grpc_name(token)?;
        let limit = self.exchanges.limits.callout_response_bytes;
        self.contexts.grpc.send(root, token, message.len(), end, limit)?;
        self.exchanges.grpc.push(Wish::Send(name, Bytes::copy_from_slice(message), end));
        Ok(())
    }

    /// Says that nothing more will be sent on a stream; ends a call.
    ///
    /// # Errors
    /// `NotFound` for what is not under way, `BadArgument` for an HTTP callout.
    pub fn grpc_close(&mut self, token: u32) -> Result<(), Status> {
        let (root, name) = self.grpc_name(token)?;
        let was_call = self.contexts.grpc.close(root, token)?;
        self.exchanges.grpc.push(if was_call { Wish::Cancel(name) } else { Wish::Close(name) });
        Ok(())
    }

    /// Breaks a call or a stream off; nothing more is heard of it.
    ///
    /// # Errors
    /// `NotFound` for what is not under way, `BadArgument` for an HTTP callout.
    pub fn grpc_cancel(&mut self, token: u32) -> Result<(), Status> {
        let (root, name) = self.grpc_name(token)?;
        self.contexts.grpc.cancel(root, token)?;
        self.exchanges.grpc.push(Wish::Cancel(name));
        Ok(())
    }

    /// The sizes a callout callback announces: headers, body bytes, trailers.
    #[must_use]
    pub fn callout_sizes(response: &CalloutResponse) -> (usize, usize, usize) {
        let count = |headers: &Option<Headers>| headers.as_ref().map_or(0, Headers::count);
        (count(&response.headers), response.body.len(), count(&response.trailers))
    }
}

/// The head of a callout. Envoy asks for method, path and authority, and takes `host` for the last.
fn callout_head<'p>(pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>, max_fields: usize) -> Result<Headers, Status> {
    let path = http::uri::PathAndQuery::from_static("/");
    let mut headers = Headers::request(http::Method::GET, Scheme::Http, path, HeaderMap::new());
    let mut has_method = false;
    headers.set_all(pairs.inspect(|(name, _)| has_method |= *name == b":method"), max_fields);
    let complete = has_method && headers.path().is_some() && headers.authority().is_some();
    if complete { Ok(headers) } else { Err(Status::BadArgument) }
}
