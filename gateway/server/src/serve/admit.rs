//! A request's way in: what it is, where it goes, and whether it is let in.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::uri::PathAndQuery;
use http::{Method, Request, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use portcullis_core::admission::{self, Admission};
use portcullis_core::context::UpstreamId;
use portcullis_core::downstream::Patience;
use portcullis_core::event::End;
use portcullis_core::exchange::{Facts, Place};
use portcullis_core::forward;
use portcullis_core::headers::{Headers, Scheme};
use portcullis_core::reply::Failure;
use portcullis_core::tenant;
use portcullis_core::time::Time;
use portcullis_core::tls::Tls;
use portcullis_core::trace::Trace;
use portcullis_core::upgrade::Offer;

use crate::bulkhead;
use crate::listener::Connection;
use crate::request_id;
use crate::telemetry::Chosen;
use crate::tunnel::Leaving;
use crate::worker::{Described, LetIn, Opening, Ticket, Tie, Worker};

/// A request that has been looked at: what it is, and where it came from.
pub(crate) struct Arrived {
    head: http::request::Parts,
    body: Incoming,
    path: PathAndQuery,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// Why it goes nowhere.
    refused: Option<Failure>,
    /// What it offers to leave HTTP for.
    offer: Option<Offer>,
    scheme: Scheme,
    source: SocketAddr,
    destination: SocketAddr,
    connection_id: u64,
    request_id: HeaderValue,
    tls: Option<Arc<Tls>>,
    patience: Patience,
    trace: Option<Trace>,
    /// The fields that are to be logged.
    fields: Chosen,
    tells_times: bool,
    /// When it was handed over, if it was.
    handed_over: Option<Time>,
}

/// A request that has a place.
pub(super) struct Admitted {
    pub(super) ticket: Ticket,
    pub(super) headers: Headers,
    pub(super) body: Incoming,
    /// Where it goes; or why it goes nowhere.
    pub(super) target: Result<UpstreamId, Failure>,
    pub(super) place: Arc<Place>,
    /// Its wish for a tunnel. Boxed, since few have one.
    pub(super) leaving: Option<Box<Leaving>>,
}

/// Looks at a request: what it is, and where it came from.
pub(super) fn look_at(worker: &Worker, connection: &Connection, request: Request<Incoming>) -> Arrived {
    let (mut head, body) = request.into_parts();
    let end = End::from_bool(body.is_end_stream());
    let offer = offer(&mut head, end);
    let Admission { host, user_agent, path, mut refused } = admission::admit(&mut head, connection.rules);
    if refused.is_none() && is_misdirected(connection, host.as_ref()) {
        refused = Some(Failure::Misdirected);
    }
    let scheme = connection.scheme();
    let fresh_id = || request_id::fresh(&worker.clock);
    let trusts = |address| connection.trusts(address);
    let (client, request_id) = forward::prepare_request(&mut head.headers, &connection.peer, scheme, trusts, fresh_id);
    let tells_times = connection.tells_times(&mut head.headers);
    if let Some(offer) = &offer {
        offer.show(&mut head.headers);
    }
    let trust = connection.peer.trust;
    let join = |policy: &_| worker.telemetry.join_trace(&mut head.headers, policy, trust);
    let trace = worker.revision().table.tracing().map(join);
    Arrived {
        path,
        host,
        user_agent,
        refused,
        offer,
        scheme,
        // The port is the peer's own only while the peer is the client.
        source: SocketAddr::new(client, if client == connection.address.ip() { connection.address.port() } else { 0 }),
        destination: connection.local,
        connection_id: connection.id,
        request_id,
        tls: connection.tls.clone(),
        patience: connection.patience(),
        trace,
        fields: worker.telemetry.chosen_of_request(&head.headers),
        tells_times,
        handed_over: None,
        head,
        body,
    }
}

/// A request that is for the bulkhead, and its place in the queue there.
pub(crate) type Diverted = Box<(Arrived, tenant::Admitted, bulkhead::Place)>;

/// Finds out where a request goes, and opens its exchange; or returns it, where it is for the bulkhead. One that comes from another
/// worker has been let in.
pub(super) fn admit(
    worker: &Rc<Worker>,
    tie: Tie,
    mut arrived: Arrived,
    let_in: Option<tenant::Admitted>,
) -> Result<Admitted, Diverted> {
    let revision = worker.revision();
    let head = &mut arrived.head;
    let (spot, mut target) = match arrived.refused {
        Some(failure) => (revision.table.nowhere(), Err(failure)),
        None => revision.table.route(&head.method, arrived.host.as_ref(), &arrived.path, &head.headers),
    };
    let account = spot.account.clone();
    let let_in = match let_in {
        Some(admitted) => waited_for(worker, arrived.handed_over, &spot.place, admitted),
        None => worker.let_in(account.as_ref(), &spot.place.tenant),
    };
    let (admitted, chain, account) = match let_in {
        Ok(LetIn::Here(admitted)) => (admitted, spot.chain.clone(), account),
        Ok(LetIn::Elsewhere(admitted, place)) => {
            arrived.handed_over = Some(worker.clock.now());
            return Err(Box::new((arrived, admitted, place)));
        }
        Err(failure) => {
            // Its filters are not asked: what they do is what there is too much of. Nor does it wait for their sake.
            target = Err(failure);
            (None, revision.table.nowhere().chain.clone(), None)
        }
    };
    let leaving = arrived.offer.and_then(|offer| {
        if let Err(failure) = offer.settle(&spot.tunnels.allowed, &mut head.headers) {
            target = target.and(Err(failure));
        }
        let client = head.extensions.remove()?;
        Some(Box::new(Leaving::new(offer.asked(), spot.tunnels.idle, client)))
    });
    let place = spot.place.clone();
    let facts = Facts {
        source: arrived.source,
        destination: arrived.destination,
        protocol: protocol(head.version),
        connection_id: arrived.connection_id,
        request_id: arrived.request_id,
        tls: arrived.tls,
        place: place.clone(),
        patience: arrived.patience,
        trace: arrived.trace,
    };
    let request = Some(Described {
        method: arrived.head.method.clone(),
        path: arrived.path.clone(),
        host: arrived.host,
        user_agent: arrived.user_agent,
        fields: arrived.fields,
        tells_times: arrived.tells_times,
    });
    let began = arrived.handed_over;
    let ticket = worker.open(Opening { revision, chain, facts, began, request, tie, account, admitted });
    let headers = Headers::request(arrived.head.method, arrived.scheme, arrived.path, arrived.head.headers);
    Ok(Admitted { ticket, headers, body: arrived.body, target, place, leaving })
}

/// Lets a request in that was handed over, unless it has waited for longer than its route lets it take.
fn waited_for(
    worker: &Worker,
    handed_over: Option<Time>,
    place: &Place,
    admitted: tenant::Admitted,
) -> Result<LetIn, Failure> {
    let now = worker.clock.now();
    let waited = handed_over.map_or(Duration::ZERO, |at| now.saturating_since(at));
    admitted.account().apart.serves(waited);
    if waited > place.times.request { Err(Failure::RequestTimeout) } else { Ok(LetIn::Here(Some(admitted))) }
}

/// What the client offers to leave HTTP for. An extended CONNECT (RFC 8441) is then what it means: a GET.
fn offer(head: &mut http::request::Parts, end: End) -> Option<Offer> {
    // The library knows whom it could let go: no client over HTTP/1.0, which has no upgrades (RFC 9110 §7.8).
    head.extensions.get::<OnUpgrade>()?;
    if head.method != Method::CONNECT {
        return Offer::in_fields(&head.method, &head.headers, end);
    }
    let protocol = head.extensions.get::<hyper::ext::Protocol>()?;
    let offer = Offer::in_connect(protocol.as_str());
    head.method = Method::GET;
    Some(offer)
}

/// Whether the host that is asked for is not one the connection is for. A request of HTTP/1.0 may name none.
fn is_misdirected(connection: &Connection, host: Option<&HeaderValue>) -> bool {
    let (Some(tls), Some(host)) = (&connection.tls, host) else { return false };
    !host.to_str().is_ok_and(|host| tls.may_ask_for(host))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
