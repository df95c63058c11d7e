//! One exchange from its first byte to its access log line: the driver.
//!
//! It takes the request in, waits until the chain has a head for the upstream or for the client, sends it, and hands the bodies
//! to the connections that pull them (see [`crate::message`]). It decides nothing: each step waits for one of a few things, and
//! feeds it to the exchange. Requests of tenants that are set apart are looked at here, and served by the [`bulkhead`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use portcullis_core::admission::{self, Admission};
use portcullis_core::context::UpstreamId;
use portcullis_core::downstream::Patience;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Facts, Place, Wants};
use portcullis_core::forward;
use portcullis_core::headers::{Headers, Scheme, StartLine, strip_hop_by_hop};
use portcullis_core::reply::Failure;
use portcullis_core::tenant;
use portcullis_core::tls::Tls;
use portcullis_core::trace::Trace;
use portcullis_core::upgrade::Offer;

use crate::bulkhead::{self, Tether};
use crate::listener::{Connection, Lane};
use crate::message::{Broken, RequestBody, ResponseBody, ResponseSource, Source, blamed};
use crate::request_id;
use crate::telemetry::Chosen;
use crate::tunnel::{self, Leaving};
use crate::upstream::{Answer, Lease, SendError, Tries, failure_of};
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
}

/// A request that has a place.
struct Admitted {
    ticket: Ticket,
    headers: Headers,
    body: Incoming,
    /// Where it goes; or why it goes nowhere.
    target: Result<UpstreamId, Failure>,
    place: Arc<Place>,
    /// Its wish for a tunnel. Boxed, since few have one.
    leaving: Option<Box<Leaving>>,
}

/// The answer to a request, as its exchange has it.
pub(crate) struct Reply {
    pub(crate) response: Response<ResponseBody>,
    /// Whoever sent a bad request, or not all of it, may mean something else by what follows it.
    pub(crate) is_bad: bool,
}

/// Serves one exchange. An error closes the connection, or resets the HTTP/2 stream: there is no clean answer to give.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    lane: Rc<Lane>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Broken> {
    let version = request.version();
    let arrived = look_at(&worker, &connection, request);
    let Reply { mut response, is_bad } = match admit(&worker, Tie::Lane(lane.clone()), arrived, None) {
        Ok(admitted) => exchange(worker, admitted, Some(&connection)).await?,
        // Boxed: it is rare, and every exchange would carry its state.
        Err(diverted) => Box::pin(bulkhead::hand_over(connection.clone(), lane, diverted)).await?,
    };
    if version < Version::HTTP_2 {
        let has_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !has_switched && (is_bad || connection.ends_with(version)) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        connection.answers.answered(has_switched);
    }
    Ok(response)
}

/// Serves one exchange whose client is another worker's.
pub(crate) async fn serve_here(
    worker: Rc<Worker>,
    tether: Tether,
    (arrived, admitted): (Arrived, tenant::Admitted),
) -> Result<Reply, Broken> {
    match admit(&worker, Tie::Tether(tether), arrived, Some(admitted)) {
        Ok(admitted) => exchange(worker, admitted, None).await,
        // There is no bulkhead in the bulkhead.
        Err(_) => Err(Broken(Failure::UpstreamReset)),
    }
}

/// One exchange, from when it has a place to when its answer has a head.
async fn exchange(
    worker: Rc<Worker>,
    admitted: Admitted,
    connection: Option<&Rc<Connection>>,
) -> Result<Reply, Broken> {
    let Admitted { mut ticket, headers, body, mut target, mut place, mut leaving } = admitted;
    let id = ticket.parts().1;
    let end = End::from_bool(body.is_end_stream());
    let mut source = (!end.is_end()).then(|| Source::new(body));
    worker.feed(id, Event::Request(Part::Head(headers, end)));
    let refused = target.err().filter(|failure| failure.is_refusal());
    if let Some(failure) = refused {
        worker.feed(id, Event::UpstreamFailed(failure));
    }
    let mut answered = Answered::default();
    let mut ready = head(&worker, id, Direction::Request, &mut source).await;
    if let Ready::Upstream(mut headers, end) = ready {
        if let Some(elsewhere) = ticket.reroute(&headers) {
            (place, target) = elsewhere;
        }
        if let Some(leaving) = &mut leaving {
            leaving.begin(&mut headers);
        }
        let body = request_body(&worker, id, source.take(), end);
        // Boxed: hyper moves the whole future about, and this is most of it.
        let answer = Box::pin(async {
            let answer = answer(&worker, id, (target, &place), headers, body).await;
            worker.turn_of(id).await;
            answer
        });
        if let Some(answer) = answer.await {
            answered = take_in(&worker, id, answer, leaving.as_deref_mut());
        }
        ready = head(&worker, id, Direction::Response, &mut answered.source).await;
    }
    match ready {
        Ready::Client(mut headers, end) => {
            let is_bad = refused.is_some() || worker.failed_with(id, Failure::ClientSlow);
            if let Some(times) = ticket.times() {
                headers.fields_mut().append("server-timing", times);
            }
            let response = match leaving {
                None => response(ticket, headers, end, answered),
                Some(leaving) => leaving_response(*leaving, connection.cloned(), ticket, headers, end, answered),
            };
            Ok(Reply { response, is_bad })
        }
        Ready::Upstream(..) => Err(fail(&mut ticket, Failure::UpstreamReset)),
        Ready::Broken(failure) => Err(fail(&mut ticket, failure)),
    }
}

/// What is left of an upstream's answer once its head has been taken in.
#[derive(Default)]
struct Answered {
    /// Its body, if it has one.
    source: Option<Source>,
    lease: Option<Lease>,
}

fn fail(ticket: &mut Ticket, failure: Failure) -> Broken {
    ticket.fail(failure);
    Broken(failure)
}

fn response(mut ticket: Ticket, headers: Headers, end: End, answered: Answered) -> Response<ResponseBody> {
    let (worker, id) = ticket.parts();
    // Where a reply took over, the upstream's body is of no more use, nor is its connection.
    let Answered { source, lease } = if worker.is_local_reply(id) { Answered::default() } else { answered };
    let source = match source {
        None => ResponseSource::Exchange,
        Some(source) if worker.watches_body(id, Direction::Response) => ResponseSource::Fed(source),
        Some(source) => source.into_body().map_or(ResponseSource::Exchange, ResponseSource::Passing),
    };
    let (start, fields) = headers.into_parts();
    let status = match start {
        StartLine::Response { status } => status,
        StartLine::Request { .. } | StartLine::Trailers => http::StatusCode::INTERNAL_SERVER_ERROR,
    };
    ticket.answers(status, &fields);
    let mut response = Response::new(ResponseBody::new(ticket, source, lease, end));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

/// The response to a client that asked to leave HTTP: the opening of its tunnel, or one like any other.
fn leaving_response(
    leaving: Leaving,
    connection: Option<Rc<Connection>>,
    mut ticket: Ticket,
    mut headers: Headers,
    end: End,
    answered: Answered,
) -> Response<ResponseBody> {
    let status = headers.status().unwrap_or_default();
    let shown = leaving.answer(status, headers.fields_mut());
    let mut response = if status == StatusCode::SWITCHING_PROTOCOLS {
        ticket.answers(status, headers.fields());
        leaving.open(ticket, answered.lease, connection);
        let mut response = Response::new(ResponseBody::none());
        *response.headers_mut() = headers.into_parts().1;
        response
    } else {
        // What a filter has made another response of was the end of HTTP on the upstream's connection all the same.
        let lease = if leaving.has_switched() { None } else { answered.lease };
        response(ticket, headers, end, Answered { lease, ..answered })
    };
    *response.status_mut() = shown;
    response
}

/// Looks at a request: what it is, and where it came from.
fn look_at(worker: &Worker, connection: &Connection, request: Request<Incoming>) -> Arrived {
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
        head,
        body,
    }
}

/// A request that is for the bulkhead, and its place in the queue there.
pub(crate) type Diverted = Box<(Arrived, tenant::Admitted, bulkhead::Place)>;

/// Finds out where a request goes, and opens its exchange; or returns it, where it is for the bulkhead. One that comes from another
/// worker has been let in.
fn admit(
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
    let let_in = let_in.map_or_else(|| worker.let_in(account.as_ref()), |admitted| Ok(LetIn::Here(Some(admitted))));
    let (admitted, chain) = match let_in {
        Ok(LetIn::Here(admitted)) => (admitted, spot.chain.clone()),
        Ok(LetIn::Elsewhere(admitted, place)) => return Err(Box::new((arrived, admitted, place))),
        Err(failure) => {
            // Its filters are not asked: what they do is what there is too much of.
            target = Err(failure);
            (None, revision.table.nowhere().chain.clone())
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
    let ticket = worker.open(Opening { revision, chain, facts, request, tie, account, admitted });
    let headers = Headers::request(arrived.head.method, arrived.scheme, arrived.path, arrived.head.headers);
    Ok(Admitted { ticket, headers, body: arrived.body, target, place, leaving })
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

/// A head that is ready to be sent.
enum Ready {
    Upstream(Headers, End),
    Client(Headers, End),
    Broken(Failure),
}

/// Waits until the chain lets a head go; meanwhile reads `source` as far as the filters want it.
async fn head(worker: &Rc<Worker>, id: ExchangeId, direction: Direction, source: &mut Option<Source>) -> Ready {
    poll_fn(|cx| {
        loop {
            if let Some(ready) = ready_head(worker, id, direction) {
                return Poll::Ready(ready);
            }
            worker.wait(id, Direction::Response, cx);
            worker.wait(id, Direction::Request, cx);
            let reads = source
                .as_mut()
                .filter(|_| worker.watches_body(id, direction) && worker.wants(id, direction) == Wants::More);
            let Some(source) = reads else { return Poll::Pending };
            match source.poll_part(cx) {
                Poll::Ready(Some(Ok(part))) => worker.feed(id, Event::part(direction, part)),
                Poll::Ready(Some(Err(error))) if direction == Direction::Response => {
                    worker.feed(id, Event::UpstreamFailed(failure_of(&error)));
                }
                Poll::Ready(Some(Err(error))) => match blamed(&error) {
                    refused if refused.is_refusal() => worker.feed(id, Event::UpstreamFailed(refused)),
                    gone => return Poll::Ready(Ready::Broken(gone)),
                },
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// The head the exchange has ready, if it has: the client's comes first, since it is there only when a reply took over.
fn ready_head(worker: &Worker, id: ExchangeId, direction: Direction) -> Option<Ready> {
    match worker.next_effect(id, Direction::Response) {
        Some(Effect::Send(Part::Head(headers, end))) => return Some(Ready::Client(headers, end)),
        Some(Effect::Abort(failure)) => return Some(Ready::Broken(failure)),
        Some(Effect::Send(Part::Body(..) | Part::Trailers(_))) | None => {}
    }
    if direction == Direction::Response {
        return None;
    }
    match worker.next_effect(id, Direction::Request)? {
        Effect::Send(Part::Head(headers, end)) => Some(Ready::Upstream(headers, end)),
        Effect::Abort(failure) => Some(Ready::Broken(failure)),
        Effect::Send(Part::Body(..) | Part::Trailers(_)) => None,
    }
}

fn request_body(worker: &Rc<Worker>, id: ExchangeId, source: Option<Source>, end: End) -> RequestBody {
    if end.is_end() {
        return RequestBody::Empty;
    }
    match source {
        Some(source) if !worker.watches_body(id, Direction::Request) => {
            source.into_body().map_or(RequestBody::Empty, |body| RequestBody::Passing(worker.clone(), id, body))
        }
        Some(source) => RequestBody::Fed(worker.clone(), id, source),
        // The client has sent none; a filter has.
        None => RequestBody::Fed(worker.clone(), id, Source::ended()),
    }
}

/// Sends the request and waits for the answer; `None` when the exchange has been told otherwise, or a reply took over.
async fn answer(
    worker: &Rc<Worker>,
    id: ExchangeId,
    (target, place): (Result<UpstreamId, Failure>, &Place),
    headers: Headers,
    body: RequestBody,
) -> Option<Answer> {
    let upstream = match target {
        Ok(upstream) => upstream,
        Err(failure) => {
            worker.feed(id, Event::UpstreamFailed(failure));
            return None;
        }
    };
    if headers.path().is_none() {
        // A filter took the path away: there is no route for a request without one, as on Envoy.
        worker.feed(id, Event::UpstreamFailed(Failure::NoRoute));
        return None;
    }
    let tries = Tries::traced(worker.trace(id));
    let sending = worker.upstreams.send(upstream, (headers, body), Some(&place.retry), &tries, &worker.clock);
    let mut sending = pin!(sending);
    let answered = poll_fn(|cx: &mut Context<'_>| {
        if worker.has_reply(id) {
            return Poll::Ready(None);
        }
        worker.wait(id, Direction::Response, cx);
        Pin::new(&mut sending).poll(cx).map(Some)
    })
    .await;
    worker.tried(id, &tries);
    worker.attempted(id, &tries);
    match answered {
        Some(Ok(answer)) => return Some(answer),
        Some(Err(SendError::Reset)) => {
            worker.feed(id, Event::UpstreamFailed(worker.blamed(id).unwrap_or(Failure::UpstreamReset)));
        }
        Some(Err(error)) => worker.feed(id, Event::UpstreamFailed(error.into())),
        None if worker.failure(id) == Some(Failure::UpstreamTimeout) => {
            worker.upstreams.timed_out(upstream, &tries, &worker.clock);
        }
        None => {}
    }
    None
}

/// Takes in the head of an upstream's answer.
fn take_in(worker: &Rc<Worker>, id: ExchangeId, mut answer: Answer, leaving: Option<&mut Leaving>) -> Answered {
    let switched = match leaving {
        Some(leaving) => leaving.take_in(&mut answer.response),
        None => tunnel::unasked(answer.response.status()),
    };
    if let Err(failure) = switched {
        worker.feed(id, Event::UpstreamFailed(failure));
        return Answered::default();
    }
    let (mut head, body) = answer.response.into_parts();
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(&mut head.headers);
    }
    let end = End::from_bool(body.is_end_stream());
    worker.feed(id, Event::Response(Part::Head(Headers::response(head.status, head.headers), end)));
    Answered { source: (!end.is_end()).then(|| Source::new(body)), lease: Some(answer.lease) }
}
