//! The rate-limit service: its limits and its store.

use std::sync::Arc;

use super::Check;
use crate::config::file::{self, File};
use crate::config::private::{Configuration, Private};
use crate::config::snapshot::RateLimitService;
use crate::config::tree::Node;
use crate::diagnostic::Diagnostic;
use crate::services::rate_limit::{
    Amount, Login, OnFailure, RedisSettings, SharedLimit, SharedLimits, StoreSettings, Tls, Topology,
};

impl Check<'_> {
    pub(super) fn rate_limit(&mut self, tree: &Node, file: &File) -> Option<RateLimitService> {
        let service = file.services.rate_limit.as_ref()?;
        let node = tree.get("services")?.get("rate_limit")?;
        let places = node.get("limits").map_or(&[][..], Node::list);
        let rules = service.limits.iter().zip(places).filter_map(|(limit, place)| self.shared_limit(limit, place));
        let rules = Arc::new(SharedLimits(rules.collect()));
        let store = match (&service.store, node.get("store").and_then(|node| node.get("redis"))) {
            (Some(store), Some(node)) => StoreSettings::Redis(self.redis(&store.redis, node)?),
            _ => StoreSettings::Memory,
        };
        let on_failure = match service.on_store_failure {
            file::OnStoreFailure::Local => OnFailure::Local,
            file::OnStoreFailure::Allow => OnFailure::Allow,
            file::OnStoreFailure::Refuse => OnFailure::Refuse,
        };
        Some(RateLimitService { bind: service.bind.as_ref().map(|bind| bind.0), rules, store, on_failure })
    }

    fn shared_limit(&mut self, limit: &file::ServiceLimit, node: &Node) -> Option<SharedLimit> {
        let useless = |key: &str, why: &str| {
            let place = node.get(key)?;
            Some(Diagnostic::error(format!("`{key}` has no meaning here")).at(&place.span, why))
        };
        let (amount, problem) = match (&limit.rate, &limit.quota) {
            (Some(rate), None) => {
                let burst = limit.burst.map_or(rate.0.count, u64::from);
                let amount = Amount::Rate { count: rate.0.count, period: rate.0.per.as_secs(), burst };
                (Some(amount), limit.zone.as_ref().and_then(|_| useless("zone", "it goes with `quota`")))
            }
            (None, Some(quota)) => {
                let zone = limit.zone.as_ref().map(|zone| zone.0.0).unwrap_or_default();
                let amount = Amount::Quota { count: quota.0.count, unit: quota.0.unit, zone };
                (Some(amount), limit.burst.and_then(|_| useless("burst", "it goes with `rate`")))
            }
            (both, _) => {
                let why = if both.is_some() { "`rate` and `quota` are both here" } else { "neither is here" };
                let problem = Diagnostic::error("a limit needs a `rate` or a `quota`").at(&node.span, why);
                (None, Some(problem.help("write one of them; two limits can be for the same descriptors of two names")))
            }
        };
        if let Some(problem) = problem {
            self.report(problem);
        }
        let value_of = |written: &String| (written != "*").then(|| written.clone());
        let entries = limit.entries.iter().map(|(key, value)| (key.clone(), value_of(value))).collect();
        Some(SharedLimit { domain: limit.domain.clone(), entries, amount: amount? })
    }

    fn redis(&mut self, redis: &file::Redis, node: &Node) -> Option<RedisSettings> {
        let topology = match (&redis.sentinel, redis.cluster) {
            (None, false) => Topology::Single,
            (None, true) => Topology::Cluster,
            (Some(sentinel), false) => {
                let node = node.get("sentinel")?;
                let login = self.login(sentinel.username.as_ref(), sentinel.password.as_ref(), node);
                Topology::Sentinel { master: sentinel.master.clone(), login }
            }
            (Some(_), true) => {
                let problem = Diagnostic::error("a store is a Cluster, or has Sentinels, or neither");
                let place = node.get("sentinel")?;
                self.report(problem.at(&place.span, "and `cluster: true` is here too"));
                return None;
            }
        };
        let tls = match (&redis.tls, node.get("tls")) {
            (Some(_), Some(node)) => Some(Box::new(self.redis_tls(node)?)),
            _ => None,
        };
        Some(RedisSettings {
            endpoints: redis.endpoints.iter().map(|endpoint| endpoint.0.clone()).collect(),
            topology,
            login: self.login(redis.username.as_ref(), redis.password.as_ref(), node),
            tls,
            prefix: redis.prefix.clone(),
            timeout: redis.timeout.0,
        })
    }

    fn login(&mut self, username: Option<&String>, password: Option<&Private>, node: &Node) -> Login {
        if let Some(place) = node.get("password")
            && !place.has_secret()
        {
            let problem = Diagnostic::error("the store's password stands in the configuration itself")
                .at(&place.span, "whoever reads the configuration has it")
                .help("name where it is, as `${file:…}` or `${env:…}`");
            self.report(problem);
        }
        Login { username: username.cloned(), password: password.map(|password| Configuration::of(password)) }
    }

    fn redis_tls(&mut self, node: &Node) -> Option<Tls> {
        let ca = match node.get("ca") {
            Some(place) => Some(self.content(place)?),
            None => None,
        };
        let own = match node.get("certificate") {
            Some(pair) => Some((self.content(pair.get("cert")?)?, self.content(pair.get("key")?)?)),
            None => None,
        };
        Some(Tls { ca, own })
    }

    /// What is in the file that is named here.
    fn content(&mut self, place: &Node) -> Option<Vec<u8>> {
        let path = place.span.source.resolve(place.written());
        match path.and_then(|path| std::fs::read(path).map_err(|error| error.to_string())) {
            Ok(content) => Some(content),
            Err(why) => {
                self.report(Diagnostic::error(format!("`{}` cannot be used", place.written())).at(&place.span, why));
                None
            }
        }
    }
}
