//! The sockets that listeners accept on: bound here, kept from one revision of the configuration to the next, and shared out to
//! the workers.
//!
//! A listener is known by its address, so renaming it or changing its settings leaves its sockets alone. The gateway keeps a
//! handle on each beside the workers': connections that wait in a socket's queue are lost only when its last handle is closed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::snapshot::Listener;

/// Connections waiting to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// What tells listeners apart. Where the system chooses the port, several may ask for the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    bind: SocketAddr,
    name: Option<String>,
}

impl Key {
    pub(crate) fn of(listener: &Listener) -> Self {
        let name = (listener.bind.port() == 0).then(|| listener.name.to_string());
        Self { bind: listener.bind, name }
    }
}

/// A listener's sockets.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) key: Key,
    pub(crate) address: SocketAddr,
    /// One for each worker.
    sockets: Vec<TcpListener>,
}

impl Bound {
    /// Binds one socket per worker to the listener's address.
    ///
    /// The kernel would let a second gateway share the address in silence; so the address is first bound alone, which fails when
    /// somebody has it.
    pub(crate) fn new(listener: &Listener, workers: usize) -> io::Result<Self> {
        let alone = TcpListener::bind(listener.bind)?;
        let address = alone.local_addr()?;
        drop(alone);
        let sockets = (0..workers).map(|_| bind_shared(address)).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { key: Key::of(listener), address, sockets })
    }

    /// A handle on a worker's socket.
    pub(crate) fn for_worker(&self, number: usize) -> io::Result<(Key, TcpListener)> {
        let socket = self.sockets.get(number).ok_or(io::ErrorKind::NotFound)?;
        Ok((self.key.clone(), socket.try_clone()?))
    }
}

/// The sockets of all listeners. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets(
    #[allow(
        clippy::disallowed_types,
        reason = "taken for a change of revision and at the end, which no request waits for"
    )]
    Arc<std::sync::Mutex<Vec<Bound>>>,
);

impl Sockets {
    fn bound(&self) -> MutexGuard<'_, Vec<Bound>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.bound().iter().any(|bound| bound.key == *key)
    }

    pub(crate) fn add(&self, more: Vec<Bound>) {
        self.bound().extend(more);
    }

    /// Lets go of all but these listeners'.
    pub(crate) fn keep(&self, listeners: &[Arc<Listener>]) {
        self.bound().retain(|bound| listeners.iter().any(|listener| Key::of(listener) == bound.key));
    }

    /// Lets go of all.
    pub(crate) fn close(&self) {
        self.bound().clear();
    }

    /// Handles on a worker's sockets.
    pub(crate) fn for_worker(&self, number: usize) -> io::Result<Vec<(Key, TcpListener)>> {
        self.bound().iter().map(|bound| bound.for_worker(number)).collect()
    }
}

fn bind_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
