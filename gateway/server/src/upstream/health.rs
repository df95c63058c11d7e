//! Active health checks: a request to each endpoint from time to time, on a connection of its own.
//!
//! Each worker makes its own: what it finds is true for the connections it makes. When an endpoint counts as down is
//! `core::health`'s decision, what that means for choosing `core::upstream`'s.

use std::rc::{Rc, Weak};
use std::time::Duration;

use http::{Request, Uri, header};
use portcullis_core::headers::Scheme;
use portcullis_core::upstream::EndpointIndex;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::{Upstream, connect, shape};
use crate::config::snapshot::{Endpoint, Health};
use crate::message::RequestBody;

/// Checks the endpoints for as long as the upstream lives.
pub(super) async fn run(upstream: Weak<Upstream>, health: Health) {
    loop {
        let Some(upstream) = upstream.upgrade() else { return };
        for endpoint in upstream.endpoints() {
            spawn_local(check(Rc::downgrade(&upstream), endpoint, health.clone()));
        }
        drop(upstream);
        // Not in step with other workers and gateways: checks that come all at once are a load of their own.
        sleep(health.rules.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

async fn check(upstream: Weak<Upstream>, endpoint: EndpointIndex, health: Health) {
    let Some(upstream) = upstream.upgrade() else { return };
    let passed = timeout(health.rules.timeout, ask(&upstream, endpoint, &health)).await;
    let passed = matches!(passed, Ok(Some(true)));
    if !passed {
        upstream.counts.check_failed();
    }
    let up = upstream.target(endpoint, |target| target.checks.note(passed, &health.rules));
    if let Some(up) = up
        && upstream.balancer.borrow_mut().set_up(endpoint, up)
    {
        tracing::warn!(upstream = %upstream.spec.name, endpoint = endpoint.get(), up, "health checks changed an endpoint");
    }
}

/// Whether the endpoint answers as it should; `None` when it does not answer.
async fn ask(upstream: &Rc<Upstream>, endpoint: EndpointIndex, health: &Health) -> Option<bool> {
    let (address, name) = upstream.target(endpoint, |target| (target.address, target.name.clone()))?;
    let mut request = request(health, &name)?;
    let limit: Duration = health.rules.timeout;
    let to = (address, name.host.as_str());
    let mut connection = connect::connect(to, &upstream.spec, limit, None, &upstream.counts).await.ok()?;
    let scheme = if upstream.spec.tls.is_some() { Scheme::Https } else { Scheme::Http };
    shape(&mut request, scheme, &connection).ok()?;
    let response = connection.send(request).await.ok()?;
    Some(response.status().as_u16() < 400)
}

fn request(health: &Health, name: &Endpoint) -> Option<Request<RequestBody>> {
    let host = health.host.as_ref().map_or_else(|| name.to_string(), ToString::to_string);
    let request = Request::get(Uri::from(health.path.clone())).header(header::HOST, host);
    request.header(header::USER_AGENT, "portcullis-health").body(RequestBody::Empty).ok()
}
