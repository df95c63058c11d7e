//! One worker's routing table: for every route what is known of the place and the filters on the way.
//!
//! What the gateway and each tenant have in it is kept for as long as their shares of the plan are. **Invariant:** its reference counts
//! are the worker's alone, so that no two threads write to one while requests are served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};
use portcullis_core::context::UpstreamId;
use portcullis_core::exchange::{Exchange, Place, Times};
use portcullis_core::filter::Chain;
use portcullis_core::headers::Headers;
use portcullis_core::reply::Failure;
use portcullis_core::retry::Policy;
use portcullis_core::route::{Match, Request};
use portcullis_core::tenant::Account;
use portcullis_core::trace;
use portcullis_core::upgrade::Tunnels;

use super::Plan;
use super::laid::Laid;
use crate::config::snapshot::{FilterIndex, Route, Snapshot, TcpRoute, TenantIndex};

/// Where a request goes: what is known of the place, and the filters on the way.
pub(crate) struct Spot {
    /// The upstream, or why there is none.
    target: Result<UpstreamId, Failure>,
    pub(crate) place: Arc<Place>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) tunnels: Tunnels,
    /// Whose requests these are; nothing for the gateway's own.
    pub(crate) account: Option<Arc<Account>>,
}

/// Where requests for the gateway's or one tenant's hosts go.
struct Spots {
    /// What it was made of.
    of: Arc<Laid>,
    /// Those of its routes.
    routes: Vec<Spot>,
    /// For what none of them takes.
    rest: Spot,
    has_tunnels: bool,
}

/// One worker's routing table.
pub(crate) struct Table {
    snapshot: Arc<Snapshot>,
    gateway: Arc<Spots>,
    /// At the tenants' places.
    tenants: Vec<Option<Arc<Spots>>>,
    nowhere: Spot,
    /// Those of `tcp` listeners, by their names.
    tcp: HashMap<Arc<str>, Spot>,
    has_tunnels: bool,
}

impl Plan {
    /// The routing table of the worker of this number, which has what it had in the plan before this one wherever that is the same.
    pub(crate) fn table(&self, worker: usize, before: Option<&Self>) -> Arc<Table> {
        let before = before.and_then(|before| before.tables.get(worker)?.get());
        let table = Arc::new(self.table_after(before.map(Arc::as_ref)));
        if let Some(place) = self.tables.get(worker) {
            // A plan is made ready for a worker once.
            _ = place.set(table.clone());
        }
        table
    }

    fn table_after(&self, before: Option<&Table>) -> Table {
        let gateway = self.spots_after(None, &self.gateway, before.map(|before| &before.gateway));
        let kept = |place: usize| before.and_then(|before| before.tenants.get(place)?.as_ref());
        let tenants = self.tenants.iter().enumerate();
        let tenants = tenants.map(|(place, laid)| {
            laid.as_ref().map(|laid| self.spots_after(Some(TenantIndex(place)), laid, kept(place)))
        });
        let tenants: Vec<_> = tenants.collect();
        Table {
            has_tunnels: gateway.has_tunnels || tenants.iter().flatten().any(|spots| spots.has_tunnels),
            gateway,
            tenants,
            nowhere: self.rest(None, &[]),
            tcp: self.snapshot.tcp_routes.iter().map(|route| (route.listener.clone(), self.tcp_spot(route))).collect(),
            snapshot: self.snapshot.clone(),
        }
    }

    fn spots_after(&self, owner: Option<TenantIndex>, laid: &Arc<Laid>, before: Option<&Arc<Spots>>) -> Arc<Spots> {
        if let Some(kept) = before.filter(|before| Arc::ptr_eq(&before.of, laid)) {
            return kept.clone();
        }
        let share = self.snapshot.share(owner);
        let routes: Vec<_> = share.routes.iter().map(|route| self.spot(route)).collect();
        Arc::new(Spots {
            of: laid.clone(),
            has_tunnels: routes.iter().any(|spot| !spot.tunnels.allowed.is_empty()),
            routes,
            rest: self.rest(owner, &share.chain),
        })
    }

    fn spot(&self, route: &Route) -> Spot {
        let snapshot = &self.snapshot;
        Spot {
            target: self.upstream_id(route.upstream).ok_or(Failure::NoRoute),
            chain: self.chain(&route.filters),
            place: Arc::new(Place {
                route: fresh(&route.name),
                pattern: fresh(&route.pattern),
                upstream: fresh(&snapshot.upstream(route.upstream).name),
                tenant: fresh(route.tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                times: route.times,
                retry: route.retry.clone(),
            }),
            tunnels: route.tunnels.clone(),
            account: self.account(route.tenant),
        }
    }

    /// For requests that no route takes.
    fn rest(&self, owner: Option<TenantIndex>, filters: &[FilterIndex]) -> Spot {
        let tenant = owner.map(|tenant| self.snapshot.tenant(tenant));
        let unavailable = tenant.is_some_and(|tenant| tenant.unavailable);
        Spot {
            target: Err(if unavailable { Failure::TenantUnavailable } else { Failure::NoRoute }),
            chain: self.chain(filters),
            place: Arc::new(Place {
                route: Arc::from(""),
                pattern: Arc::from(""),
                upstream: Arc::from(""),
                tenant: fresh(tenant.map_or("", |tenant| &tenant.name)),
                times: Times::with_response(Duration::MAX),
                retry: Policy::connect_only(),
            }),
            tunnels: Tunnels::default(),
            account: self.account(owner),
        }
    }

    /// Where a `tcp` listener's connections go.
    fn tcp_spot(&self, route: &TcpRoute) -> Spot {
        let snapshot = &self.snapshot;
        let upstream = snapshot.upstream(route.upstream);
        Spot {
            target: self.upstream_id(route.upstream).ok_or(Failure::NoRoute),
            chain: Arc::new(self.with_candidates(Chain::tcp(self.chain_filters(&route.filters)), &route.filters)),
            place: Arc::new(Place {
                route: fresh(&route.listener),
                pattern: Arc::from(""),
                upstream: fresh(&upstream.name),
                tenant: fresh(route.tenant.map_or("", |tenant| &snapshot.tenant(tenant).name)),
                times: Times { response: Duration::MAX, idle: route.idle, request: Duration::MAX },
                retry: Policy::connect_only(),
            }),
            tunnels: Tunnels::default(),
            account: self.account(route.tenant),
        }
    }
}

impl Table {
    /// Where the connections of a `tcp` listener go, if it is one.
    pub(crate) fn tcp(&self, listener: &str) -> Option<(&Spot, UpstreamId)> {
        self.tcp.get(listener).and_then(|spot| Some((spot, spot.target.ok()?)))
    }

    /// Whether any request may leave HTTP.
    pub(crate) fn has_tunnels(&self) -> bool {
        self.has_tunnels
    }

    /// What is done about traces, if anything is.
    pub(crate) fn tracing(&self) -> Option<&trace::Policy> {
        self.snapshot.tracing.as_ref()
    }

    /// For requests that are refused before they are routed.
    pub(crate) fn nowhere(&self) -> &Spot {
        &self.nowhere
    }

    /// Finds the route anew, for a request that its filters have changed. Only routes of the same tenant with the same filters will
    /// do: what another route asks of its requests, this one has not been through.
    pub(crate) fn route_again(
        &self,
        exchange: &Exchange,
        head: &Headers,
    ) -> Option<(Arc<Place>, Result<UpstreamId, Failure>)> {
        let tenant = &exchange.facts()?.place.tenant;
        let host = head.fields().get(header::HOST);
        let (spot, target) = self.route(head.method()?, host, head.path()?, head.fields());
        let fits = spot.place.tenant == *tenant && spot.chain.is_same(exchange.chain());
        fits.then(|| (spot.place.clone(), target))
    }

    /// Finds the route; without one, the filters of whoever owns the host still see the request before it gets its 404.
    pub(crate) fn route(
        &self,
        method: &Method,
        host: Option<&HeaderValue>,
        path: &PathAndQuery,
        headers: &HeaderMap,
    ) -> (&Spot, Result<UpstreamId, Failure>) {
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let request = Request { host, path: path.path(), query: path.query(), method, headers };
        match self.snapshot.router.find(&request) {
            Match::Route(route) => {
                let spots = self.spots(route.owner);
                let spot = spots.and_then(|spots| spots.routes.get(route.at)).unwrap_or(&self.nowhere);
                (spot, spot.target)
            }
            Match::NoRoute(owner) => {
                let spot = self.spots(owner).map_or(&self.nowhere, |spots| &spots.rest);
                (spot, spot.target)
            }
            Match::UnknownHost => (&self.gateway.rest, Err(Failure::NoRoute)),
        }
    }

    fn spots(&self, owner: Option<TenantIndex>) -> Option<&Spots> {
        owner.map_or(Some(&*self.gateway), |tenant| self.tenants.get(tenant.0)?.as_deref())
    }
}

/// A string of one's own, sharing its count with no other worker.
fn fresh(text: &str) -> Arc<str> {
    Arc::from(text)
}
