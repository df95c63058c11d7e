//! What a guest can ask to become of an exchange (ABI reference §6.4). **Invariant:** nothing of it happens before its callback
//! has returned.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use portcullis_abi::{Status, StreamType};

use super::Host;
use crate::event::Direction;
use crate::exchange::{Asked, Exchange, Stand};
use crate::filter::Speaks;
use crate::flow::Gate;
use crate::headers::Headers;
use crate::reply::{Details, LocalReply};

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

impl Host<'_> {
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
        let Some(station) = exchange.flow_mut(direction).station(owner.filter) else { return Ok(()) };
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
}
