//! Connections on loan: one that is idle, or a new one, or a wait for either.
//!
//! An upstream may have a limit on its connections; then requests beyond it wait in line, first come, first served, and those
//! beyond the line are refused. Over HTTP/2, requests that come while a connection is being made wait for that one.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use portcullis_core::upstream::EndpointIndex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::connect::{self, ConnectError};
use super::pool::Connection;
use super::tries::{Course, Origin, Tries};
use super::{MAY_BE_STALE, SendError, Upstream};
use crate::clock::Clock;
use crate::config::snapshot::{Endpoint, Protocol};

/// A connection on loan. Back to its pool when the response was read to its end, closed otherwise.
pub(crate) struct Lease {
    upstream: Rc<Upstream>,
    endpoint: EndpointIndex,
    connection: Option<Connection>,
    /// The request counts as active for as long as this lives.
    pub(super) active: Option<Active>,
}

impl Lease {
    pub(super) fn begin(upstream: &Rc<Upstream>, endpoint: EndpointIndex) -> Self {
        upstream.balancer.borrow_mut().started(endpoint);
        Self { upstream: upstream.clone(), endpoint, connection: None, active: None }
    }

    pub(super) fn endpoint(&self) -> EndpointIndex {
        self.endpoint
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// The response has been read to its end: the connection may be used again.
    pub(crate) fn done(mut self, clock: &Clock) {
        if let Some(connection) = self.connection.take() {
            self.upstream.put_back(self.endpoint, connection, clock);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.balancer.borrow_mut().finished(self.endpoint);
    }
}

/// A request that has begun and not ended.
pub(super) struct Active(Rc<Upstream>);

impl Active {
    /// Refused where the upstream has as many as it may have.
    pub(super) fn begin(upstream: &Rc<Upstream>) -> Result<Self, SendError> {
        let mut budget = upstream.budget.borrow_mut();
        if upstream.limits.requests.is_some_and(|most| budget.active() >= most) {
            upstream.counts.overloaded("requests");
            return Err(SendError::Overloaded);
        }
        budget.begin();
        Ok(Self(upstream.clone()))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.budget.borrow_mut().end();
    }
}

/// A connection that counts as open, from before it is made until it is closed.
pub(super) struct Open(Weak<Upstream>);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.upgrade() {
            upstream.open.set(upstream.open.get() - 1);
            upstream.counts.closed();
            upstream.room.notify_one();
        }
    }
}

/// A request that waits for a connection.
struct Pending<'a>(&'a Upstream);

impl<'a> Pending<'a> {
    fn begin(upstream: &'a Upstream) -> Result<Self, SendError> {
        if upstream.pending.get() >= upstream.limits.pending {
            upstream.counts.overloaded("pending");
            return Err(SendError::Overloaded);
        }
        upstream.pending.set(upstream.pending.get() + 1);
        Ok(Self(upstream))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get() - 1);
    }
}

/// A connection that is being made, and that others wait for.
#[derive(Default)]
pub(super) struct Flight {
    landed: Notify,
    failed: Cell<Option<SendError>>,
}

/// Whoever makes it. However that ends, those who wait hear of it.
struct Pilot<'a> {
    upstream: &'a Upstream,
    endpoint: EndpointIndex,
    flight: Rc<Flight>,
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        self.upstream.target(self.endpoint, |target| target.flight = None);
        self.flight.landed.notify_waiters();
    }
}

/// What there is room for.
enum Room {
    Kept(EndpointIndex, Connection),
    New(Open),
}

impl Upstream {
    /// A kept-alive connection, or a new one.
    pub(super) async fn lease(
        self: &Rc<Self>,
        course: &Course,
        tries: &Tries,
        clock: &Clock,
    ) -> Result<(Lease, Origin), SendError> {
        let now = clock.now();
        let chosen = self.balancer.borrow_mut().choose(now, &course.failed);
        let endpoint = match chosen {
            Some(endpoint) => endpoint,
            None => Box::pin(self.first_endpoint(course, clock)).await?,
        };
        tries.goes_to(endpoint);
        let mut lease = Lease::begin(self, endpoint);
        // Those who wait come first.
        let kept = if course.fresh || self.pending.get() > 0 { None } else { self.take(endpoint) };
        if let Some((connection, since)) = kept {
            lease.connection = Some(connection);
            let unused = now.saturating_since(since);
            tries.has_reached(self.size(), Duration::ZERO);
            return Ok((lease, if unused < MAY_BE_STALE { Origin::InUse } else { Origin::Kept }));
        }
        // Boxed, since it is rare and large, and every exchange would carry its state.
        let origin = Box::pin(self.fill(&mut lease, tries, clock)).await?;
        tries.has_reached(self.size(), clock.now().saturating_since(now));
        Ok((lease, origin))
    }

    fn size(&self) -> usize {
        self.balancer.borrow().size()
    }

    /// Finds a connection for the lease where none lies ready.
    async fn fill(self: &Rc<Self>, lease: &mut Lease, tries: &Tries, clock: &Clock) -> Result<Origin, SendError> {
        if self.spec.protocol == Protocol::Http2
            && let Some(connection) = self.flown_in(lease.endpoint).await?
        {
            lease.connection = Some(connection);
            return Ok(Origin::InUse);
        }
        let room = match self.open().filter(|_| self.pending.get() == 0) {
            Some(open) => Room::New(open),
            None => self.wait_for_room(lease.endpoint).await?,
        };
        let open = match room {
            Room::New(open) => open,
            Room::Kept(endpoint, connection) => {
                if endpoint != lease.endpoint {
                    *lease = Lease::begin(self, endpoint);
                    tries.goes_to(endpoint);
                }
                lease.connection = Some(connection);
                return Ok(Origin::Kept);
            }
        };
        lease.connection = Some(self.connect(lease.endpoint, open, clock).await?);
        Ok(Origin::New)
    }

    /// Waits for a connection that is being made by somebody else; `None` if nobody is making one.
    async fn flown_in(&self, endpoint: EndpointIndex) -> Result<Option<Connection>, SendError> {
        loop {
            let Some(flight) = self.target(endpoint, |target| target.flight.clone()).flatten() else { return Ok(None) };
            flight.landed.notified().await;
            if let Some(error) = flight.failed.get() {
                return Err(error);
            }
            if let Some((connection, _)) = self.take(endpoint) {
                return Ok(Some(connection));
            }
        }
    }

    async fn connect(&self, endpoint: EndpointIndex, open: Open, clock: &Clock) -> Result<Connection, SendError> {
        let flight = Rc::<Flight>::default();
        let target = self.target(endpoint, |target| {
            if self.spec.protocol == Protocol::Http2 {
                target.flight = Some(flight.clone());
            }
            (target.address, target.name.clone())
        });
        let (address, name) = target.ok_or(SendError::Connect)?;
        let pilot = Pilot { upstream: self, endpoint, flight };
        let limit = self.spec.timeouts.connect;
        match connect::connect((address, &name.host), &self.spec, limit, Some(open), &self.counts).await {
            Ok(connection) => {
                self.counts.connected();
                if let Some(shared) = connection.shared() {
                    // One HTTP/2 connection carries many exchanges at once: others may use it from now on.
                    self.put_back(endpoint, shared, clock);
                }
                Ok(connection)
            }
            Err(error) => {
                let error = self.not_connected((endpoint, address), &name, error, clock);
                pilot.flight.failed.set(Some(error));
                Err(error)
            }
        }
    }

    /// Notes that an endpoint could not be connected to, and says what that means for whoever wanted it.
    pub(super) fn not_connected(
        &self,
        (endpoint, address): (EndpointIndex, SocketAddr),
        name: &Endpoint,
        error: ConnectError,
        clock: &Clock,
    ) -> SendError {
        tracing::debug!(upstream = %self.spec.name, endpoint = %name, %address, %error, "connect failed");
        self.counts.connect_failed();
        self.failed(endpoint, clock);
        match error {
            ConnectError::TimedOut(_) => SendError::ConnectTimeout,
            ConnectError::Tls(error) => {
                self.tell_of_tls(name, &error, clock);
                SendError::Tls
            }
            ConnectError::Io(_) | ConnectError::Http(_) => SendError::Connect,
        }
    }

    /// Leave to open a connection.
    pub(super) fn open(self: &Rc<Self>) -> Option<Open> {
        if self.limits.connections.is_some_and(|most| self.open.get() >= most) {
            return None;
        }
        self.open.set(self.open.get() + 1);
        self.counts.opened();
        Some(Open(Rc::downgrade(self)))
    }

    /// Waits until a connection is put back, or one may be opened.
    async fn wait_for_room(self: &Rc<Self>, endpoint: EndpointIndex) -> Result<Room, SendError> {
        if self.pending.get() == 0
            && let Some(room) = self.find_room(endpoint)
        {
            return Ok(room);
        }
        let _pending = Pending::begin(self)?;
        let found = async {
            loop {
                self.room.notified().await;
                if let Some(room) = self.find_room(endpoint) {
                    return room;
                }
            }
        };
        timeout(self.spec.timeouts.connect, found).await.map_err(|_| {
            self.counts.overloaded("connections");
            SendError::Overloaded
        })
    }

    fn find_room(self: &Rc<Self>, endpoint: EndpointIndex) -> Option<Room> {
        if let Some((connection, _)) = self.take(endpoint) {
            return Some(Room::Kept(endpoint, connection));
        }
        if let Some(open) = self.open() {
            return Some(Room::New(open));
        }
        if let Some(full) = self.target(endpoint, |target| target.pool.take_full()).flatten() {
            return Some(Room::Kept(endpoint, full));
        }
        // All there may be are open, and the idle ones go elsewhere: better there than nowhere.
        let mut targets = self.targets.borrow_mut();
        targets.iter_mut().find_map(|target| Some(Room::Kept(target.index, target.pool.take()?.0)))
    }
}
