//! What a scrape sees of tenants' accounts: what they use, and how often a limit refused them something.

use std::sync::Arc;

use portcullis_core::tenant::{Account, Limit};

use super::exposition::Exposition;
use super::room::{Ledger, OVERFLOW, TENANTS};
use crate::clock::Clock;
use crate::config::standing::Held;

/// The lines there are of one of them, and the most bytes of one but for its name.
const LINES: usize = 6 + Limit::ALL.len();
const LINE_BYTES: usize = 100;

/// A tenant's name and its account.
pub(crate) type Named = (Arc<str>, Arc<Account>);

pub(super) fn render(text: &mut Exposition, accounts: &[Named], held: &Held) {
    let mut ledger = Ledger::of(&TENANTS);
    let (own, rest): (Vec<&Named>, Vec<&Named>) =
        accounts.iter().partition(|(name, _)| ledger.take(&Arc::from(""), LINES * (LINE_BYTES + name.len())));
    let sum = |of: &dyn Fn(&Account) -> u64| rest.iter().map(|(_, account)| of(account)).sum::<u64>();
    let mut family = |name: &str, kind: &str, help: &str, of: &dyn Fn(&Account) -> u64| {
        text.family(name, kind, help);
        for (tenant, account) in &own {
            text.sample(name, &[("portcullis_tenant", tenant)], of(account));
        }
        if !rest.is_empty() {
            text.sample(name, &[("portcullis_tenant", OVERFLOW)], sum(of));
        }
    };
    let help = "Requests of a tenant that are under way.";
    family("portcullis_tenant_requests_active", "gauge", help, &|account| account.in_flight().into());
    family("portcullis_tenant_memory_bytes", "gauge", "Memory of a tenant's VMs.", &Account::memory);
    let help = "Calls of a tenant's filters to upstreams that are under way.";
    family("portcullis_tenant_callouts_active", "gauge", help, &|account| account.callouts_in_flight().into());
    let now = Clock::start().now();
    let help = "Whether a tenant is set apart, since its filters take long: 1, or 0.";
    family("portcullis_tenant_set_apart", "gauge", help, &|account| account.is_apart(now).into());
    let help = "Requests of a tenant that were served while it was set apart.";
    family("portcullis_tenant_apart_requests_total", "counter", help, &Account::served_apart);
    let name = "portcullis_tenant_configuration_refused";
    text.family(name, "gauge", "Whether a tenant's own files could not be used as they are: 1, or 0.");
    for (tenant, _) in &own {
        text.sample(name, &[("portcullis_tenant", tenant)], u8::from(held.contains_key(tenant)));
    }
    if !rest.is_empty() {
        let others = rest.iter().filter(|(tenant, _)| held.contains_key(tenant)).count();
        text.sample(name, &[("portcullis_tenant", OVERFLOW)], others);
    }
    let name = "portcullis_tenant_refused_total";
    text.family(name, "counter", "What a tenant was refused because of its limits.");
    for limit in Limit::ALL {
        let label = ("limit", limit.as_str());
        for (tenant, account) in &own {
            text.sample(name, &[("portcullis_tenant", tenant), label], account.refused(limit));
        }
        if !rest.is_empty() {
            text.sample(name, &[("portcullis_tenant", OVERFLOW), label], sum(&|account| account.refused(limit)));
        }
    }
}
