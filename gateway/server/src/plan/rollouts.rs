//! Candidates beside the filters whose next version they are, and the roll-outs that all workers share.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::filter::{Candidate, Chain, ChainFilter};
use portcullis_core::rollout::{Mode, Rollout, State, Version};

use super::laid::{Draft, Laid, Of};
use super::{Plan, PlanError};
use crate::clock;
use crate::config::snapshot::{Filter, FilterIndex, Plugin};
use crate::decisions::Decisions;

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

/// The roll-out of each of the share's plugins that has one. One that an earlier plan has goes on, with all that was counted and
/// decided; unless it has yet to be decided, and it is another version now that it is compared with. What an earlier process has
/// decided about one that begins is kept among the `decisions`.
pub(super) fn rollouts(of: &Of, earlier: Option<&Laid>, decisions: &Decisions) -> Vec<Option<Arc<Rollout>>> {
    let known = earlier.iter().flat_map(|laid| laid.of.share().plugins.iter().zip(&laid.rollouts));
    let before: HashMap<&str, (&Plugin, &Arc<Rollout>)> =
        known.filter_map(|(plugin, rollout)| Some((&*plugin.name, (plugin, rollout.as_ref()?)))).collect();
    let tenant = of.tenant().map(|tenant| &tenant.name);
    let rollout = |plugin: &Plugin| {
        let wanted = plugin.rollout.as_ref()?;
        let identity = wanted.identity(tenant.map(|name| &**name), &plugin.name);
        let known = before.get(&*plugin.name).filter(|(earlier, rollout)| {
            rollout.identity == identity && (rollout.state() != State::Running || earlier.digest == plugin.digest)
        });
        let begin = || {
            let now = clock::now();
            let new = Rollout::new(plugin.name.clone(), tenant.cloned(), wanted.rule.clone(), now).known_as(identity);
            Arc::new(match decisions.about(&identity) {
                Some(decision) => new.decided_before(decision),
                None => new,
            })
        };
        Some(known.map_or_else(begin, |(_, rollout)| Arc::clone(rollout)))
    };
    of.share().plugins.iter().map(rollout).collect()
}

impl Draft<'_> {
    /// Gives the filter at this position its candidate, if its plugin has one.
    pub(super) fn candidate(&mut self, at: usize, filter: &Filter) -> Result<(), PlanError> {
        let plugin = self.plugin(filter.plugin);
        let Some(rollout) = &plugin.rollout else { return Ok(()) };
        let shared = self.rollout_of(filter.plugin);
        let config = rollout.config.as_ref().unwrap_or(&filter.config).clone();
        let next = Filter { config, ..filter.clone() };
        let filter = self.filter(&next, (&rollout.candidate, Version::Candidate))?;
        let shadow = match rollout.rule.mode {
            Mode::Serves => None,
            Mode::Shadows => {
                let name = format!("{}@shadow", plugin.name).into();
                let plugin = Plugin { name, ..(*rollout.candidate).clone() };
                Some(self.filter(&next, (&plugin, Version::Shadow))?)
            }
        };
        self.laid.candidates.extend(shared.map(|rollout| (at, Placed { filter, shadow, rollout })));
        Ok(())
    }
}

impl Plan {
    /// The roll-outs there are.
    pub(crate) fn rollouts(&self) -> Vec<Arc<Rollout>> {
        self.shares().flat_map(|laid| laid.rollouts.iter().flatten()).cloned().collect()
    }

    /// The chain of these filters, with the candidates of those that have one.
    pub(super) fn with_candidates(&self, chain: Chain, filters: &[FilterIndex]) -> Chain {
        filters.iter().enumerate().fold(chain, |chain, (place, index)| {
            match self.laid(index.owner).and_then(|laid| laid.candidates.get(&index.at)) {
                Some(candidate) => chain.with_candidate(place, candidate.of_worker()),
                None => chain,
            }
        })
    }
}
