//! What was decided about roll-outs, kept for the next start: a candidate that was given up does not come back with it.
//!
//! There is a file for each roll-out about which something was decided, named by what the roll-out goes by: so another candidate, or
//! another way of trying it, begins anew. Each is written by itself, since a successor may keep its own beside them.
//! **Invariants:** nothing is kept of a roll-out that is not in use; no worker waits for a disk.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError, mpsc};

use portcullis_core::rollout::{Decision, Rollout, State, Why};
use portcullis_core::time::Time;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::standing::Held;
use crate::config::{Digest, Written as _};
use crate::durable;
use crate::telemetry::log_decision;

/// Where decisions are kept.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// Nowhere, if absent.
    folder: Option<PathBuf>,
    #[allow(clippy::disallowed_types, reason = "taken when something is decided or the configuration changes")]
    present: std::sync::Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    /// The roll-outs in use.
    rollouts: HashMap<[u8; 32], Arc<Rollout>>,
    /// Another process keeps them now.
    has_successor: bool,
    /// It was said that they are kept nowhere.
    has_warned: bool,
}

/// What a file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    plugin: String,
    tenant: Option<String>,
    state: String,
    /// In seconds since the Unix epoch.
    at: u64,
    why: String,
}

impl Decisions {
    /// Keeps them in this directory, or nowhere.
    pub(crate) fn kept_in(folder: Option<PathBuf>) -> Self {
        Self { folder, ..Self::default() }
    }

    /// What has been decided about a roll-out. What cannot be read was a decision too: the candidate is given up then, since nothing
    /// is lost by that.
    pub(crate) fn about(&self, identity: &[u8; 32]) -> Option<Decision> {
        let file = self.file(identity)?;
        let read = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(text) => read(&text),
        };
        Some(read.unwrap_or_else(|error| {
            tracing::error!(file = %file.display(), error, "what was decided about a roll-out cannot be read");
            let why = Why::Before("what was decided about it cannot be read".into());
            Decision { state: State::Aborted, at: clock::now(), why }
        }))
    }

    /// Keeps what has been decided about a roll-out, if it is in use.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn keep(&self, rollout: &Arc<Rollout>) -> io::Result<()> {
        // Held until it is written, so that the last decision is the one that stays.
        let present = self.present();
        let is_used = present.rollouts.get(&rollout.identity).is_some_and(|used| Arc::ptr_eq(used, rollout));
        match (self.file(&rollout.identity), rollout.decision()) {
            (Some(file), Some(decision)) if is_used && !present.has_successor => {
                durable::replace(&file, &written(rollout, &decision))
            }
            _ => Ok(()),
        }
    }

    /// These roll-outs are in use now, all of them before any of their exchanges. Of others nothing is kept any more, but of those
    /// whose tenants are held: what their files say is not known.
    pub(crate) fn follow(&self, rollouts: Vec<Arc<Rollout>>, held: &Held) {
        let mut present = self.present();
        if self.folder.is_none() && !rollouts.is_empty() && !std::mem::replace(&mut present.has_warned, true) {
            tracing::warn!(
                "nothing keeps what is decided about roll-outs: with the next start, candidates that were given up are tried \
                 again. Start the gateway with `--keep DIR`"
            );
        }
        let rollouts = rollouts.into_iter().map(|rollout| (rollout.identity, rollout)).collect();
        let before = std::mem::replace(&mut present.rollouts, rollouts);
        present.rollouts.values().filter(|rollout| !before.contains_key(&rollout.identity)).for_each(tell);
        if let Some(folder) = self.folder.as_ref().filter(|_| !present.has_successor)
            && let Err(error) = present.sweep(folder, held)
        {
            tracing::warn!(%error, "what was decided about roll-outs that there are no more cannot be removed");
        }
    }

    /// Leaves them to a successor.
    pub(crate) fn leave(&self) {
        self.present().has_successor = true;
    }

    /// Keeps what workers say has been decided, and tells the log of it, until none of them is left. What the log says is kept.
    pub(crate) fn attend(&self, decided: mpsc::Receiver<Arc<Rollout>>) {
        for rollout in decided {
            let kept = self.keep(&rollout);
            log_decision(&rollout);
            if let Err(error) = kept {
                tracing::error!(plugin = &*rollout.plugin, %error, "this will be forgotten with the next start");
            }
        }
    }

    fn file(&self, identity: &[u8; 32]) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.json", Digest(*identity).write())))
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn sweep(&self, folder: &Path, held: &Held) -> io::Result<()> {
        let files = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let path = file?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).and_then(|name| Digest::read(name).ok());
            let Some(Digest(identity)) = name else { continue };
            if !self.rollouts.contains_key(&identity) && !is_of(&path, held) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether a file is about a roll-out of one of these tenants.
fn is_of(path: &Path, tenants: &Held) -> bool {
    let kept = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    kept.and_then(|kept| kept.tenant).is_some_and(|tenant| tenants.contains_key(&*tenant))
}

/// Tells the log what stands of a roll-out that begins.
fn tell(rollout: &Arc<Rollout>) {
    if let Some(Decision { state, why: Why::Before(why), .. }) = rollout.decision() {
        let (plugin, tenant) = (&*rollout.plugin, rollout.tenant.as_deref().unwrap_or_default());
        tracing::info!(plugin, tenant, "a roll-out stays {}, as was decided before: {why}", state.as_str());
    }
}

fn written(rollout: &Rollout, decision: &Decision) -> Vec<u8> {
    let kept = Kept {
        plugin: rollout.plugin.to_string(),
        tenant: rollout.tenant.as_ref().map(ToString::to_string),
        state: decision.state.as_str().to_owned(),
        at: decision.at.as_nanos() / 1_000_000_000,
        why: decision.why.to_string(),
    };
    format!("{:#}\n", serde_json::json!(kept)).into_bytes()
}

fn read(text: &[u8]) -> Result<Decision, String> {
    let Kept { state, at, why, .. } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let state = State::named(&state).ok_or_else(|| format!("`{state}` is no state of a roll-out"))?;
    let at = Time::from_nanos(at.saturating_mul(1_000_000_000));
    Ok(Decision { state, at, why: Why::Before(why.into()) })
}

#[cfg(test)]
mod tests {
    use portcullis_core::rollout::{Bounds, By, Mode, Rule};

    use super::*;

    fn rollout(number: u8, tenant: Option<&str>) -> Arc<Rollout> {
        let rule =
            Rule { mode: Mode::Serves, share: 1, by: By::Random, abort_if: Bounds::default(), promote_after: None };
        let tenant = tenant.map(Arc::from);
        Arc::new(Rollout::new("geo".into(), tenant, rule, Time::default()).known_as([number; 32]))
    }

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_last_decision_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let kept = || Decisions::kept_in(Some(folder.path().join("rollouts")));
        let (decisions, rollout) = (kept(), rollout(1, None));
        decisions.follow(vec![rollout.clone()], &Held::new());
        decisions.keep(&rollout).unwrap();
        assert_eq!(kept().about(&[1; 32]), None, "nothing has been decided");
        assert!(rollout.failed(at(7)));
        decisions.keep(&rollout).unwrap();
        let why = Why::Before("the candidate failed in 1 exchange".into());
        assert_eq!(kept().about(&[1; 32]), Some(Decision { state: State::Aborted, at: at(7), why }));
        rollout.tell(State::Promoted, "an operator", at(8));
        decisions.keep(&rollout).unwrap();
        assert_eq!(kept().about(&[1; 32]).unwrap().state, State::Promoted);
        assert_eq!(kept().about(&[2; 32]), None, "another roll-out");
    }

    #[test]
    fn nothing_is_kept_of_what_is_not_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let decisions = Decisions::kept_in(Some(folder.path().to_owned()));
        let [ours, theirs, gone] = [rollout(1, None), rollout(2, Some("acme")), rollout(3, Some("globex"))];
        let all = [&ours, &theirs, &gone];
        all.iter().for_each(|rollout| rollout.tell(State::Aborted, "an operator", at(1)));
        decisions.follow(all.map(Arc::clone).into(), &Held::new());
        all.iter().for_each(|rollout| decisions.keep(rollout).unwrap());
        let there = || [1, 2, 3].map(|number| decisions.about(&[number; 32]).is_some());
        assert_eq!(there(), [true; 3]);
        let held = Held::from([("acme".into(), "its file cannot be read".to_owned())]);
        decisions.follow(vec![ours.clone()], &held);
        decisions.keep(&gone).unwrap();
        assert_eq!(there(), [true, true, false]);
        decisions.follow(vec![rollout(1, None)], &Held::new());
        assert_eq!(there(), [true, false, false]);
        ours.tell(State::Promoted, "an operator", at(2));
        decisions.keep(&ours).unwrap();
        assert_eq!(decisions.about(&[1; 32]).unwrap().state, State::Aborted, "it has been replaced");
    }

    #[test]
    fn who_has_a_successor_writes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let decisions = Decisions::kept_in(Some(folder.path().to_owned()));
        let rollout = rollout(1, None);
        decisions.follow(vec![rollout.clone()], &Held::new());
        rollout.tell(State::Aborted, "an operator", at(1));
        decisions.keep(&rollout).unwrap();
        decisions.leave();
        rollout.tell(State::Promoted, "an operator", at(2));
        decisions.keep(&rollout).unwrap();
        decisions.follow(Vec::new(), &Held::new());
        assert_eq!(decisions.about(&[1; 32]).unwrap().state, State::Aborted);
    }

    #[test]
    fn what_cannot_be_read_gives_the_candidate_up() {
        let folder = tempfile::tempdir().unwrap();
        let decisions = Decisions::kept_in(Some(folder.path().to_owned()));
        let file = folder.path().join(format!("{}.json", "01".repeat(32)));
        for text in ["", "{", r#"{"plugin":"geo","tenant":null,"state":"running on","at":1,"why":"?"}"#] {
            fs::write(&file, text).unwrap();
            let decision = decisions.about(&[1; 32]).unwrap();
            let why = Why::Before("what was decided about it cannot be read".into());
            assert_eq!((decision.state, decision.why), (State::Aborted, why), "{text}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(decisions.about(&[1; 32]).unwrap().state, State::Aborted);
    }
}
