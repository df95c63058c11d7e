//! Property path → value, in Envoy's encodings (ABI reference §8).
//!
//! `request.*` and `response.*` stay readable for the whole exchange where Envoy takes them away between phases: a superset that
//! telemetry plugins were written against. The old top-level names work beside the new ones.

use std::net::SocketAddr;

use bytes::Bytes;
use portcullis_abi::{Status, pairs};

use crate::event::Direction;
use crate::exchange::{Exchange, Reached, Stand};
use crate::filter::Speaks;
use crate::headers::Headers;
use crate::reply::{Details, Failure};
use crate::time::{Time, nanos};
use crate::tls::{Certificate, Tls, url_encoded_pem};

type Value = Result<Vec<u8>, Status>;

/// What a plugin reads of itself.
#[derive(Clone, Copy, Debug)]
pub struct Plugin<'a> {
    /// `plugin_name` and `plugin_root_id`.
    pub name: &'a str,
    /// `plugin_vm_id`.
    pub vm_id: &'a str,
}

/// The value at `path`, whose segments are joined by NUL.
///
/// # Errors
/// `NotFound` for what does not exist here or now, `SerializationFailure` for an empty path or an object without a value.
pub fn get(exchange: Option<&Exchange>, plugin: Option<Plugin<'_>>, now: Time, path: &[u8]) -> Value {
    if path.is_empty() {
        return Err(Status::SerializationFailure);
    }
    let mut segments = path.split(|byte| *byte == 0);
    let first = segments.next().unwrap_or_default();
    let second = segments.next();
    let rest = second.map(|second| path.get(first.len() + second.len() + 2..)).unwrap_or_default();
    let found = match first {
        b"plugin_name" | b"plugin_root_id" => text(plugin.map(|plugin| plugin.name.as_bytes())),
        b"plugin_vm_id" => text(plugin.map(|plugin| plugin.vm_id.as_bytes())),
        // A gateway has no name in a mesh, which is how Envoy tells of an Envoy without one.
        b"xds" if second == Some(b"node") && matches!(rest, Some(b"id" | b"cluster")) => Ok(Vec::new()),
        _ => match exchange {
            None => Err(Status::NotFound),
            Some(exchange) => attribute(exchange, now, first, second, rest),
        },
    };
    match (found, exchange) {
        (Err(Status::NotFound), Some(exchange)) => stored(exchange, path),
        (found, _) => found,
    }
}

/// Stores a value on the exchange. Attributes of the gateway's own keep their value whatever is stored under their name.
///
/// # Errors
/// `BadArgument` when the exchange's properties together would exceed `limit` bytes.
pub fn set(properties: &mut Vec<(Bytes, Bytes)>, path: &[u8], value: &[u8], limit: usize) -> Result<(), Status> {
    let others: usize =
        properties.iter().filter(|(name, _)| name != path).map(|(name, value)| name.len() + value.len()).sum();
    if others + path.len() + value.len() > limit {
        return Err(Status::BadArgument);
    }
    let value = Bytes::copy_from_slice(value);
    match properties.iter_mut().find(|(name, _)| name == path) {
        Some((_, old)) => *old = value,
        None => properties.push((Bytes::copy_from_slice(path), value)),
    }
    Ok(())
}

fn stored(exchange: &Exchange, path: &[u8]) -> Value {
    // Envoy shows what a plugin stores under `filter_state` too, with "wasm." before the name.
    let name = path.strip_prefix(b"filter_state\0wasm.").unwrap_or(path);
    let found = exchange.properties.iter().find(|(stored, _)| stored == name);
    text(found.map(|(_, value)| &value[..]))
}

fn attribute(exchange: &Exchange, now: Time, first: &[u8], second: Option<&[u8]>, rest: Option<&[u8]>) -> Value {
    match (first, second) {
        (
            b"request" | b"response" | b"source" | b"destination" | b"connection" | b"upstream" | b"xds"
            | b"filter_state",
            None,
        ) => Err(Status::SerializationFailure),
        // There is no dynamic metadata here: an absent message, and an empty map in it.
        (b"metadata", None) => Ok(Vec::new()),
        (b"metadata", Some(b"filter_metadata")) if rest.is_none() => Ok(vec![0; 4]),
        (b"request", Some(name)) => request(exchange, now, name, rest),
        (b"response", Some(name)) => response(exchange, name, rest),
        (b"source", Some(name)) => address(exchange.facts().map(|facts| facts.source), name),
        (b"destination", Some(name)) => address(exchange.facts().map(|facts| facts.destination), name),
        (b"connection", Some(name)) => connection(exchange, name),
        (b"connection_id", None) => connection(exchange, b"id"),
        (b"upstream", Some(b"request_attempt_count")) => int(u64::from(exchange.attempts())),
        (b"upstream", Some(name @ (b"num_endpoints" | b"cx_pool_ready_duration"))) => reached(exchange.reached, name),
        (b"upstream", Some(b"locality" | b"transport_failure_reason")) if exchange.upstream_address().is_some() => {
            Ok(Vec::new())
        }
        (b"upstream", Some(name)) => address(exchange.upstream_address(), name),
        (b"xds", Some(b"cluster_name")) | (b"cluster_name", None) => {
            named(exchange.facts().map(|facts| &facts.place.upstream[..]))
        }
        (b"xds", Some(b"route_name")) | (b"route_name", None) => {
            named(exchange.facts().map(|facts| &facts.place.route[..]))
        }
        (b"xds", Some(b"virtual_host_name")) => named(exchange.facts().map(|facts| &facts.place.tenant[..])),
        // Messages without content, as of what was configured without metadata; an endpoint has not even that.
        (
            b"xds",
            Some(
                b"cluster_metadata"
                | b"route_metadata"
                | b"virtual_host_metadata"
                | b"listener_metadata"
                | b"filter_chain_name",
            ),
        ) if rest.is_none() => Ok(Vec::new()),
        (b"xds", Some(b"upstream_host_metadata")) if exchange.upstream_address().is_some() => {
            Err(Status::SerializationFailure)
        }
        // 1 is "inbound" in Envoy's enum.
        (b"xds", Some(b"listener_direction")) | (b"listener_direction", None) => int(1),
        _ => Err(Status::NotFound),
    }
}

/// How the upstream was reached, once its response has begun.
fn reached(reached: Option<Reached>, name: &[u8]) -> Value {
    let Reached { endpoints, waited } = reached.ok_or(Status::NotFound)?;
    int(if name == b"num_endpoints" { endpoints as u64 } else { nanos(waited) })
}

fn request(exchange: &Exchange, now: Time, name: &[u8], rest: Option<&[u8]>) -> Value {
    let headers = exchange.request.head();
    let path = headers.and_then(Headers::path);
    let (received, _) = exchange.body_bytes(Direction::Request);
    // A connection has no request whose times could be told.
    let is_http = exchange.chain.speaks() == Speaks::Http;
    let header_bytes = headers.map(Headers::byte_size);
    match name {
        b"path" => text(path.map(|path| path.as_str().as_bytes())),
        b"url_path" => text(path.map(|path| path.path().as_bytes())),
        b"query" => text(path.map(|path| path.query().unwrap_or_default().as_bytes())),
        b"host" => text(headers.and_then(Headers::authority)),
        b"scheme" => text(headers.and_then(|headers| Some(headers.scheme()?.as_str().as_bytes()))),
        b"method" => text(headers.and_then(|headers| Some(headers.method()?.as_str().as_bytes()))),
        b"headers" => map(headers, rest),
        b"headers_bytes" => header_bytes.map_or(Err(Status::NotFound), |bytes| int(bytes as u64)),
        b"referer" => header(headers, b"referer"),
        b"useragent" => header(headers, b"user-agent"),
        b"id" => header(headers, b"x-request-id"),
        b"time" => int(exchange.started().as_nanos()),
        b"protocol" => named(exchange.facts().map(|facts| facts.protocol)),
        b"duration" if exchange.stand == Stand::Ending && is_http => {
            int(nanos(now.saturating_since(exchange.started())))
        }
        b"size" => int(headers.and_then(Headers::content_length).unwrap_or(received)),
        b"total_size" => int(received + header_bytes.unwrap_or(0) as u64),
        _ => Err(Status::NotFound),
    }
}

fn response(exchange: &Exchange, name: &[u8], rest: Option<&[u8]>) -> Value {
    let headers = exchange.response.head();
    let (_, sent) = exchange.body_bytes(Direction::Response);
    let ending = exchange.stand == Stand::Ending;
    let is_http = exchange.chain.speaks() == Speaks::Http;
    let header_bytes = headers.map_or(0, Headers::byte_size) as u64;
    match name {
        b"code" => match headers.and_then(Headers::status) {
            Some(status) => int(u64::from(status.as_u16())),
            None => Err(Status::NotFound),
        },
        b"code_details" if exchange.stand != Stand::Requesting && is_http => {
            text(Some(exchange.details().map_or("via_upstream", |details| details.as_str()).as_bytes()))
        }
        b"headers" => map(headers, rest),
        b"trailers" if rest.is_none() && exchange.response.trailers.is_none() => Ok(vec![0; 4]),
        b"trailers" => map(exchange.response.trailers.as_ref(), rest),
        b"flags" => int(flags(exchange.details())),
        b"headers_bytes" if ending => int(header_bytes),
        b"size" => int(sent),
        b"total_size" if ending => int(sent + header_bytes),
        b"grpc_status" if ending || headers.is_some() => match grpc_status(exchange) {
            Some(status) => int(std::str::from_utf8(status).ok().and_then(|status| status.parse().ok()).unwrap_or(2)),
            None => int(2),
        },
        b"backend_latency" if ending && is_http => match exchange.responded {
            Some(at) => int(nanos(at.saturating_since(exchange.started()))),
            None => Err(Status::NotFound),
        },
        _ => Err(Status::NotFound),
    }
}

/// Envoy's bits for what went wrong (`CoreResponseFlag` there); filters that reply set none.
fn flags(details: Option<&Details>) -> u64 {
    let Some(Details::Gateway(failure)) = details else { return 0 };
    match failure {
        Failure::NoRoute => 1 << 8,
        Failure::UpstreamTimeout | Failure::UpstreamTryTimeout => 1 << 2,
        Failure::UpstreamConnect | Failure::UpstreamConnectTimeout | Failure::UpstreamTls => 1 << 5,
        Failure::UpstreamReset => 1 << 6,
        Failure::UpstreamOverloaded => 1 << 7,
        Failure::TenantRequests => 1 << 11,
        Failure::ClientGone => 1 << 14,
        Failure::Idle | Failure::ClientSlow => 1 << 16,
        Failure::RequestTimeout => 1 << 22,
        Failure::UpstreamProtocol => 1 << 23,
        Failure::BadRequest
        | Failure::BadFraming
        | Failure::BadHost
        | Failure::BadPath
        | Failure::BadField
        | Failure::UriTooLong
        | Failure::HeadTooLarge
        | Failure::NotImplemented
        | Failure::VersionNotSupported
        | Failure::Misdirected => 1 << 18,
        Failure::UpgradeRefused
        | Failure::UpgradeFailed
        | Failure::RequestTooLarge
        | Failure::ResponseTooLarge
        | Failure::FilterFailed
        | Failure::FilterBusy
        | Failure::FilterTimeout
        | Failure::FilterClosed
        | Failure::TenantInFlight
        | Failure::TenantCpu
        | Failure::TenantUnavailable
        | Failure::LengthMismatch => 0,
    }
}

/// A gRPC response says how it went in its trailers, or, when it has no body, in its head.
fn grpc_status(exchange: &Exchange) -> Option<&[u8]> {
    let flow = &exchange.response;
    [flow.trailers.as_ref(), flow.head()].into_iter().flatten().find_map(|headers| headers.get(b"grpc-status"))
}

fn connection(exchange: &Exchange, name: &[u8]) -> Value {
    match name {
        b"id" => exchange.facts().map_or(Err(Status::NotFound), |facts| int(facts.connection_id)),
        b"mtls" => Ok(vec![u8::from(tls(exchange).is_some_and(|tls| tls.peer.is_some()))]),
        b"requested_server_name" => {
            Ok(tls(exchange).and_then(|tls| tls.server_name.as_deref()).unwrap_or_default().as_bytes().to_vec())
        }
        b"tls_version" => text(tls(exchange).map(|tls| tls.version.as_bytes())),
        _ => certificate(exchange, name),
    }
}

fn tls(exchange: &Exchange) -> Option<&Tls> {
    exchange.facts()?.tls.as_deref()
}

/// What the certificates on both sides of the client's connection say. Where there are several names, the first.
fn certificate(exchange: &Exchange, name: &[u8]) -> Value {
    let peer = || tls(exchange).and_then(|tls| tls.peer.as_ref());
    let own = || tls(exchange).and_then(Tls::own);
    let subject = |certificate: Option<&Certificate>| text(certificate.map(|found| found.subject.as_bytes()));
    let dns = |certificate: Option<&Certificate>| text(certificate.and_then(|found| first(&found.dns_names)));
    let uri = |certificate: Option<&Certificate>| text(certificate.and_then(|found| first(&found.uris)));
    match name {
        b"subject_local_certificate" => subject(own()),
        b"subject_peer_certificate" => subject(peer()),
        b"dns_san_local_certificate" => dns(own()),
        b"dns_san_peer_certificate" => dns(peer()),
        b"uri_san_local_certificate" => uri(own()),
        b"uri_san_peer_certificate" => uri(peer()),
        b"sha256_peer_certificate_digest" => text(peer().map(|peer| peer.sha256.as_bytes())),
        b"peer_certificate" => peer().map(|peer| url_encoded_pem(&peer.der).into_bytes()).ok_or(Status::NotFound),
        _ => Err(Status::NotFound),
    }
}

fn first(names: &[String]) -> Option<&[u8]> {
    names.first().map(String::as_bytes)
}

fn address(address: Option<SocketAddr>, name: &[u8]) -> Value {
    match (address, name) {
        (Some(address), b"address") => Ok(address.to_string().into_bytes()),
        (Some(address), b"port") => int(u64::from(address.port())),
        _ => Err(Status::NotFound),
    }
}

fn header(headers: Option<&Headers>, name: &[u8]) -> Value {
    text(headers.and_then(|headers| headers.get(name)))
}

fn map(headers: Option<&Headers>, name: Option<&[u8]>) -> Value {
    let headers = headers.ok_or(Status::NotFound)?;
    let Some(name) = name else { return Ok(all(headers)) };
    headers.joined(name).ok_or(Status::NotFound)
}

/// The whole map, repeats joined as Envoy's attribute does it.
fn all(headers: &Headers) -> Vec<u8> {
    let mut joined: Vec<(&[u8], Vec<u8>)> = Vec::with_capacity(headers.count());
    for (name, value) in headers.iter() {
        match joined.iter_mut().find(|(seen, _)| *seen == name) {
            Some((_, values)) => {
                values.push(b',');
                values.extend_from_slice(value);
            }
            None => joined.push((name, value.to_vec())),
        }
    }
    let mut out = Vec::new();
    pairs::write(|| joined.iter().map(|(name, value)| (*name, &value[..])), |piece| out.extend_from_slice(piece));
    out
}

fn named(name: Option<&str>) -> Value {
    text(name.filter(|name| !name.is_empty()).map(str::as_bytes))
}

fn text(value: Option<&[u8]>) -> Value {
    value.map(<[u8]>::to_vec).ok_or(Status::NotFound)
}

fn int(value: u64) -> Value {
    Ok(value.to_le_bytes().to_vec())
}
