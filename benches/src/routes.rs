//! Routers of different sizes, each with the route that [`Routes::find`] looks up among the last.

use http::{HeaderMap, Method};
use portcullis_core::route::{Conditions, HostPattern, Match, Owner, PathPattern, Request, Router, Rule};

/// A router, and a request for a route in it.
pub struct Routes {
    router: Router<u32, u32>,
    headers: HeaderMap,
    host: String,
    path: String,
}

impl Routes {
    /// A router of so many tenants with so many routes each; a tenant has one host.
    #[must_use]
    pub fn new(tenants: u32, routes_each: u32) -> Self {
        let owners = (0..tenants).map(|tenant| owner(tenant, routes_each)).collect();
        let router = Router::build(owners).expect("no two of the routes are alike");
        let (host, path) = (host(tenants - 1), format!("/v1/service-{}/orders/4711", routes_each - 1));
        let routes = Self { router, headers: HeaderMap::new(), host, path };
        assert_eq!(routes.find(), Match::Route(routes_each - 1));
        routes
    }

    /// Looks the request up.
    #[must_use]
    pub fn find(&self) -> Match<u32, u32> {
        let Self { headers, host, path, .. } = self;
        self.router.find(&Request { host, path, query: None, method: &Method::GET, headers })
    }
}

fn host(tenant: u32) -> String {
    format!("api.tenant-{tenant}.test")
}

fn owner(tenant: u32, routes: u32) -> Owner<u32, u32> {
    let host = HostPattern::parse(&host(tenant)).expect("it is a host");
    let rule = |route| Rule {
        name: format!("service-{route}"),
        hosts: Vec::new(),
        path: PathPattern::parse(&format!("/v1/service-{route}/orders/{{id}}")).expect("it is a pattern"),
        conditions: Conditions::default(),
        target: route,
    };
    Owner { name: format!("tenant-{tenant}"), id: tenant, hosts: vec![host], rules: (0..routes).map(rule).collect() }
}
