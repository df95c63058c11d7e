//! The service in the process: its thread, its socket and its states, as the configuration has them from revision to revision.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_local};

use super::redis::Redis;
use super::store::{Store, StoreSettings};
use super::{Service, Serving, serve};
use crate::config::snapshot::{RateLimitService, Snapshot};
use crate::sockets;
use crate::supervisor::{RunError, runtime};
use crate::telemetry::{Configured, RateLimitCounts};

/// What the service's thread is to do beside what it does.
enum Order {
    /// Accept connections here, and nowhere else.
    Accept(Option<TcpListener>),
    /// Keep this store connected, and no other.
    Keep(Arc<Store>),
}

/// A socket that was bound before anything changed, for [`Host::follow`].
pub(crate) enum Socket {
    Same,
    Other(Option<(SocketAddr, TcpListener)>),
}

impl Socket {
    /// Where it listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Other(Some((_, socket))) => socket.local_addr().ok(),
            Self::Same | Self::Other(None) => None,
        }
    }
}

/// Who follows the configuration.
pub(crate) struct Host {
    service: Arc<Service>,
    bind: Option<SocketAddr>,
    store: Option<(StoreSettings, Arc<Store>)>,
    thread: Option<(UnboundedSender<Order>, JoinHandle<()>)>,
}

impl Host {
    /// Serves nothing yet.
    pub(crate) fn new(counts: Arc<RateLimitCounts>) -> Self {
        Self { service: Arc::new(Service::new(counts)), bind: None, store: None, thread: None }
    }

    /// Who decides.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Binds the address of another configuration, if it is another one.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub(crate) fn bind(&self, snapshot: &Snapshot) -> Result<Socket, RunError> {
        let wanted = snapshot.rate_limit.as_ref().and_then(|service| service.bind);
        if wanted == self.bind {
            return Ok(Socket::Same);
        }
        let Some(address) = wanted else { return Ok(Socket::Other(None)) };
        // Shared, so that a successor can bind it before this one has gone.
        let socket = sockets::bind_shared(address);
        let what = || "the rate-limit service".to_owned();
        let socket = socket.map_err(|source| RunError::Bind { what: what(), address, source })?;
        Ok(Socket::Other(Some((address, socket))))
    }

    /// Serves what the configuration has. States stay where their store stays the same.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, socket: Socket) -> io::Result<()> {
        let counts = self.service.counts.clone();
        let Some(RateLimitService { rules, store: settings, on_failure, .. }) = &snapshot.rate_limit else {
            counts.configured(Configured::Nothing);
            self.service.serving.send_replace(None);
            (self.bind, self.store) = (None, None);
            self.end();
            return Ok(());
        };
        let store = match &self.store {
            Some((same, store)) if same == settings => store.clone(),
            _ => {
                let redis = match settings {
                    StoreSettings::Memory => None,
                    StoreSettings::Redis(settings) => Some(Redis::new(settings.clone())),
                };
                let store = Arc::new(Store::new(redis));
                self.order(Order::Keep(store.clone()))?;
                self.store = Some((settings.clone(), store.clone()));
                store
            }
        };
        counts.configured(if store.redis.is_some() { Configured::Store } else { Configured::Service });
        let (rules, on_failure) = (rules.clone(), *on_failure);
        self.service.serving.send_replace(Some(Arc::new(Serving { rules, store, on_failure })));
        if let Socket::Other(other) = socket {
            self.bind = other.as_ref().map(|(address, _)| *address);
            self.order(Order::Accept(other.map(|(_, socket)| socket)))?;
        }
        Ok(())
    }

    fn order(&mut self, order: Order) -> io::Result<()> {
        let (orders, _) = match &mut self.thread {
            Some(thread) => thread,
            none => {
                let (orders, ordered) = unbounded_channel();
                let service = self.service.clone();
                let body = move || match runtime() {
                    Ok(runtime) => runtime.block_on(run(service, ordered)),
                    Err(error) => tracing::error!(%error, "the rate-limit service cannot run"),
                };
                none.insert((orders, thread::Builder::new().name("rate-limit".to_owned()).spawn(body)?))
            }
        };
        // A thread that has ended has said why.
        let _ended = orders.send(order);
        Ok(())
    }

    /// Accepts nothing more, and cuts off what is open.
    pub(crate) fn end(&mut self) {
        if let Some((orders, thread)) = self.thread.take() {
            drop(orders);
            // A thread that panicked has said so on stderr.
            _ = thread.join();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread, until nobody is left to order anything.
async fn run(service: Arc<Service>, mut orders: UnboundedReceiver<Order>) {
    let (mut accepting, mut keeping): (Option<AbortHandle>, Option<AbortHandle>) = (None, None);
    let instead = |of: &mut Option<AbortHandle>, by: Option<AbortHandle>| {
        if let Some(before) = std::mem::replace(of, by) {
            before.abort();
        }
    };
    while let Some(order) = orders.recv().await {
        match order {
            Order::Accept(socket) => {
                let listener = socket.map(tokio::net::TcpListener::from_std).transpose();
                let listener = listener.unwrap_or_else(|error| {
                    tracing::error!(%error, "the rate-limit service cannot accept");
                    None
                });
                let service = &service;
                let task = listener.map(|listener| spawn_local(serve(listener, service.clone())).abort_handle());
                instead(&mut accepting, task);
            }
            Order::Keep(store) => {
                let counts = service.counts.clone();
                counts.set_connected(false);
                let keep = async move {
                    if let Some(redis) = &store.redis {
                        redis.keep(&counts).await;
                    }
                };
                instead(&mut keeping, Some(spawn_local(keep).abort_handle()));
            }
        }
    }
}
