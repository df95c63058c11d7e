//! The files of a configuration: read anew when somebody asks for it, or when they have changed.
//!
//! Changes are found by looking at every file about once a second, not by being told of them: that works alike on all file
//! systems, in containers and over networks, through links on the way, and for files that do not exist yet, and it misses
//! nothing however files are replaced. It costs one `stat` per file; with very many files it is done less often.

use std::collections::VecDeque;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::tenants::{self, Change, ChangeError, Changed};
use crate::config::standing::{Held, Looking, Settled, Standing, Unusable, Used};
use crate::config::{Inputs, Kept, Node};
use crate::diagnostic::text;
use crate::supervisor::{Applied, Handle};

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Looking may take this share of the time, and is done less often if it would take more.
const SHARE: u32 = 100;
/// How long files must have been left alone before they are read: whoever writes several, or one in pieces, shall be done.
const SETTLED: Duration = Duration::from_millis(200);
/// How often to wait for that. A file that is always written to must not keep the others from being read.
const MOST_WAITS: usize = 25;

type Outcome = Result<Applied, String>;

/// What was read at the start, to be read again.
pub(crate) struct Files {
    /// What operators named.
    pub(crate) paths: Arc<[PathBuf]>,
    /// What it was read from.
    pub(crate) inputs: Inputs,
    /// Whether to look for changes.
    pub(crate) watch: bool,
    /// Where the last good configuration is kept.
    pub(crate) keep: Option<Kept>,
    /// What is in use of tenants' own files.
    pub(crate) standing: Standing,
}

/// Keeps a copy of the configuration that is served; the log says when that cannot be done.
pub(crate) fn keep(keep: &Kept, inputs: &Inputs, held: &Held) {
    if let Err(error) = keep.keep(inputs, held) {
        tracing::error!(%error, "no copy of the configuration could be kept");
    }
}

/// Reads a configuration anew and puts it into use, one at a time.
pub(super) struct Reloader {
    paths: Arc<[PathBuf]>,
    keep: Option<Kept>,
    standing: Arc<Standing>,
    handle: Handle,
    /// What the last attempt, good or bad, was read from.
    inputs: watch::Sender<Inputs>,
    changes: mpsc::Receiver<()>,
    wanted: bool,
    /// Who waits for the attempt that is still to come, and for the one under way.
    waiting: Vec<oneshot::Sender<Outcome>>,
    served: Vec<oneshot::Sender<Outcome>>,
    /// Changes of tenants that are still to be made.
    changes_of_tenants: VecDeque<(Change, ChangeAnswer)>,
    running: Option<oneshot::Receiver<Attempt>>,
}

/// Who waits for what comes of a change.
type ChangeAnswer = oneshot::Sender<Result<Changed, ChangeError>>;

/// What has become of an attempt.
struct Attempt {
    /// What it was read from; nothing if what was read before still tells of changes.
    inputs: Option<Inputs>,
    /// What stands now, if anything new does.
    standing: Option<Standing>,
    told: Told,
}

/// What is to be told of it.
enum Told {
    Reread(Outcome),
    Change(Result<Changed, ChangeError>, ChangeAnswer),
}

impl Reloader {
    pub(super) fn new(files: Files, handle: Handle) -> Self {
        let Files { paths, inputs, watch, keep, standing } = files;
        let (changed, changes) = mpsc::channel(1);
        let (inputs, watched) = watch::channel(inputs);
        if watch {
            spawn_local(look_for_changes(watched, changed));
        }
        let (waiting, served) = (Vec::new(), Vec::new());
        let standing = Arc::new(standing);
        Self {
            paths,
            keep,
            standing,
            handle,
            inputs,
            changes,
            wanted: false,
            waiting,
            served,
            changes_of_tenants: VecDeque::new(),
            running: None,
        }
    }

    /// Notes that the configuration is to be read anew, and who wants to know what comes of it.
    pub(super) fn ask(&mut self, answer: Option<oneshot::Sender<Outcome>>) {
        self.wanted = true;
        self.waiting.extend(answer);
    }

    /// Notes a change of a tenant that is to be made, and who wants to know what comes of it.
    pub(super) fn change(&mut self, change: Change, answer: ChangeAnswer) {
        self.changes_of_tenants.push_back((change, answer));
    }

    /// Begins with what was asked for, if none is under way: what was read before the asking may be old.
    pub(super) fn begin(&mut self) -> bool {
        if self.running.is_some() {
            return false;
        }
        let change = if self.wanted { None } else { self.changes_of_tenants.pop_front() };
        if !self.wanted && change.is_none() {
            return false;
        }
        if change.is_none() {
            self.wanted = false;
            self.served = std::mem::take(&mut self.waiting);
        }
        let (done, running) = oneshot::channel();
        self.running = Some(running);
        let (paths, handle, kept) = (self.paths.clone(), self.handle.clone(), self.keep.clone());
        let standing = self.standing.clone();
        thread::spawn(move || {
            let attempt = match change {
                None => reload(&paths, &standing, &handle, kept.as_ref()),
                Some((change, answer)) => {
                    let tenants::Outcome { result, now } = tenants::make(&change, &paths, &standing, &handle);
                    let (inputs, standing) = now.unzip();
                    Attempt { inputs, standing, told: Told::Change(result, answer) }
                }
            };
            // Nobody waits any more when the gateway ends.
            let _ = done.send(attempt);
        });
        true
    }

    /// Waits until the files have changed, which asks for them to be read, or until an attempt has ended: then what is served
    /// is said. Dropped early, it loses nothing.
    pub(super) async fn news(&mut self) -> Option<String> {
        let Self { changes, running, .. } = self;
        let ended = async {
            match running {
                Some(running) => running.await,
                None => pending().await,
            }
        };
        tokio::select! {
            // When nobody looks for changes there are none.
            Some(()) = changes.recv() => {
                self.ask(None);
                None
            }
            ended = ended => Some(self.end(ended.ok())),
        }
    }

    /// Tells those who waited what came of an attempt, and says what is served.
    fn end(&mut self, ended: Option<Attempt>) -> String {
        self.running = None;
        let Some(Attempt { inputs, standing, told }) = ended else {
            self.served.drain(..).for_each(|answer| _ = answer.send(Err(PANICKED.to_owned())));
            return PANICKED.to_owned();
        };
        if let Some(inputs) = inputs {
            self.inputs.send_replace(inputs);
        }
        if let Some(standing) = standing {
            self.standing = Arc::new(standing);
        }
        // Who asked may have gone.
        match told {
            Told::Reread(outcome) => {
                self.served.drain(..).for_each(|answer| _ = answer.send(outcome.clone()));
                match outcome {
                    Ok(Applied { revision, .. }) => format!("serving revision {revision}"),
                    Err(_) => "serving; the last change of the configuration was refused".to_owned(),
                }
            }
            Told::Change(result, answer) => {
                let status = match &result {
                    Ok(Changed { revision: Some(revision), .. }) => format!("serving revision {revision}"),
                    Ok(_) | Err(_) => "serving".to_owned(),
                };
                let _ = answer.send(result);
                status
            }
        }
    }
}

const PANICKED: &str = "the thread that read the configuration has panicked";

fn reload(paths: &[PathBuf], standing: &Standing, handle: &Handle, kept: Option<&Kept>) -> Attempt {
    let began = Instant::now();
    let inputs = Inputs::default();
    let apply = |snapshot, tree: &Node| {
        let made = handle.apply(snapshot).map_err(|why| Unusable::written(why, tree))?;
        Ok(Used { made, snapshot: handle.snapshot() })
    };
    match standing.settle(paths, &inputs, Looking::Everywhere, apply) {
        Ok(Settled { made, standing, warnings, held, inputs }) => {
            if !warnings.is_empty() {
                tracing::warn!(warnings = text(&warnings), "the configuration has warnings");
            }
            let Applied { revision, at_next_start } = &made;
            tracing::info!(revision, took = ?began.elapsed(), "a new configuration is served");
            if !at_next_start.is_empty() {
                tracing::warn!(
                    keys = at_next_start.join(", "),
                    "changed, but only in use once the gateway starts anew"
                );
            }
            tell_held(&held);
            if let Some(kept) = kept {
                keep(kept, &inputs, &held);
            }
            Attempt { inputs: Some(inputs), standing: Some(standing), told: Told::Reread(Ok(made)) }
        }
        Err(refused) => {
            let why = refused.text();
            handle.refused(&why);
            tracing::error!(why, "the configuration was refused; the one before it is still served");
            Attempt { inputs: Some(inputs), standing: None, told: Told::Reread(Err(why)) }
        }
    }
}

/// Tells the log of every tenant whose files are not in use.
pub(crate) fn tell_held(held: &Held) {
    for (tenant, why) in held {
        tracing::error!(tenant = &**tenant, why, "this tenant's own files were refused; what they said before holds");
    }
}

/// Tells of every change of the files, once they have settled.
async fn look_for_changes(mut inputs: watch::Receiver<Inputs>, changed: mpsc::Sender<()>) {
    let mut period = PERIOD;
    loop {
        sleep(period).await;
        let files = inputs.borrow_and_update().clone();
        let began = Instant::now();
        let mut seen = files.now();
        period = PERIOD.max(began.elapsed() * SHARE);
        if seen == files.noted() {
            continue;
        }
        for _ in 0..MOST_WAITS {
            sleep(SETTLED).await;
            let now = files.now();
            if std::mem::replace(&mut seen, now.clone()) == now {
                break;
            }
        }
        // What they are compared with changes when they have been read.
        if changed.send(()).await.is_err() || inputs.changed().await.is_err() {
            return;
        }
    }
}
