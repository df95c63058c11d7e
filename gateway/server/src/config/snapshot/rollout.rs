//! The next version of a plugin, as workers read it.

use std::time::Duration;

use portcullis_core::rollout::{Bounds, By, Mode, Rule, Term};
use serde_json::json;
use sha2::{Digest as _, Sha256};

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

impl Plugin {
    /// It and its next version, if it has one.
    pub fn with_candidate(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.rollout.as_ref().map(|rollout| &*rollout.candidate))
    }
}

impl Rollout {
    /// What it goes by: the same for the same candidate of the same plugin, configured and tried in the same way. What was decided
    /// about one holds for the other, also where an earlier process decided it.
    #[must_use]
    pub fn identity(&self, tenant: Option<&str>, plugin: &str) -> [u8; 32] {
        let Rule { mode, share, by, abort_if, promote_after } = &self.rule;
        let Bounds { traps, disagree, added_p99 } = abort_if;
        let Term { exchanges, time } = promote_after.unwrap_or_default();
        let nanos = |time: Duration| time.as_nanos().to_string();
        let mode = match mode {
            Mode::Serves => "serves",
            Mode::Shadows => "shadows",
        };
        let by = match by {
            By::Random => "random".to_owned(),
            By::Client => "client".to_owned(),
            By::Header(name) => format!("header:{name}"),
        };
        let tried = json!([tenant, plugin, mode, share, by, traps, disagree, added_p99.map(nanos)]);
        let promoted = json!([promote_after.is_some(), exchanges, time.map(nanos)]);
        let digest = Sha256::new().chain_update(json!([tried, promoted]).to_string());
        // A digest has one length, so what follows it can only be the settings.
        let digest = digest.chain_update(self.candidate.digest);
        let digest = match &self.config {
            Some(config) => digest.chain_update("configured:").chain_update(&**config),
            None => digest,
        };
        digest.finalize().into()
    }
}
