//! What is told of roll-outs: metrics, a line each for people, and a line in the log when something is decided.

use std::sync::Arc;

use portcullis_core::rollout::{Counts, Decision, Rollout, State, Version};
use portcullis_core::time::nanos;

use super::exposition::{Exposition, Seconds};
use super::room::{Ledger, ROLLOUTS};

/// The lines there are of one of them, and the most bytes of one but for its names.
const LINES: usize = State::ALL.len() + 9;
const LINE_BYTES: usize = 90;

/// What comes of shadows, in the order in which they are counted.
const SHADOWS: [&str; 3] = ["agreed", "disagreed", "incomplete"];

const VERSIONS: [(Version, &str); 2] = [(Version::Current, "current"), (Version::Candidate, "candidate")];

/// Says in the log what has been decided by itself.
pub(crate) fn log_decision(rollout: &Rollout) {
    let Some(Decision { state, why, .. }) = rollout.decision() else { return };
    let Counts { exchanges: [current, candidate], traps, shadows: [_, disagreed, _], p99, .. } = rollout.counts();
    let (plugin, tenant) = (&*rollout.plugin, rollout.tenant.as_deref().unwrap_or_default());
    let [current_p99, candidate_p99] = p99.map(Option::unwrap_or_default);
    match state {
        State::Aborted => tracing::warn!(
            plugin,
            tenant,
            current,
            candidate,
            traps,
            disagreed,
            ?current_p99,
            ?candidate_p99,
            "a roll-out was aborted: {why}; every further exchange gets the current version"
        ),
        State::Promoted | State::Running => tracing::info!(
            plugin,
            tenant,
            current,
            candidate,
            traps,
            disagreed,
            ?current_p99,
            ?candidate_p99,
            "a candidate was promoted: {why}; it gets every further exchange. To keep it, write its module as the plugin's \
             `module`, and remove `rollout`"
        ),
    }
}

pub(super) fn render(text: &mut Exposition, rollouts: &[Arc<Rollout>]) {
    let mut ledger = Ledger::of(&ROLLOUTS);
    let shown = rollouts.iter().filter(|rollout| {
        let tenant = rollout.tenant.clone().unwrap_or_default();
        ledger.take(&tenant, LINES * (LINE_BYTES + rollout.plugin.len() + tenant.len()))
    });
    let shown: Vec<(&Rollout, Counts)> = shown.map(|rollout| (&**rollout, rollout.counts())).collect();
    let name = "portcullis_rollout_state";
    text.family(name, "gauge", "Where the roll-out of a plugin's next version stands: 1 for the state it is in.");
    for (rollout, _) in &shown {
        let now = rollout.state();
        for state in State::ALL {
            let [plugin, tenant] = labels(rollout);
            text.sample(name, &[plugin, tenant, ("state", state.as_str())], u8::from(state == now));
        }
    }
    let name = "portcullis_rollout_exchanges_total";
    text.family(
        name,
        "counter",
        "Exchanges that came to a plugin under roll-out and have ended, by the version they had.",
    );
    for (rollout, counts) in &shown {
        for ((_, version), count) in VERSIONS.iter().zip(counts.exchanges) {
            let [plugin, tenant] = labels(rollout);
            text.sample(name, &[plugin, tenant, ("version", version)], count);
        }
    }
    let name = "portcullis_rollout_traps_total";
    text.family(name, "counter", "Exchanges in which a candidate failed.");
    for (rollout, counts) in &shown {
        text.sample(name, &labels(rollout), counts.traps);
    }
    let name = "portcullis_rollout_no_room_total";
    text.family(name, "counter", "Exchanges, or copies of them, for whose candidate there was no room.");
    for (rollout, counts) in &shown {
        text.sample(name, &labels(rollout), counts.no_room);
    }
    let name = "portcullis_rollout_shadows_total";
    text.family(name, "counter", "Exchanges that a candidate was shown copies of, by what came of the comparison.");
    for (rollout, counts) in &shown {
        for (outcome, count) in SHADOWS.iter().zip(counts.shadows) {
            let [plugin, tenant] = labels(rollout);
            text.sample(name, &[plugin, tenant, ("outcome", outcome)], count);
        }
    }
    let name = "portcullis_rollout_p99_seconds";
    text.family(name, "gauge", "What 99 % of exchanges took in the filter at most, since the roll-out began.");
    for (rollout, counts) in &shown {
        for ((_, version), p99) in VERSIONS.iter().zip(counts.p99) {
            let [plugin, tenant] = labels(rollout);
            text.sample(name, &[plugin, tenant, ("version", version)], Seconds(nanos(p99.unwrap_or_default())));
        }
    }
}

fn labels(rollout: &Rollout) -> [(&'static str, &str); 2] {
    [("plugin", &rollout.plugin), ("tenant", rollout.tenant.as_deref().unwrap_or_default())]
}

/// What people are told of one.
pub(super) fn line(rollout: &Rollout) -> String {
    let Counts { exchanges: [current, candidate], traps, no_room, .. } = rollout.counts();
    let owner = rollout.tenant.as_deref().map(|tenant| format!(" of {tenant}")).unwrap_or_default();
    let why = rollout.decision().map(|decision| format!(": {}", decision.why)).unwrap_or_default();
    format!(
        "rollout of {}{owner}: {}{why}; {current} exchanges current, {candidate} candidate, {traps} failed, {no_room} without room",
        rollout.plugin,
        rollout.state().as_str()
    )
}
