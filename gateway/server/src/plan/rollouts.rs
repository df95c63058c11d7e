//! Candidates beside the filters whose next version they are, and the roll-outs that all workers share.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::filter::{Candidate, Chain, ChainFilter};
use portcullis_core::rollout::{Mode, Rollout, State, Version};

use super::{Draft, Plan, PlanError};
use crate::clock::Clock;
use crate::config::snapshot::{Filter, FilterIndex, Plugin, Snapshot};

/// A filter's candidate at its places among all workers' VMs.
pub(super) struct Placed {
    pub(super) filter: ChainFilter,
    /// The same, where it is shown copies of exchanges.
    pub(super) shadow: Option<ChainFilter>,
    rollout: Arc<Rollout>,
}

impl Placed {
    /// The filters whose VMs have places.
    pub(super) fn filters(&mut self) -> impl Iterator<Item = &mut ChainFilter> {
        std::iter::once(&mut self.filter).chain(&mut self.shadow)
    }

    /// For one worker, with a reference count of its own.
    fn of_worker(&self) -> Candidate {
        let shadow = self.shadow.clone().map(|filter| Arc::new(Chain::new(vec![filter])));
        Candidate { filter: self.filter.clone(), shadow, rollout: self.rollout.clone() }
    }
}

/// The roll-out of each of the snapshot's plugins that has one. One that an earlier plan has goes on, with all that was counted and
/// decided; unless it has yet to be decided, and it is another version now that it is compared with.
pub(super) fn rollouts(snapshot: &Snapshot, earlier: Option<&Plan>) -> Vec<Option<Arc<Rollout>>> {
    let before: HashMap<_, (&Plugin, &Arc<Rollout>)> = earlier
        .iter()
        .flat_map(|plan| {
            let known = plan.snapshot.plugins.iter().zip(&plan.rollouts);
            known
                .filter_map(|(plugin, rollout)| Some((owned_name(&plan.snapshot, plugin), (plugin, rollout.as_ref()?))))
        })
        .collect();
    let rollout = |plugin: &Plugin| {
        let wanted = plugin.rollout.as_ref()?;
        let known = before.get(&owned_name(snapshot, plugin)).filter(|(earlier, rollout)| {
            earlier.rollout.as_ref().is_some_and(|earlier| earlier.is_same(wanted))
                && (rollout.state() != State::Running || earlier.digest == plugin.digest)
        });
        let begin = || {
            let tenant = plugin.tenant.map(|tenant| snapshot.tenant(tenant).name.clone());
            Arc::new(Rollout::new(plugin.name.clone(), tenant, wanted.rule.clone(), Clock::start().now()))
        };
        Some(known.map_or_else(begin, |(_, rollout)| Arc::clone(rollout)))
    };
    snapshot.plugins.iter().map(rollout).collect()
}

/// What a plugin is called in every revision: its tenant's name and its own.
fn owned_name<'s>(snapshot: &'s Snapshot, plugin: &'s Plugin) -> (Option<&'s str>, &'s str) {
    (plugin.tenant.map(|tenant| &*snapshot.tenant(tenant).name), &plugin.name)
}

impl Draft<'_> {
    /// Gives a filter its candidate, if its plugin has one.
    pub(super) fn candidate(&mut self, snapshot: &Snapshot, index: FilterIndex) -> Result<(), PlanError> {
        let filter = snapshot.filter(index);
        let filter_plugin = filter.plugin;
        let Some(rollout) = &snapshot.plugin(filter.plugin).rollout else { return Ok(()) };
        let shared = self.plan.rollouts.get(filter.plugin.0).cloned().flatten();
        let config = rollout.config.as_ref().unwrap_or(&filter.config).clone();
        let next = Filter { config, ..filter.clone() };
        let filter = self.filter(snapshot, &next, (&rollout.candidate, Version::Candidate))?;
        let shadow = match rollout.rule.mode {
            Mode::Serves => None,
            Mode::Shadows => {
                let name = format!("{}@shadow", snapshot.plugin(filter_plugin).name).into();
                let plugin = Plugin { name, ..(*rollout.candidate).clone() };
                Some(self.filter(snapshot, &next, (&plugin, Version::Shadow))?)
            }
        };
        self.plan.candidates.extend(shared.map(|rollout| (index, Placed { filter, shadow, rollout })));
        Ok(())
    }
}

impl Plan {
    /// The roll-outs there are.
    pub(crate) fn rollouts(&self) -> Vec<Arc<Rollout>> {
        self.rollouts.iter().flatten().cloned().collect()
    }

    /// The chain of these filters, with the candidates of those that have one.
    pub(super) fn with_candidates(&self, chain: Chain, filters: &[FilterIndex]) -> Chain {
        filters.iter().enumerate().fold(chain, |chain, (place, index)| match self.candidates.get(index) {
            Some(candidate) => chain.with_candidate(place, candidate.of_worker()),
            None => chain,
        })
    }
}
