//! Connections to endpoints for listeners that speak no HTTP: chosen and counted like any other, kept by no pool.

use std::net::SocketAddr;
use std::rc::Rc;

use portcullis_core::context::UpstreamId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::connect::ConnectError;
use super::lease::{Active, Lease, Open};
use super::tries::Course;
use super::{SendError, Upstream, Upstreams};
use crate::clock::Clock;

/// Endpoints that are tried before a client is turned away.
const TRIES: usize = 3;

/// A connection's two directions, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection to an endpoint, which counts as busy for as long as this lives.
pub(crate) struct Raw {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) address: SocketAddr,
    /// How many endpoints the upstream has.
    pub(crate) endpoints: usize,
    pub(crate) held: Held,
}

/// What is to be held as long as the connection is used.
pub(crate) struct Held {
    _active: Active,
    _lease: Lease,
    _open: Open,
}

impl Upstreams {
    /// Connects to one of the upstream's endpoints; to another where that fails.
    pub(crate) async fn connect(&self, id: UpstreamId, clock: &Clock) -> Result<Raw, SendError> {
        let upstream = &self.get(id).ok_or(SendError::Connect)?;
        let mut active = Some(Active::begin(upstream)?);
        let mut course = Course::default();
        loop {
            match upstream.connect_raw(&mut course, &mut active, clock).await {
                Err(SendError::Connect | SendError::ConnectTimeout | SendError::Tls)
                    if course.failed.len() < TRIES && upstream.has_other(&course, clock) => {}
                connected => return connected,
            }
        }
    }
}

impl Upstream {
    async fn connect_raw(
        self: &Rc<Self>,
        course: &mut Course,
        active: &mut Option<Active>,
        clock: &Clock,
    ) -> Result<Raw, SendError> {
        let endpoint = self.first_endpoint(course, clock).await?;
        course.failed.push(endpoint);
        let lease = Lease::begin(self, endpoint);
        let open = self.open().ok_or_else(|| {
            self.counts.overloaded("connections");
            SendError::Overloaded
        })?;
        let target = self.target(endpoint, |target| (target.address, target.name.clone()));
        let (address, name) = target.ok_or(SendError::Connect)?;
        let limit = self.spec.timeouts.connect;
        let made = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match &self.spec.tls {
                None => Box::new(stream),
                Some(tls) => Box::new(tls.connect(&name.host, stream).await.map_err(ConnectError::Tls)?),
            };
            Ok::<_, ConnectError>(stream)
        };
        let made = tokio::time::timeout(limit, made).await;
        match made.unwrap_or(Err(ConnectError::TimedOut(limit))) {
            Ok(stream) => {
                self.counts.connected();
                self.balancer.borrow_mut().answered(endpoint);
                let active = active.take().ok_or(SendError::Overloaded)?;
                let held = Held { _active: active, _lease: lease, _open: open };
                Ok(Raw { stream, address, endpoints: self.balancer.borrow().size(), held })
            }
            Err(error) => Err(self.not_connected((endpoint, address), &name, error, clock)),
        }
    }
}
