//! What a scrape sees of tenants' accounts: what they use, and how often a limit refused them something.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::tenant::{Account, Limit};
use portcullis_core::time::Time;

use super::exposition::Exposition;
use super::room::{Ledger, OVERFLOW, TENANTS};
use super::stats::roughly;
use crate::clock;
use crate::config::standing::Held;

/// The lines there are of one of them, and the most bytes of one but for its name.
const LINES: usize = 7 + Limit::ALL.len();
const LINE_BYTES: usize = 100;

/// A tenant's name and its account.
pub(crate) type Named = (Arc<str>, Arc<Account>);

/// What people are told of tenants that are set apart: of so many, a line each.
pub(super) fn apart(accounts: &[Named]) -> Vec<String> {
    const LINES: usize = 10;
    let now = clock::now();
    let apart = accounts.iter().filter_map(|(tenant, account)| Some((tenant, account.apart.until(now)?)));
    let line = |(tenant, until): (&Arc<str>, Time)| {
        let rest = roughly(until.saturating_since(now));
        format!("tenant {tenant}: set apart for {rest} more, its filters take long")
    };
    let mut lines: Vec<_> = apart.map(line).collect();
    let more = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    lines.extend((more > 0).then(|| format!("and {more} more tenants that are set apart")));
    lines
}

/// Whose series there are: those with a series each, and the rest, who have one together.
struct Shown<'a> {
    own: Vec<&'a Named>,
    rest: Vec<&'a Named>,
}

impl Shown<'_> {
    /// A sample of each, and one of the rest.
    fn samples<V: Display>(
        &self,
        text: &mut Exposition,
        name: &str,
        label: Option<(&str, &str)>,
        of: impl Fn(&[&Named]) -> V,
    ) {
        let mut sample = |tenant: &str, value: V| {
            let labels: Vec<_> = [("portcullis_tenant", tenant)].into_iter().chain(label).collect();
            text.sample(name, &labels, value);
        };
        for one in &self.own {
            sample(&one.0, of(&[one]));
        }
        if !self.rest.is_empty() {
            sample(OVERFLOW, of(&self.rest));
        }
    }
}

pub(super) fn render(text: &mut Exposition, accounts: &[Named], held: &Held) {
    let mut ledger = Ledger::of(&TENANTS);
    // Of a tenant whose files have never been good there is no account.
    let known: HashSet<&Arc<str>> = accounts.iter().filter(|_| !held.is_empty()).map(|(name, _)| name).collect();
    let without: Vec<Named> =
        held.keys().filter(|name| !known.contains(name)).map(|name| (name.clone(), Arc::default())).collect();
    let (own, rest) = accounts
        .iter()
        .chain(&without)
        .partition(|(name, _)| ledger.take(&Arc::from(""), LINES * (LINE_BYTES + name.len())));
    let shown = Shown { own, rest };
    let mut family = |name: &str, kind: &str, help: &str, of: &dyn Fn(&Account) -> u64| {
        text.family(name, kind, help);
        shown.samples(text, name, None, |named| named.iter().map(|(_, account)| of(account)).sum::<u64>());
    };
    let help = "Requests of a tenant that are under way.";
    family("portcullis_tenant_requests_active", "gauge", help, &|account| account.in_flight().into());
    family("portcullis_tenant_memory_bytes", "gauge", "Memory of a tenant's VMs.", &Account::memory);
    let help = "Calls of a tenant's filters to upstreams that are under way.";
    family("portcullis_tenant_callouts_active", "gauge", help, &|account| account.callouts_in_flight().into());
    let now = clock::now();
    let help = "Whether a tenant is set apart, since its filters take long: 1, or 0.";
    family("portcullis_tenant_set_apart", "gauge", help, &|account| account.apart.is_now(now).into());
    let help = "Requests of a tenant that were served while it was set apart.";
    family("portcullis_tenant_apart_requests_total", "counter", help, &|account| account.apart.served());
    let name = "portcullis_tenant_apart_wait_seconds_total";
    text.family(name, "counter", "How long those waited to be begun, together.");
    shown.samples(text, name, None, |named| {
        named.iter().map(|(_, account)| account.apart.waited()).sum::<Duration>().as_secs_f64()
    });
    let name = "portcullis_tenant_configuration_refused";
    text.family(name, "gauge", "Whether a tenant's own files could not be used as they are: 1, or 0.");
    shown.samples(text, name, None, |named| named.iter().filter(|(tenant, _)| held.contains_key(tenant)).count());
    let name = "portcullis_tenant_refused_total";
    text.family(name, "counter", "What a tenant was refused because of its limits.");
    for limit in Limit::ALL {
        let label = Some(("limit", limit.as_str()));
        shown.samples(text, name, label, |named| named.iter().map(|(_, account)| account.refused(limit)).sum::<u64>());
    }
}
