//! New connections to endpoints.

use std::io;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::pool::{Connection, Driver, Sender};
use crate::config::snapshot::{Endpoint, Protocol};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
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

/// Connects, and starts the task that drives the connection; it ends with the connection.
pub(super) async fn connect(
    endpoint: &Endpoint,
    protocol: Protocol,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    tokio::time::timeout(limit, open(endpoint, protocol)).await.map_err(|_| ConnectError::TimedOut(limit))?
}

async fn open(endpoint: &Endpoint, protocol: Protocol) -> Result<Connection, ConnectError> {
    let stream = TcpStream::connect((&*endpoint.host, endpoint.port)).await?;
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?;
    let io = TokioIo::new(stream);
    let (sender, driver) = match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(io).await?;
            let task = spawn_local(async move {
                // How it ended is the exchange's news, told where it is waited for.
                let _ended = connection.await;
            });
            (Sender::Http1(sender), Some(Driver::new(task.abort_handle())))
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(LocalExecutor);
            builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
            let (sender, connection) = builder.handshake(io).await?;
            spawn_local(async move {
                let _ended = connection.await;
            });
            (Sender::Http2(sender), None)
        }
    };
    Ok(Connection::new(sender, address, driver))
}
