//! The next version of a plugin, as workers read it.

use portcullis_core::rollout::Rule;

use super::Plugin;
use crate::config::private::Configuration;

/// The next version of a plugin, and how it is rolled out.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The plugin as it would be.
    pub candidate: Box<Plugin>,
    /// What the candidate is configured with; `None` is what each filter says.
    pub config: Option<Configuration>,
    /// Which exchanges it gets, and for how long.
    pub rule: Rule,
}

impl Rollout {
    /// Whether it is the same roll-out of the same candidate: what was counted and decided about one holds for the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.candidate.digest == other.candidate.digest && self.config == other.config && self.rule == other.rule
    }
}
