//! The roll-out of a plugin's next version, as operators write it.

use std::time::Duration;

use portcullis_core::rollout::By;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::private::Private;
use crate::config::written::{Digest, Module, Percent, Text};

/// How the next version of a plugin is rolled out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["candidate"]))]
pub(crate) struct Rollout {
    /// The next version: a module, or a mapping that says more.
    pub(crate) candidate: Candidate,
    /// Whether the candidate is shown copies of exchanges, which the current version serves. What it makes of them is compared, and
    /// never applied.
    pub(crate) shadow: bool,
    /// The share of exchanges that it gets, from 0 to 100, in steps of 0.01. Default: with `shadow` all.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub(crate) percent: Option<f64>,
    /// What decides which these are. Equal values get the same version: `header:NAME`, a field as the request has it when it comes to
    /// the filter; `consumer`, which is `header:x-consumer`; `client`, the client's address; `random`, each request for itself.
    /// Requests without the field stay with the current version.
    pub(crate) by: Text<By>,
    /// What ends the roll-out: all further exchanges get the current version.
    pub(crate) abort_if: AbortIf,
    /// When the candidate gets all further exchanges, if nothing has ended the roll-out. Absent: when somebody says so.
    pub(crate) promote_after: Option<PromoteAfter>,
}

/// The next version of a plugin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Candidate {
    /// Its module, written like the plugin's own.
    Module(Text<Module>),
    /// Its module, and what else differs.
    Settings(CandidateSettings),
}

impl Default for Candidate {
    fn default() -> Self {
        Self::Module(Text::default())
    }
}

/// The next version of a plugin. Limits and what happens when it fails are the plugin's.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["module"]))]
pub(crate) struct CandidateSettings {
    /// Its module, written like the plugin's own.
    pub(crate) module: Text<Module>,
    /// The SHA-256 digest that the module must have, in hexadecimal digits.
    pub(crate) sha256: Option<Text<Digest>>,
    /// What it is configured with, wherever the plugin is used. Absent: with what the filter says.
    pub(crate) config: Option<Private>,
}

/// What ends a roll-out.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AbortIf {
    /// The candidate has failed in more exchanges than this: trapped, exceeded its limits, or could not be started.
    pub(crate) traps: u64,
    /// A larger share of the shadows disagrees with the current version. Only with `shadow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disagree: Option<Text<Percent>>,
    /// The candidate's exchanges take longer in the filter by more than this, at the 99th percentile. Judged once 1000 of each version
    /// have been timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) added_p99: Option<Text<Duration>>,
}

/// When a candidate takes the plugin's place: all that is written must hold.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PromoteAfter {
    /// It has had so many exchanges.
    #[schemars(range(min = 1))]
    pub(crate) exchanges: Option<u64>,
    /// So much time has passed since the roll-out began.
    pub(crate) time: Option<Text<Duration>>,
}
