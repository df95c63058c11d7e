//! One exchange from its first byte to its access log line: the driver.
//!
//! It takes the request in, waits until the chain has a head for the upstream or for the client, sends it, and hands the bodies
//! to the connections that pull them (see [`crate::message`]). It decides nothing: each step waits for one of a few things, and
//! feeds it to the exchange. Requests of tenants that are set apart are looked at here, and served by the [`bulkhead`].

mod admit;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use portcullis_core::context::UpstreamId;
use portcullis_core::event::{Direction, Effect, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Place, Wants};
use portcullis_core::headers::{Headers, StartLine, strip_hop_by_hop};
use portcullis_core::reply::Failure;
use portcullis_core::tenant;

use self::admit::{Admitted, admit, look_at};
pub(crate) use self::admit::{Arrived, Diverted};
use crate::bulkhead::{self, Tether};
use crate::listener::{Connection, Lane};
use crate::message::{Broken, RequestBody, ResponseBody, ResponseSource, Source, blamed};
use crate::tunnel::{self, Leaving};
use crate::upstream::{Answer, Lease, SendError, Tries, failure_of};
use crate::worker::{Ticket, Tie, Worker};

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
    tether: Rc<Tether>,
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
        StartLine::Request { .. } | StartLine::Trailers => StatusCode::INTERNAL_SERVER_ERROR,
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
    let noted = Noted { worker, id, tries: &tries };
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
    drop(noted);
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

/// Notes what was tried of an exchange's request when it goes: at the latest with the client, who may leave at any time.
struct Noted<'a> {
    worker: &'a Worker,
    id: ExchangeId,
    tries: &'a Tries,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.worker.tried(self.id, self.tries);
        self.worker.attempted(self.id, self.tries);
    }
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
