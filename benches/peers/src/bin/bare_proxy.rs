//! The least a proxy can be on hyper: the "bare hyper" column of `cargo xtask bench proxy`.
//!
//! One thread, one upstream, a pool of HTTP/1.1 connections, bodies streamed. No routes, filters, header rules, logs,
//! metrics, timeouts or retries: what Portcullis costs above this is what Portcullis added.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

fn main() -> anyhow::Result<()> {
    let mut addresses = std::env::args().skip(1).map(|argument| argument.parse());
    let usage = "usage: bare_proxy LISTEN ORIGIN";
    let listen: SocketAddr = addresses.next().context(usage)??;
    let origin: SocketAddr = addresses.next().context(usage)??;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, accept(listen, Rc::new(Pool { origin, idle: RefCell::default() })))
}

async fn accept(listen: SocketAddr, pool: Rc<Pool>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(serve(stream, Rc::clone(&pool)));
    }
}

async fn serve(stream: TcpStream, pool: Rc<Pool>) {
    let service = service_fn(move |request| forward(request, Rc::clone(&pool)));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        eprintln!("bare_proxy: {error}");
    }
}

async fn forward(request: Request<Incoming>, pool: Rc<Pool>) -> anyhow::Result<Response<Lent>> {
    let mut sender = pool.take().await?;
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| Lent { body, owner: Some((sender, pool)) }))
}

/// The idle connections to the one origin.
struct Pool {
    origin: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

impl Pool {
    async fn take(&self) -> anyhow::Result<SendRequest<Incoming>> {
        loop {
            // A statement of its own, so that the borrow ends before the wait.
            let idle = self.idle.borrow_mut().pop();
            let Some(mut sender) = idle else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.origin).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

/// A response body that gives its connection back to the pool once it was read to its end.
struct Lent {
    body: Incoming,
    owner: Option<(SendRequest<Incoming>, Rc<Pool>)>,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A body dropped half read leaves its connection unusable; hyper closes it when the sender goes.
        if self.body.is_end_stream()
            && let Some((sender, pool)) = self.owner.take()
        {
            pool.idle.borrow_mut().push(sender);
        }
    }
}
