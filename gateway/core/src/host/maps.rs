//! Header maps (ABI reference §6.2): which of them a phase has, and which of those can be changed.

use http::HeaderMap;
use portcullis_abi::{MapType, Status};

use super::Host;
use crate::event::{Direction, End};
use crate::exchange::Stand;
use crate::filter::Callback;
use crate::flow::Stage;
use crate::grpc::News;
use crate::headers::{Headers, Refused};

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
        let flow = exchange.flow_mut(direction);
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

fn written(result: Result<(), Refused>) -> Written {
    result.map_or_else(Written::LeftOut, |()| Written::Done)
}
