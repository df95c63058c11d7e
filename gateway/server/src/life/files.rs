//! The files of a configuration: read anew when somebody asks for it, or when they have changed.
//!
//! Changes are found by looking at every file about once a second, not by being told of them: that works alike on all file
//! systems, in containers and over networks, through links on the way, and for files that do not exist yet, and it misses
//! nothing however files are replaced. It costs one `stat` per file; with very many files it is done less often.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::config::{self, Inputs, Kept};
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
}

/// Keeps a copy of the configuration that is served; the log says when that cannot be done.
pub(crate) fn keep(keep: &Kept, inputs: &Inputs) {
    if let Err(error) = keep.keep(inputs) {
        tracing::error!(%error, "no copy of the configuration could be kept");
    }
}

/// Reads a configuration anew and puts it into use, one at a time.
pub(super) struct Reloader {
    paths: Arc<[PathBuf]>,
    keep: Option<Kept>,
    handle: Handle,
    /// What the last attempt, good or bad, was read from.
    inputs: watch::Sender<Inputs>,
    changes: mpsc::Receiver<()>,
    wanted: bool,
    /// Who waits for the attempt that is still to come, and for the one under way.
    waiting: Vec<oneshot::Sender<Outcome>>,
    served: Vec<oneshot::Sender<Outcome>>,
    running: Option<oneshot::Receiver<(Inputs, Outcome)>>,
}

impl Reloader {
    pub(super) fn new(files: Files, handle: Handle) -> Self {
        let Files { paths, inputs, watch, keep } = files;
        let (changed, changes) = mpsc::channel(1);
        let (inputs, watched) = watch::channel(inputs);
        if watch {
            spawn_local(look_for_changes(watched, changed));
        }
        let (waiting, served) = (Vec::new(), Vec::new());
        Self { paths, keep, handle, inputs, changes, wanted: false, waiting, served, running: None }
    }

    /// Notes that the configuration is to be read anew, and who wants to know what comes of it.
    pub(super) fn ask(&mut self, answer: Option<oneshot::Sender<Outcome>>) {
        self.wanted = true;
        self.waiting.extend(answer);
    }

    /// Begins to, if that was asked for and none is under way: what was read before the asking may be old.
    pub(super) fn begin(&mut self) -> bool {
        if !self.wanted || self.running.is_some() {
            return false;
        }
        self.wanted = false;
        self.served = std::mem::take(&mut self.waiting);
        let (done, running) = oneshot::channel();
        self.running = Some(running);
        let (paths, handle, kept) = (self.paths.clone(), self.handle.clone(), self.keep.clone());
        thread::spawn(move || {
            let inputs = Inputs::default();
            let outcome = reload(&paths, &inputs, &handle);
            if let (Ok(_), Some(kept)) = (&outcome, &kept) {
                keep(kept, &inputs);
            }
            // Nobody waits any more when the gateway ends.
            let _ = done.send((inputs, outcome));
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
    fn end(&mut self, ended: Option<(Inputs, Outcome)>) -> String {
        self.running = None;
        let outcome = match ended {
            Some((inputs, outcome)) => {
                self.inputs.send_replace(inputs);
                outcome
            }
            None => Err("the thread that read the configuration has panicked".to_owned()),
        };
        for answer in self.served.drain(..) {
            // Who asked may have gone.
            let _ = answer.send(outcome.clone());
        }
        match outcome {
            Ok(Applied { revision, .. }) => format!("serving revision {revision}"),
            Err(_) => "serving; the last change of the configuration was refused".to_owned(),
        }
    }
}

fn reload(paths: &[PathBuf], inputs: &Inputs, handle: &Handle) -> Outcome {
    let began = Instant::now();
    let outcome = match config::load_noting(paths, inputs) {
        Ok((snapshot, warnings)) => {
            if !warnings.is_empty() {
                tracing::warn!(warnings = text(&warnings), "the configuration has warnings");
            }
            handle.apply(snapshot).map_err(|error| error.to_string())
        }
        Err(problems) => {
            let why = text(&problems);
            handle.refused(&why);
            Err(why)
        }
    };
    match &outcome {
        Ok(Applied { revision, at_next_start }) => {
            tracing::info!(revision, took = ?began.elapsed(), "a new configuration is served");
            if !at_next_start.is_empty() {
                tracing::warn!(
                    keys = at_next_start.join(", "),
                    "changed, but only in use once the gateway starts anew"
                );
            }
        }
        Err(why) => tracing::error!(why, "the configuration was refused; the one before it is still served"),
    }
    outcome
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
