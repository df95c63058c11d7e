//! Buffers (ABI reference §6.3): bodies that a filter sees or holds, answers to calls, configurations.

use bytes::Bytes;
use portcullis_abi::{BufferType, Status};

use super::Host;
use crate::buffer::Buffer;
use crate::event::Direction;
use crate::filter::{Callback, HeadersPause, Speaks};
use crate::flow::{Gate, Hold};
use crate::grpc::News;

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

impl Host<'_> {
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
                    // What arrives behind a head that is held back has not been shown to the filter yet.
                    let station = exchange.flow(direction).stations.get(filter)?;
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
        let flow = exchange.flow_mut(direction);
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
