//! Names of endpoints, looked up again and again.
//!
//! Every address of a name is an endpoint of its own. The system's resolver is asked on a thread of its own, never by a request
//! (but the first ones wait for the first answer); it does not say for how long an answer holds, so it is asked at fixed times.
//! What cannot be looked up keeps the addresses it had.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use portcullis_core::upstream::EndpointIndex;
use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::pool::Pool;
use super::tries::Course;
use super::{SendError, Target, Upstream};
use crate::clock::Clock;
use crate::config::snapshot::Endpoint;

/// The most addresses that are taken of one name.
const MAX_ADDRESSES: usize = 256;
/// How soon a name is looked up again that never had an address.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a look-up may take before what was known stays.
const PATIENCE: Duration = Duration::from_secs(10);

/// An upstream's endpoints as they are written, with the addresses they have.
pub(super) struct Names {
    all: Vec<(Rc<Endpoint>, RefCell<Vec<SocketAddr>>)>,
    /// Every name has been looked up once, with or without success.
    looked_up: Cell<bool>,
    news: Notify,
}

impl Names {
    pub(super) fn of(endpoints: &[Endpoint]) -> Self {
        let known = |endpoint: &Endpoint| {
            let address = endpoint.host.parse::<IpAddr>().ok();
            let addresses = address.map(|address| SocketAddr::new(address, endpoint.port));
            (Rc::new(endpoint.clone()), RefCell::new(addresses.into_iter().collect()))
        };
        Self { all: endpoints.iter().map(known).collect(), looked_up: Cell::default(), news: Notify::new() }
    }

    /// Whether there is nothing to look up.
    pub(super) fn is_empty(&self) -> bool {
        !self.all.iter().any(|(name, _)| is_name(name))
    }
}

fn is_name(endpoint: &Endpoint) -> bool {
    endpoint.host.parse::<IpAddr>().is_err()
}

/// Looks names up for as long as the upstream lives.
pub(super) async fn run(upstream: Weak<Upstream>) {
    loop {
        let Some(upstream) = upstream.upgrade() else { return };
        for (name, addresses) in upstream.names.all.iter().filter(|(name, _)| is_name(name)) {
            match look_up(name).await {
                Ok(found) if !found.is_empty() => {
                    if let Some(refused) = found.iter().find(|address| !upstream.spec.reach.allows(address.ip())) {
                        tracing::warn!(
                            upstream = %upstream.spec.name, tenant = %upstream.spec.owner, %name, address = %refused.ip(),
                            "the name has an address that its tenant is not granted"
                        );
                    }
                    *addresses.borrow_mut() = found;
                }
                Ok(_) => tracing::warn!(upstream = %upstream.spec.name, %name, "the name has no address"),
                Err(error) => tracing::warn!(upstream = %upstream.spec.name, %name, %error, "the name was not found"),
            }
        }
        upstream.set_addresses();
        upstream.names.looked_up.set(true);
        upstream.names.news.notify_waiters();
        let has_none = upstream.targets.borrow().is_empty();
        let wait = if has_none { upstream.spec.resolve.min(AGAIN) } else { upstream.spec.resolve };
        drop(upstream);
        sleep(wait).await;
    }
}

async fn look_up(name: &Endpoint) -> std::io::Result<Vec<SocketAddr>> {
    let found = timeout(PATIENCE, lookup_host((&*name.host, name.port))).await??;
    let mut found: Vec<_> = found.take(MAX_ADDRESSES).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

impl Upstream {
    /// An endpoint, once the names have been looked up for the first time.
    pub(super) async fn first_endpoint(&self, course: &Course, clock: &Clock) -> Result<EndpointIndex, SendError> {
        if !self.names.looked_up.get() && !self.names.is_empty() {
            let news = self.names.news.notified();
            timeout(self.spec.timeouts.connect, news).await.map_err(|_| SendError::ConnectTimeout)?;
        }
        self.balancer.borrow_mut().choose(clock.now(), &course.failed).ok_or(SendError::Connect)
    }

    /// Takes the addresses that the names have now. What is the same stays as it is; connections to what is gone are closed when
    /// they are no longer used.
    pub(super) fn set_addresses(&self) {
        let (mut targets, mut balancer) = (self.targets.borrow_mut(), self.balancer.borrow_mut());
        let mut wanted: Vec<(SocketAddr, Rc<Endpoint>)> = Vec::new();
        for (name, addresses) in &self.names.all {
            let addresses = addresses.borrow();
            let granted = addresses.iter().filter(|address| self.spec.reach.allows(address.ip()));
            wanted.extend(granted.map(|address| (*address, name.clone())));
        }
        wanted.sort_by_key(|(address, _)| *address);
        wanted.dedup_by_key(|(address, _)| *address);
        for target in targets.iter_mut().filter(|target| target.is_here) {
            match wanted.iter().position(|(address, _)| *address == target.address) {
                Some(known) => drop(wanted.remove(known)),
                None => {
                    target.is_here = false;
                    target.pool = Pool::default();
                    balancer.remove(target.index);
                }
            }
        }
        for (address, name) in wanted {
            let index = balancer.add();
            let target = Target::new(index, address, name);
            match targets.get_mut(index.get()) {
                Some(free) => *free = target,
                None => targets.push(target),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::config::snapshot::{self, AccessLog, LogTarget};
    use crate::telemetry::Telemetry;
    use crate::upstream::reach::Reach;

    const TEXT: &str = "
version: 1
listeners: { a: { bind: '127.0.0.1:0' } }
upstreams: { u: { endpoints: ['one.test:80', '192.0.2.1:80', 'two.test:80'] } }
";

    fn upstream() -> Rc<Upstream> {
        let (snapshot, _) = config::from_text(Path::new("test"), TEXT).unwrap();
        let telemetry = Telemetry::new(&AccessLog::to(LogTarget::Off)).unwrap().worker().upstreams();
        Upstream::new(snapshot.gateway.upstreams.first().unwrap().clone().into(), 1, 1, telemetry.of("u", ""))
    }

    #[test]
    fn a_name_leads_nowhere_that_its_tenant_is_not_granted() {
        let (snapshot, _) = config::from_text(Path::new("test"), TEXT).unwrap();
        let telemetry = Telemetry::new(&AccessLog::to(LogTarget::Off)).unwrap().worker().upstreams();
        let spec = snapshot::Upstream { reach: Reach::Outside, ..snapshot.gateway.upstreams.first().unwrap().clone() };
        let upstream = Upstream::new(spec.into(), 1, 1, telemetry.of("u", ""));
        found(&upstream, 0, &[[127, 0, 0, 1], [169, 254, 169, 254], [192, 0, 2, 2]]);
        let addresses: Vec<String> = addresses(&upstream).into_iter().map(|(_, address)| address).collect();
        assert_eq!(addresses, ["192.0.2.1", "192.0.2.2"]);
    }

    /// The name at this place now has these addresses.
    fn found(upstream: &Upstream, name: usize, addresses: &[[u8; 4]]) {
        *upstream.names.all[name].1.borrow_mut() = addresses.iter().map(|address| (*address, 80).into()).collect();
        upstream.set_addresses();
    }

    fn addresses(upstream: &Upstream) -> Vec<(usize, String)> {
        let targets = upstream.targets.borrow();
        let here = targets.iter().filter(|target| target.is_here);
        here.map(|target| (target.index.get(), target.address.ip().to_string())).collect()
    }

    #[test]
    fn every_address_of_a_name_is_an_endpoint_for_as_long_as_the_name_has_it() {
        let upstream = upstream();
        let shown = |upstream: &Upstream| {
            let all = addresses(upstream);
            all.iter().map(|(index, address)| format!("{index}={address}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&upstream), "0=192.0.2.1");
        found(&upstream, 0, &[[192, 0, 2, 2], [192, 0, 2, 3]]);
        found(&upstream, 2, &[[192, 0, 2, 3]]);
        assert_eq!(shown(&upstream), "0=192.0.2.1 1=192.0.2.2 2=192.0.2.3", "an address of two names is one endpoint");
        found(&upstream, 0, &[[192, 0, 2, 4]]);
        assert_eq!(shown(&upstream), "0=192.0.2.1 1=192.0.2.4 2=192.0.2.3", "what stays keeps its place");
        // An endpoint that an exchange is still with keeps its place too.
        let index = upstream.targets.borrow()[1].index;
        upstream.balancer.borrow_mut().started(index);
        found(&upstream, 0, &[[192, 0, 2, 5]]);
        assert_eq!(shown(&upstream), "0=192.0.2.1 2=192.0.2.3 3=192.0.2.5");
        upstream.balancer.borrow_mut().finished(index);
        assert_eq!(upstream.balancer.borrow().count(Default::default()), (3, 3));
    }
}
