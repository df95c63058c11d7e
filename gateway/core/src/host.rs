//! Questions a guest may ask while it is being called.
//!
//! A [`Host`] speaks Rust types and knows no guest memory; `gateway/vm` and `sdk/testing` decode and encode around it. It never
//! calls a guest and never waits: what a guest starts is recorded, and done when its callback has returned. Statuses follow the
//! ABI reference §6, and never leave the set that SDKs accept (§12.1).

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use portcullis_abi::{BufferType, MapType, Status, StreamType};

use crate::buffer::Buffer;
use crate::context::{
    Callout, CalloutResponse, ContextId, ContextRef, Contexts, Entry, Farewell, Owner, Root, UpstreamId, Writes,
};
use crate::event::{Direction, End};
use crate::exchange::{Asked, Exchange, Exchanges, Stand};
use crate::filter::{Callback, FilterIndex, HeadersPause, Speaks};
use crate::flow::{Gate, Hold, Stage};
use crate::grpc::{self, Begin, News, Sends, Wish};
use crate::headers::{Headers, Refused, Scheme};
use crate::property;
use crate::reply::{Details, LocalReply};
use crate::time::Time;

/// What a guest sees of the gateway during one callback.
#[derive(Debug)]
pub struct Host<'a> {
    /// The worker's exchanges, lent for the callback.
    pub exchanges: &'a mut Exchanges,
    /// The guest's VM.
    pub contexts: &'a mut Contexts,
}

/// A local reply as a guest asks for it.
#[derive(Clone, Copy, Debug)]
pub struct GuestReply<'a> {
    /// The status code, unchecked.
    pub status: u32,
    /// What to call it in logs.
    pub details: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// The gRPC status; -1 as unsigned means "none".
    pub grpc_status: u32,
}

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

/// What a write to a header map came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was made.
    Done,
    /// It was left out, since it could not be put on a wire. The guest hears `Ok`: SDKs abort on any other status, and one
    /// bad value from a client must not cost the VM. The caller logs it.
    LeftOut(Refused),
}

impl Host<'_> {
    /// The context a call is about: the effective one, or the one whose callback runs.
    fn context(&self) -> Option<Entry> {
        self.contexts.entry(self.contexts.effective.or(self.contexts.current)?)
    }

    fn owner(&self) -> Option<Owner> {
        match self.context()? {
            Entry::Exchange(owner) => Some(owner),
            Entry::Root(_) => None,
        }
    }

    fn exchange(&self) -> Option<(&Exchange, FilterIndex)> {
        let owner = self.owner()?;
        Some((self.exchanges.get(owner.exchange)?, owner.filter))
    }

    fn exchange_mut(&mut self) -> Option<(&mut Exchange, FilterIndex)> {
        let owner = self.owner()?;
        Some((self.exchanges.get_mut(owner.exchange)?, owner.filter))
    }

    /// The root of the context a call is about.
    #[must_use]
    pub fn root(&self) -> Option<&Root> {
        self.contexts.roots.get(self.root_index()?)
    }

    /// The name among all VMs of the root of the context a call is about.
    #[must_use]
    pub fn root_ref(&self) -> Option<ContextRef> {
        Some(ContextRef { vm: self.contexts.vm, life: self.contexts.life, id: self.root()?.id })
    }

    /// Whether the guest is a shadow, which wants to call somebody: nobody is called on its behalf, and it is not compared.
    fn is_shadow(&mut self) -> bool {
        if self.contexts.shadow
            && let Some((exchange, _)) = self.exchange_mut()
        {
            exchange.give_up();
        }
        self.contexts.shadow
    }

    fn root_index(&self) -> Option<usize> {
        match self.context()? {
            Entry::Root(index) => Some(index),
            Entry::Exchange(owner) => Some(owner.root),
        }
    }

    /// A header map, if this phase has it.
    #[must_use]
    pub fn map(&self, map: MapType) -> Option<&Headers> {
        match map {
            MapType::HttpCallResponseHeaders => self.contexts.callout.as_ref()?.headers.as_ref(),
            MapType::HttpCallResponseTrailers => self.contexts.callout.as_ref()?.trailers.as_ref(),
            MapType::GrpcReceiveInitialMetadata => match self.contexts.grpc.hearing.as_ref()? {
                News::Began(headers) => Some(headers),
                News::Message(_) | News::Trailers(_) | News::Ended(_) => None,
            },
            MapType::GrpcReceiveTrailingMetadata => match self.contexts.grpc.hearing.as_ref()? {
                News::Trailers(headers) => Some(headers),
                News::Began(_) | News::Message(_) | News::Ended(_) => None,
            },
            MapType::HttpRequestHeaders
            | MapType::HttpRequestTrailers
            | MapType::HttpResponseHeaders
            | MapType::HttpResponseTrailers => {
                let (exchange, filter) = self.exchange()?;
                let flow = if is_request(map) { &exchange.request } else { &exchange.response };
                let ending = exchange.stand == Stand::Ending;
                if is_trailers(map) {
                    let here = flow.stations.get(filter).is_some_and(|station| station.trailers);
                    let made =
                        flow.new_trailers.as_ref().filter(|_| exchange.running(filter, direction_of(map)).is_some());
                    made.or(flow.trailers.as_ref().filter(|_| here || ending))
                } else {
                    (ending || flow.stage == Stage::HeadAt(filter)).then(|| flow.head()).flatten()
                }
            }
        }
    }

    /// A header map to change, if this phase allows it. Trailers come into being on the first write in the last body callback.
    fn map_mut(&mut self, map: MapType) -> Option<&mut Headers> {
        let direction = match map {
            MapType::HttpRequestHeaders | MapType::HttpRequestTrailers => Direction::Request,
            MapType::HttpResponseHeaders | MapType::HttpResponseTrailers => Direction::Response,
            MapType::GrpcReceiveInitialMetadata
            | MapType::GrpcReceiveTrailingMetadata
            | MapType::HttpCallResponseHeaders
            | MapType::HttpCallResponseTrailers => return None,
        };
        let (exchange, filter) = self.exchange_mut()?;
        if exchange.stand == Stand::Ending {
            return None;
        }
        let in_last_body = matches!(exchange.running(filter, direction), Some(Callback::Body(_, _, End::Yes)));
        let flow = exchange.flow(direction);
        if !is_trailers(map) {
            return (flow.stage == Stage::HeadAt(filter)).then_some(flow.headers.as_mut()).flatten();
        }
        let station = flow.stations.get(filter)?;
        if station.trailers {
            return flow.trailers.as_mut();
        }
        let makes = in_last_body && flow.trailers.is_none();
        makes.then(|| flow.new_trailers.get_or_insert_with(|| Headers::trailers(HeaderMap::new())))
    }

    /// The first value of a header.
    ///
    /// # Errors
    /// `NotFound` when it is absent or the map is not available. Envoy answers `BadArgument` in the second case, on which Rust's
    /// SDK aborts; no plugin can rely on that.
    pub fn header(&self, map: MapType, name: &[u8]) -> Result<&[u8], Status> {
        self.map(map).and_then(|headers| headers.get(name)).ok_or(Status::NotFound)
    }

    /// Replaces a whole map; entries that cannot be written are left out, and counted.
    ///
    /// # Errors
    /// `BadArgument` when the map cannot be changed now.
    pub fn set_map<'p>(
        &mut self,
        map: MapType,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    ) -> Result<usize, Status> {
        let max = self.exchanges.limits.header_fields;
        Ok(self.map_mut(map).ok_or(Status::BadArgument)?.set_all(pairs, max))
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// `BadArgument` when the map cannot be changed now.
    pub fn add_header(&mut self, map: MapType, name: &[u8], value: &[u8]) -> Result<Written, Status> {
        let max = self.exchanges.limits.header_fields;
        Ok(written(self.map_mut(map).ok_or(Status::BadArgument)?.add(name, value, max)))
    }

    /// Replaces all entries of a name by one.
    ///
    /// # Errors
    /// `BadArgument` when the map cannot be changed now.
    pub fn replace_header(&mut self, map: MapType, name: &[u8], value: &[u8]) -> Result<Written, Status> {
        let max = self.exchanges.limits.header_fields;
        Ok(written(self.map_mut(map).ok_or(Status::BadArgument)?.replace(name, value, max)))
    }

    /// Removes all entries of a name.
    ///
    /// # Errors
    /// `BadArgument` when the map cannot be changed now.
    pub fn remove_header(&mut self, map: MapType, name: &[u8]) -> Result<(), Status> {
        self.map_mut(map).ok_or(Status::BadArgument)?.remove(name);
        Ok(())
    }

    /// Hands the pieces of a buffer's range, and their total length, to `give`.
    ///
    /// # Errors
    /// `NotFound` when there is no such buffer now; else what `give` answers.
    pub fn buffer(&self, buffer: BufferType) -> Result<GuestBuffer<'_>, Status> {
        match buffer {
            BufferType::HttpRequestBody
            | BufferType::HttpResponseBody
            | BufferType::DownstreamData
            | BufferType::UpstreamData => {
                let held = self.exchange().and_then(|(exchange, filter)| {
                    let (_, direction) = passing(buffer).filter(|(speaks, _)| *speaks == exchange.chain.speaks())?;
                    let flow = match direction {
                        Direction::Request => &exchange.request,
                        Direction::Response => &exchange.response,
                    };
                    // What arrives behind a head that is held back has not been shown to the filter yet.
                    let station = flow.stations.get(filter)?;
                    (!matches!(station.gate, Gate::StopAll(_))).then_some(&station.visible)
                });
                Ok(held.map_or(GuestBuffer::Bytes(&[]), GuestBuffer::Held))
            }
            // Always there on Envoy, and empty without a gRPC stream.
            BufferType::GrpcReceiveBuffer => Ok(GuestBuffer::Bytes(match &self.contexts.grpc.hearing {
                Some(News::Message(message)) => message,
                Some(News::Began(_) | News::Trailers(_) | News::Ended(_)) | None => &[],
            })),
            BufferType::CallData => Ok(GuestBuffer::Bytes(&[])),
            BufferType::HttpCallResponseBody => {
                let callout = self.contexts.callout.as_ref().ok_or(Status::NotFound)?;
                Ok(GuestBuffer::Bytes(&callout.body))
            }
            BufferType::VmConfiguration => Ok(GuestBuffer::Bytes(&self.contexts.vm_configuration)),
            // Envoy has it during `proxy_on_configure` only; other hosts' plugins read it at any time.
            BufferType::PluginConfiguration => {
                Ok(GuestBuffer::Bytes(&self.root().ok_or(Status::NotFound)?.configuration))
            }
        }
    }

    /// Replaces a range of a body. A body can be changed while its filter sees or holds it.
    ///
    /// Two things more than on Envoy, for a filter whose heads are held: a message that ends with its head gets a body, from the
    /// filter that the head is with; and what is set in the trailers' callback goes on before the trailers. A REST call can
    /// become a gRPC call by that, and a gRPC status the last of a body.
    ///
    /// # Errors
    /// `BadArgument` when the buffer cannot be changed, or not now; `NotFound` for a callout's answer when there is none.
    pub fn set_buffer(&mut self, buffer: BufferType, start: usize, size: usize, data: Bytes) -> Result<(), Status> {
        if buffer == BufferType::HttpCallResponseBody && self.contexts.callout.is_none() {
            return Err(Status::NotFound);
        }
        let (speaks, direction) = passing(buffer).ok_or(Status::BadArgument)?;
        let limit = self.exchanges.limits.held_bytes;
        let (exchange, filter) = self.exchange_mut().ok_or(Status::BadArgument)?;
        if exchange.chain.speaks() != speaks {
            return Err(Status::BadArgument);
        }
        let running = exchange.running(filter, direction);
        let adds = exchange.filter(filter).is_some_and(|filter| filter.headers_pause == HeadersPause::HoldsHeaders);
        let sees = match running {
            Some(Callback::Body(..) | Callback::Data(..)) => true,
            Some(Callback::Trailers(..)) => adds,
            _ => false,
        };
        let flow = exchange.flow(direction);
        let gives = adds && flow.has_no_body_yet(filter) && !data.is_empty();
        let station = flow.stations.get_mut(filter).ok_or(Status::BadArgument)?;
        if !sees && !gives && station.hold == Hold::Nothing {
            return Err(Status::BadArgument);
        }
        if gives {
            (station.hold, station.ended) = (Hold::Buffer, true);
            flow.headers_end = false;
        }
        if station.held().saturating_add(data.len()) > limit.saturating_mul(4) {
            return Err(Status::BadArgument);
        }
        station.visible.splice(start, size, data);
        flow.modified = true;
        Ok(())
    }

    /// Asks for a paused direction to go on, once the callback has returned. One that is not paused is left alone.
    ///
    /// # Errors
    /// `Unimplemented` for the upstream side of a TCP stream, as on Envoy.
    pub fn continue_stream(&mut self, stream: StreamType) -> Result<(), Status> {
        let (speaks, direction) = match stream {
            StreamType::HttpRequest => (Speaks::Http, Direction::Request),
            StreamType::HttpResponse => (Speaks::Http, Direction::Response),
            StreamType::Downstream => (Speaks::Tcp, Direction::Request),
            StreamType::Upstream => return Err(Status::Unimplemented),
        };
        let Some(owner) = self.owner() else { return Ok(()) };
        let live = |exchange: &&mut Exchange| exchange.stand != Stand::Ending && exchange.chain.speaks() == speaks;
        let Some(exchange) = self.exchanges.get_mut(owner.exchange).filter(live) else { return Ok(()) };
        let in_callback = exchange.running(owner.filter, direction).is_some();
        let Some(station) = exchange.flow(direction).station(owner.filter) else { return Ok(()) };
        // Asked for in advance it would undo a later pause.
        if in_callback || station.gate != Gate::Open {
            station.resume = true;
            self.exchanges.wake(owner.exchange);
        }
        Ok(())
    }

    /// Asks for the route to be chosen again, when the request's head leaves the chain. Later it has no effect.
    pub fn clear_route_cache(&mut self) {
        if let Some((exchange, _)) = self.exchange_mut() {
            exchange.reroute();
        }
    }

    /// Asks for the exchange to be broken off, once the callback has returned.
    pub fn close_stream(&mut self, stream: StreamType) {
        let speaks = match stream {
            StreamType::HttpRequest | StreamType::HttpResponse => Speaks::Http,
            StreamType::Downstream | StreamType::Upstream => Speaks::Tcp,
        };
        self.ask(speaks, Asked::Close);
    }

    /// Asks for a local reply, once the callback has returned. The first in a callback wins; where there is no exchange to reply
    /// to, it has no effect.
    pub fn send_local_response<'p>(
        &mut self,
        reply: GuestReply<'_>,
        fields: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    ) {
        let max = self.exchanges.limits.header_fields;
        let mut headers = Headers::trailers(HeaderMap::new());
        // A `:status` among the fields is ignored, and what cannot be written is left out: this map takes neither.
        fields.for_each(|(name, value)| _ = headers.add(name, value, max));
        let status = u16::try_from(reply.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let words = match reply.details {
            [] => "filter_reply".to_owned(),
            words => String::from_utf8_lossy(words).replace(char::is_whitespace, "_"),
        };
        let reply = LocalReply {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            details: Details::Filter(words.into()),
            fields: headers.into_parts().1,
            body: Bytes::copy_from_slice(reply.body),
            grpc_status: (reply.grpc_status != u32::MAX).then_some(reply.grpc_status),
        };
        self.ask(Speaks::Http, Asked::Reply(reply));
    }

    /// Records a wish, where it is one that a stream of this kind knows.
    fn ask(&mut self, speaks: Speaks, asked: Asked) {
        if let Some(owner) = self.owner()
            && let Some(exchange) = self.exchanges.get_mut(owner.exchange)
            && exchange.chain.speaks() == speaks
        {
            exchange.ask(asked);
            self.exchanges.wake(owner.exchange);
        }
    }

    /// Makes later calls of this callback about another context; 0 ends that.
    ///
    /// # Errors
    /// `BadArgument` for an id that is not in this VM.
    pub fn set_effective_context(&mut self, id: u32) -> Result<(), Status> {
        if id == 0 {
            self.contexts.effective = None;
            return Ok(());
        }
        self.contexts.entry(ContextId(id)).ok_or(Status::BadArgument)?;
        self.contexts.effective = Some(ContextId(id));
        Ok(())
    }

    /// A root that had asked for time at its end needs no more of it.
    ///
    /// # Errors
    /// `NotFound` when the calling context's root has not asked for time.
    pub fn done(&mut self) -> Result<(), Status> {
        let root = self.root_index().and_then(|index| self.contexts.roots.get_mut(index)).ok_or(Status::NotFound)?;
        if root.farewell != Farewell::Awaited {
            return Err(Status::NotFound);
        }
        root.farewell = Farewell::Done;
        Ok(())
    }

    /// A property's value in Envoy's encoding.
    ///
    /// # Errors
    /// `NotFound`, or `SerializationFailure` for what has no single value.
    pub fn property(&self, path: &[u8]) -> Result<Vec<u8>, Status> {
        let exchange = self.exchange().map(|(exchange, _)| exchange);
        let plugin = self.root().map(|root| property::Plugin { name: &root.name, vm_id: &self.contexts.vm_id });
        property::get(exchange, plugin, self.exchanges.now, path)
    }

    /// Sets a property on the exchange, for this and later filters.
    ///
    /// # Errors
    /// `NotFound` in a root context, as on Envoy; `BadArgument` when the exchange holds as much as it may, or when it is a second
    /// write to one that was declared for reading.
    pub fn set_property(&mut self, path: &[u8], value: &[u8]) -> Result<(), Status> {
        let limit = self.exchanges.limits.property_bytes;
        let once = self.contexts.writes(path) == Writes::Once;
        let (exchange, _) = self.exchange_mut().ok_or(Status::NotFound)?;
        if once && exchange.properties.iter().any(|(name, _)| name == path) {
            return Err(Status::BadArgument);
        }
        property::set(&mut exchange.properties, path, value, limit)
    }

    /// Sets or, with 0, stops the timer of the calling context's root. Periods below the limit are lengthened to it.
    pub fn set_tick(&mut self, period_ms: u32) {
        let period = std::time::Duration::from_millis(u64::from(period_ms)).max(self.exchanges.limits.shortest_tick);
        let now: Time = self.exchanges.now;
        let Some(root) = self.root_index().and_then(|index| self.contexts.roots.get_mut(index)) else { return };
        root.tick = (period_ms > 0).then_some(period);
        root.next_tick = root.tick.map(|period| now + period);
        self.exchanges.timers_changed = true;
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
        let asked = std::time::Duration::from_millis(u64::from(callout.timeout_ms));
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
        let asked = std::time::Duration::from_millis(u64::from(timeout_ms));
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
        timeout: Option<std::time::Duration>,
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

/// Bytes a guest may read.
#[derive(Clone, Copy, Debug)]
pub enum GuestBuffer<'a> {
    /// In one piece.
    Bytes(&'a [u8]),
    /// A held body, in several.
    Held(&'a Buffer),
}

impl<'a> GuestBuffer<'a> {
    /// How many bytes there are.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Held(buffer) => buffer.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The pieces of up to `max` bytes from `start` on.
    pub fn range(self, start: usize, max: usize) -> impl Iterator<Item = &'a [u8]> + Clone {
        let (one, many) = match self {
            Self::Bytes(bytes) => {
                let rest = bytes.get(start..).unwrap_or_default();
                (rest.get(..max.min(rest.len())), None)
            }
            Self::Held(buffer) => (None, Some(buffer.range(start, max))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

fn is_request(map: MapType) -> bool {
    matches!(map, MapType::HttpRequestHeaders | MapType::HttpRequestTrailers)
}

fn direction_of(map: MapType) -> Direction {
    if is_request(map) { Direction::Request } else { Direction::Response }
}

fn is_trailers(map: MapType) -> bool {
    matches!(map, MapType::HttpRequestTrailers | MapType::HttpResponseTrailers)
}

/// Which direction of what kind of stream a buffer shows, if it shows one.
fn passing(buffer: BufferType) -> Option<(Speaks, Direction)> {
    match buffer {
        BufferType::HttpRequestBody => Some((Speaks::Http, Direction::Request)),
        BufferType::HttpResponseBody => Some((Speaks::Http, Direction::Response)),
        BufferType::DownstreamData => Some((Speaks::Tcp, Direction::Request)),
        BufferType::UpstreamData => Some((Speaks::Tcp, Direction::Response)),
        BufferType::HttpCallResponseBody
        | BufferType::GrpcReceiveBuffer
        | BufferType::VmConfiguration
        | BufferType::PluginConfiguration
        | BufferType::CallData => None,
    }
}

fn written(result: Result<(), Refused>) -> Written {
    result.map_or_else(Written::LeftOut, |()| Written::Done)
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
