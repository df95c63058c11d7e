//! `services.rate_limit`: Envoy's rate-limit API (`envoy.service.ratelimit.v3`), for gateways that share limits.
//!
//! gRPC in the clear over HTTP/2, or without any connection for the filters of this process. What is asked is read in
//! [`decision`], where the states are is [`store`]'s to say. [`Host`] follows the configuration: what did not change goes on, the
//! states above all.

mod decision;
mod host;
mod redis;
mod store;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_abi::limit::Order;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use self::decision::{SharedLimit, SharedLimits};
pub(crate) use self::host::Host;
pub(crate) use self::redis::{Login, Settings as RedisSettings, Tls, Topology};
use self::store::Store;
pub(crate) use self::store::{Amount, DECISION, OnFailure, StoreSettings};
use crate::clock::Clock;
use crate::services;
use crate::telemetry::RateLimitCounts;
use crate::upstream::LocalExecutor;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The same request, of what was let pass before: hits are owed whatever the limits say. Gateways' own; the API has no words for it.
const SETTLE: &str = "/portcullis.ratelimit.v1.RateLimitService/Settle";
/// Connections served at once: one for each worker of each gateway, as a rule.
const MAX_CONNECTIONS: usize = 4096;
const MAX_STREAMS: u32 = 1000;
/// The most bytes of a request.
const MAX_REQUEST: usize = 64 << 10;
/// How long a request may take to come in, and a client to answer a PING.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often silent clients are asked whether they are there.
const PING: Duration = Duration::from_secs(60);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who decides, for connections and for filters of this process: as long as the process lives, whatever is configured.
#[derive(Debug)]
pub(crate) struct Service {
    serving: watch::Sender<Option<Arc<Serving>>>,
    clock: Clock,
    counts: Arc<RateLimitCounts>,
}

/// What is configured, with its states.
#[derive(Debug)]
struct Serving {
    rules: Arc<SharedLimits>,
    store: Arc<Store>,
    on_failure: OnFailure,
}

/// What a gRPC status means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed = 3,
    TooSlow = 4,
    Unknown = 12,
    /// No service is configured any more.
    Gone = 14,
}

impl Service {
    fn new(counts: Arc<RateLimitCounts>) -> Self {
        Self { serving: watch::Sender::new(None), clock: Clock::start(), counts }
    }

    /// The answer to a `RateLimitRequest`.
    pub(crate) async fn answer(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let order = match path {
            METHOD => Order::Take,
            SETTLE => Order::Settle,
            _ => return Err(Refusal::Unknown),
        };
        let serving = self.serving.borrow().clone().ok_or(Refusal::Gone)?;
        let asked = serving.rules.read(message).ok_or(Refusal::Malformed)?;
        let now = self.clock.now().as_nanos();
        let (order, parts) = (asked.order(order), (asked.domain, &asked.parts[..]));
        let verdicts = serving.store.order(order, parts, serving.on_failure, now, &self.counts).await;
        Ok(asked.answer(&verdicts.ok_or(Refusal::Malformed)?))
    }
}

/// Serves until dropped, on the thread it is polled on.
async fn serve(listener: TcpListener, service: Arc<Service>) {
    services::accept(listener, MAX_CONNECTIONS, "a connection to the rate-limit service", |stream| {
        let _late = stream.set_nodelay(true);
        connection(TokioIo::new(stream), service.clone())
    })
    .await;
}

async fn connection(stream: TokioIo<tokio::net::TcpStream>, service: Arc<Service>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(request, &service).await) }
    });
    let served = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PATIENCE)
        .serve_connection(stream, answer);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the rate-limit service ended");
    }
}

async fn answer(request: Request<Incoming>, service: &Service) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return refused(Refusal::Malformed),
        Err(_) => return refused(Refusal::TooSlow),
    };
    let Some(message) = message_of(&body) else { return refused(Refusal::Malformed) };
    service.answer(head.uri.path(), message).await.map_or_else(refused, |message| reply(&message))
}

/// The one message of a gRPC body, uncompressed.
fn message_of(body: &[u8]) -> Option<&[u8]> {
    let (head, message) = body.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *head;
    (compressed == 0 && usize::try_from(u32::from_be_bytes(length)).ok()? == message.len()).then_some(message)
}

fn head() -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn refused(refusal: Refusal) -> Response<Body> {
    let mut response = head();
    response.headers_mut().insert("grpc-status", HeaderValue::from(refusal as u32));
    response
}

fn reply(message: &[u8]) -> Response<Body> {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    head().map(|_| body.boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_message_or_none() {
        for (body, want) in [
            (&b"\0\0\0\0\x02ab"[..], Some(&b"ab"[..])),
            (b"\0\0\0\0\0", Some(b"")),
            (b"\x01\0\0\0\x02ab", None),
            (b"\0\0\0\0\x03ab", None),
            (b"\0\0\0\0\x01ab", None),
            (b"\0\xff\xff\xff\xffab", None),
            (b"\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(message_of(body), want, "{body:?}");
        }
    }
}
