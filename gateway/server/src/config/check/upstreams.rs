//! Upstreams: how long they may take, when they are tried again.

use portcullis_core::health::Rules;
use portcullis_core::retry::{Allowance, Backoff, Conditions, Policy};
use portcullis_core::upstream::{Balance, Ejection};

use super::{Check, Section};
use crate::config::file;
use crate::config::snapshot::{Health, Timeouts, Upstream, UpstreamLimits};
use crate::config::tree::{Key, Node};
use crate::diagnostic::Diagnostic;

/// The statuses that say that an intermediary failed, not the origin itself.
const GATEWAY_ERRORS: [u16; 3] = [502, 503, 504];

impl Check<'_> {
    pub(super) fn upstream(
        &mut self,
        upstream: &file::Upstream,
        key: &Key,
        node: &Node,
        section: &Section<'_>,
    ) -> Upstream {
        Upstream {
            name: key.name.as_str().into(),
            tenant: section.tenant,
            owner: section.name.into(),
            endpoints: upstream.endpoints.iter().map(|endpoint| endpoint.0.clone()).collect(),
            service: upstream.service,
            balance: match upstream.balance {
                file::Balance::RoundRobin => Balance::RoundRobin,
                file::Balance::LeastRequests => Balance::LeastRequests,
            },
            protocol: upstream.protocol,
            timeouts: timeouts(&upstream.timeouts),
            retry: self.retries(&upstream.retries, node),
            limits: UpstreamLimits {
                requests: upstream.limits.requests,
                connections: upstream.limits.connections,
                pending: upstream.limits.pending,
            },
            ejection: self.ejection(&upstream.ejection, node),
            health: upstream.health.as_ref().and_then(|health| self.health(health, node.get("health")?)),
            resolve: upstream.resolve.0.0,
            reach: self.reach(upstream, node, section),
            tls: self.upstream_tls(upstream, key, node),
        }
    }

    fn ejection(&mut self, ejection: &file::Ejection, node: &Node) -> Ejection {
        let made = Ejection {
            errors: ejection.errors,
            first: ejection.first.0,
            longest: ejection.longest.0,
            panic: ejection.panic,
        };
        if made.first > made.longest
            && let Some(place) = node.get("ejection")
        {
            let problem = Diagnostic::error("an endpoint would be left alone for longer at first than at most")
                .at(&place.span, "`first` is more than `longest`")
                .help("`first` is 1s where it is not written, `longest` is 30s");
            self.report(problem);
        }
        made
    }

    fn health(&mut self, health: &file::Health, node: &Node) -> Option<Health> {
        let place = node.get("path")?;
        let path = health.path.starts_with('/').then(|| health.path.parse().ok()).flatten();
        if path.is_none() {
            let problem = Diagnostic::error(format!("`{}` is not a path", place.written()));
            self.report(problem.at(&place.span, "a path begins with `/`"));
        }
        let host = health.host.as_ref().map(|host| http::uri::Authority::try_from(host.as_str()).ok());
        if let (Some(None), Some(place)) = (&host, node.get("host")) {
            let problem = Diagnostic::error(format!("`{}` is not a host", place.written()));
            self.report(problem.at(&place.span, "a name or an address, with a port if need be"));
        }
        let rules = Rules {
            interval: health.interval.0,
            timeout: health.timeout.0,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
        };
        Some(Health { path: path?, host: host.flatten(), rules })
    }

    /// What `retries` of this upstream or route mean.
    pub(super) fn retries(&mut self, retries: &file::Retries, node: &Node) -> Policy {
        let place = node.get("retries");
        let written = |name: &str| place.and_then(|place| place.get(name));
        if retries.backoff.base.0 > retries.backoff.max.0
            && let Some(place) = written("backoff")
        {
            let problem = Diagnostic::error("the first wait before a further try is longer than the longest")
                .at(&place.span, "`base` is more than `max`")
                .help("`base` is 25ms where it is not written, `max` is 250ms");
            self.report(problem);
        }
        let waits = retries.on.contains(&file::RetryOn::Timeout);
        if waits
            && retries.per_try_timeout.is_none()
            && let Some(place) = written("on")
        {
            let problem = Diagnostic::error("`timeout` needs a time that one try may take")
                .at(&place.span, "without one, no try takes too long")
                .help("write `per_try_timeout: 1s` beside it");
            self.report(problem);
        }
        policy(retries)
    }
}

fn timeouts(timeouts: &file::Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.0,
        response: timeouts.response.0,
        idle: timeouts.idle.0,
        stream: timeouts.stream.0,
        request: timeouts.request.as_ref().map(|time| time.0),
    }
}

fn policy(retries: &file::Retries) -> Policy {
    let on = |what| retries.on.contains(&what);
    let mut statuses = retries.statuses.clone();
    if on(file::RetryOn::GatewayError) {
        statuses.extend(GATEWAY_ERRORS);
    }
    statuses.sort_unstable();
    statuses.dedup();
    Policy {
        attempts: retries.attempts,
        on: Conditions {
            connect_failure: on(file::RetryOn::ConnectFailure),
            reset: on(file::RetryOn::Reset),
            timeout: on(file::RetryOn::Timeout),
            server_error: on(file::RetryOn::ServerError),
            statuses: statuses.into(),
        },
        per_try: retries.per_try_timeout.as_ref().map(|time| time.0),
        backoff: Backoff { base: retries.backoff.base.0, max: retries.backoff.max.0 },
        budget: Allowance { percent: retries.budget.percent, min: retries.budget.min },
    }
}
