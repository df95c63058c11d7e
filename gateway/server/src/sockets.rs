//! The sockets that listeners accept on: bound here, kept from one revision of the configuration to the next, and shared out to
//! the workers.
//!
//! A listener is known by its address, so renaming it or changing its settings leaves its sockets alone. The gateway keeps a
//! handle on each beside the workers': connections that wait in a socket's queue are lost only when its last handle is closed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::snapshot::Listener;
use crate::inherited::Inherited;
use crate::listener::Places;

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
    /// One for each worker; more where there were more workers before.
    sockets: Vec<Vec<TcpListener>>,
    /// How many connections there are, on all workers.
    places: Arc<Places>,
}

/// A handle on a socket, with the listener it belongs to and the connections that has.
pub(crate) type Handle = (Key, TcpListener, Arc<Places>);

impl Bound {
    /// One socket per worker for the listener: inherited ones, if there are, or new ones.
    ///
    /// The kernel would let a second gateway share the address in silence; so it is first bound alone, which fails when somebody
    /// has it.
    pub(crate) fn new(listener: &Listener, workers: usize, inherited: &Inherited) -> io::Result<Self> {
        let inherited = inherited.take(listener.bind, &listener.name);
        let address = match inherited.first() {
            Some(socket) => socket.local_addr()?,
            None => TcpListener::bind(listener.bind)?.local_addr()?,
        };
        let mut sockets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        // Every one must have somebody who accepts on it, or what waits there waits for ever.
        for (worker, socket) in (0..workers).cycle().zip(inherited) {
            sockets.get_mut(worker).into_iter().for_each(|own| own.extend(socket.try_clone()));
        }
        let first = sockets.first().and_then(|own| own.first()).map(TcpListener::try_clone).transpose()?;
        for own in sockets.iter_mut().filter(|own| own.is_empty()) {
            own.push(match (bind_shared(address), &first) {
                // Bound by somebody who did not mean to share the address: then workers share the socket.
                (Err(_), Some(first)) => first.try_clone()?,
                (bound, _) => bound?,
            });
        }
        Ok(Self { key: Key::of(listener), address, sockets, places: Arc::default() })
    }

    /// Handles on a worker's sockets.
    pub(crate) fn for_worker(&self, number: usize) -> io::Result<Vec<Handle>> {
        let own = self.sockets.get(number).map_or(&[][..], Vec::as_slice);
        own.iter().map(|socket| Ok((self.key.clone(), socket.try_clone()?, self.places.clone()))).collect()
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
    pub(crate) fn for_worker(&self, number: usize) -> io::Result<Vec<Handle>> {
        let own = self.bound().iter().map(|bound| bound.for_worker(number)).collect::<io::Result<Vec<_>>>()?;
        Ok(own.into_iter().flatten().collect())
    }

    /// Handles on all, for a successor.
    pub(crate) fn to_pass_on(&self) -> io::Result<Vec<OwnedFd>> {
        let bound = self.bound();
        bound.iter().flat_map(|bound| &bound.sockets).flatten().map(|socket| Ok(socket.try_clone()?.into())).collect()
    }
}

/// A socket that others may bind too.
pub(crate) fn bind_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
