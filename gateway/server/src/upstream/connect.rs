//! New connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_core::limits::Limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::lease::Open;
use super::pool::{Connection, Driver, Sender, Streams};
use super::watched::Watched;
use crate::config::snapshot::{Protocol, Upstream};
use crate::telemetry::UpstreamCounts;

/// How many exchanges an HTTP/2 connection carries before its endpoint has said how many it allows; the others wait for that.
const UNTOLD: usize = 1;

/// Bytes of one HTTP/2 response that may wait here for a client that does not read.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes that may wait here of all responses of a connection together. It is far more than one stream's, since clients that do not
/// read must not stop the others: 128 of them are needed for that, more than servers usually allow streams.
const CONNECTION_WINDOW: u32 = 128 * STREAM_WINDOW;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// Puts the HTTP/2 library's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}

/// Connects, and starts the task that drives the connection; it ends with the connection, and `open` with it.
///
/// `host` is what the endpoint has to prove itself with, where it has to.
pub(super) async fn connect(
    (address, host): (SocketAddr, &str),
    spec: &Upstream,
    limit: Duration,
    open: Option<Open>,
    counts: &Arc<UpstreamCounts>,
) -> Result<Connection, ConnectError> {
    let made = tokio::time::timeout(limit, make((address, host), spec, open, counts)).await;
    made.map_err(|_| ConnectError::TimedOut(limit))?
}

async fn make(
    (address, host): (SocketAddr, &str),
    spec: &Upstream,
    open: Option<Open>,
    counts: &Arc<UpstreamCounts>,
) -> Result<Connection, ConnectError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &spec.tls else {
        let (sender, driver) = speak(stream, spec.protocol == Protocol::Http2, open, counts).await?;
        return Ok(Connection::new(sender, address, driver, None));
    };
    let stream = tls.connect(host, stream).await.map_err(ConnectError::Tls)?;
    let (known, h2) = (Some(stream.known()), stream.speaks_h2());
    if spec.protocol == Protocol::Http2 && !h2 {
        return Err(ConnectError::Tls(io::Error::other("it does not offer HTTP/2 by ALPN")));
    }
    let (sender, driver) = speak(stream, h2, open, counts).await?;
    Ok(Connection::new(sender, address, driver, known))
}

async fn speak<S>(
    stream: S,
    h2: bool,
    open: Option<Open>,
    counts: &Arc<UpstreamCounts>,
) -> Result<(Sender, Option<Driver>), ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if !h2 {
        let (stream, line) = Watched::new(stream, counts.clone());
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let task = spawn_local(async move {
            // How it ended is the exchange's news, told where it is waited for.
            let _ended = connection.with_upgrades().await;
            drop(open);
        });
        return Ok((Sender::Http1(sender, line), Some(Driver::new(task.abort_handle()))));
    }
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_header_list_size(u32::try_from(Limits::DEFAULT.response_head_bytes).unwrap_or(u32::MAX));
    // Until the endpoint has said how many it allows: or a burst would be more than that, and what is too much refused.
    builder.initial_max_send_streams(UNTOLD);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let streams = Rc::<Streams>::default();
    let allowed = streams.clone();
    spawn_local(async move {
        let mut connection = std::pin::pin!(connection);
        let _ended = std::future::poll_fn(|cx| {
            let poll = connection.as_mut().poll(cx);
            // The endpoint may change its mind at any time.
            let told = connection.current_max_send_streams();
            if told != UNTOLD {
                allowed.allow(told);
            }
            allowed.look(cx, || connection.is_extended_connect_protocol_enabled());
            poll
        })
        .await;
        drop(open);
    });
    Ok((Sender::Http2(sender, streams), None))
}
