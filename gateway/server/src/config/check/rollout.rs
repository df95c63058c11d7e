//! The roll-out of a plugin's next version.

use portcullis_core::rollout::{Bounds, Mode, Rule, Term, WHOLE};

use super::{Check, Section};
use crate::config::file;
use crate::config::private::Configuration;
use crate::config::snapshot::{Plugin, Rollout};
use crate::config::tree::{Key, Node, Value};
use crate::diagnostic::Diagnostic;

impl Check<'_> {
    /// The roll-out of `current`'s next version, if there is one.
    pub(super) fn rollout(
        &mut self,
        (plugin, current): (&file::Plugin, &Plugin),
        key: &Key,
        node: &Node,
        section: &Section<'_>,
    ) -> Option<Rollout> {
        let (rollout, node) = (plugin.rollout.as_ref()?, node.get("rollout")?);
        let place = node.get("candidate")?;
        let config = match &rollout.candidate {
            file::Candidate::Module(_) => None,
            file::Candidate::Settings(settings) => settings.config.as_ref(),
        };
        let (next, key) = candidate(plugin, key)?;
        let (code, digest) = self.module(&next, &key, place, section)?;
        let (headers_pause, vm_config) = self.pauses(plugin, &code, &key, place);
        let name = key.name.as_str().into();
        let module = next.module.0.clone();
        let candidate =
            Plugin { name, module, code, digest, headers_pause, vm_config, rollout: None, ..current.clone() };
        let promote_after = self.term(rollout, node);
        self.shadow(rollout, node);
        Some(Rollout {
            candidate: Box::new(candidate),
            config: config.map(|config| Configuration::of(config)),
            rule: Rule {
                mode: if rollout.shadow { Mode::Shadows } else { Mode::Serves },
                share: self.share(rollout, node),
                by: rollout.by.0.clone(),
                abort_if: Bounds {
                    traps: rollout.abort_if.traps,
                    disagree: rollout.abort_if.disagree.as_ref().map(|share| share.0.0),
                    added_p99: rollout.abort_if.added_p99.as_ref().map(|time| time.0),
                },
                promote_after,
            },
        })
    }

    /// How much of its exchanges the candidate gets or is shown.
    fn share(&mut self, rollout: &file::Rollout, node: &Node) -> u32 {
        let Some(percent) = rollout.percent else { return WHOLE };
        let share = hundredths(percent);
        if let Some(place) = node.get("percent").filter(|_| share == 0 && percent > 0.0) {
            let problem = Diagnostic::error("`percent` goes in steps of 0.01").at(&place.span, "this would be nothing");
            self.report(problem.help("write 0.01 or more, or 0 for nothing"));
        }
        share
    }

    fn shadow(&mut self, rollout: &file::Rollout, node: &Node) {
        if !rollout.shadow && rollout.percent.is_none() && node.is_whole() {
            let problem = Diagnostic::error("the roll-out does not say what the candidate gets");
            let help = "write `percent` for a share of the exchanges, or `shadow: true` for copies of them";
            self.report(problem.at(&node.span, "neither `percent` nor `shadow`").help(help));
        }
        if let Some(place) = node.get("abort_if").and_then(|bounds| bounds.get("disagree"))
            && !rollout.shadow
        {
            let problem = Diagnostic::error("only a shadow can disagree with the current version");
            self.report(problem.at(&place.span, "nothing is compared").help("write `shadow: true`, or leave it out"));
        }
    }

    fn term(&mut self, rollout: &file::Rollout, node: &Node) -> Option<Term> {
        let term = rollout.promote_after.as_ref()?;
        let (exchanges, time) = (term.exchanges, term.time.as_ref().map(|time| time.0));
        if exchanges.is_none() && time.is_none() {
            let place = node.get("promote_after")?;
            let problem = Diagnostic::error("`promote_after` does not say after what").at(&place.span, "empty").help(
                "write `exchanges`, `time` or both; without `promote_after` the candidate waits for somebody to say so",
            );
            self.report(problem);
        }
        Some(Term { exchanges, time })
    }
}

/// A plugin's next version as a plugin of its own, and what that is called.
pub(super) fn candidate(plugin: &file::Plugin, key: &Key) -> Option<(file::Plugin, Key)> {
    let (module, sha256) = match &plugin.rollout.as_ref()?.candidate {
        file::Candidate::Module(module) => (module, None),
        file::Candidate::Settings(settings) => (&settings.module, settings.sha256.as_ref()),
    };
    let next = file::Plugin { module: module.clone(), sha256: sha256.cloned(), ..file::Plugin::default() };
    Some((next, Key { name: format!("{}@candidate", key.name), span: key.span.clone() }))
}

/// Where a module is written: under a key of this name, or, as candidates may be, alone.
pub(super) fn module_place(node: &Node) -> Option<&Node> {
    node.get("module").or_else(|| matches!(node.value, Value::Text(_)).then_some(node))
}

/// A percentage in hundredths of a percent.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the schema bounds it to 0 and 100, and a float cast saturates"
)]
fn hundredths(percent: f64) -> u32 {
    ((percent * f64::from(WHOLE) / 100.0).round() as u32).min(WHOLE)
}
