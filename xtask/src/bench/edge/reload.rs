//! What reloads of a configuration with a thousand routes do to latency.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use portcullis_measure::{median, wait_for};

use crate::bench::options::Options;
use crate::bench::peer::{Filters, Peer};
use crate::bench::rig::{Gateway, POLL, Rig};

const ROUTES: usize = 1000;
const BETWEEN: Duration = Duration::from_secs(1);
/// The most that the 99th percentile may move, in milliseconds.
const LIMIT: f64 = 1.0;

/// Measures without and with a reload each second, in turns.
pub(super) fn run(rig: &Rig, program: &Path, options: &Options) -> Result<String> {
    let mut gateway = rig.start(Peer::Portcullis, program, Filters::None)?;
    let config = Config::of(&gateway)?;
    config.write(0)?;
    wait_for("the thousand routes are served", POLL, || {
        gateway.process.still_running()?;
        Ok((reloads(&gateway) > 0).then_some(()))
    })?;
    rig.load(&mut gateway, 1)?;
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        quiet.push(rig.load(&mut gateway, options.seconds)?.p99_ms);
        let over = AtomicBool::new(false);
        let load = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for revision in 1.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    config.write(revision)?;
                    thread::sleep(BETWEEN);
                }
                anyhow::Ok(())
            });
            let load = rig.load(&mut gateway, options.seconds);
            over.store(true, Ordering::Relaxed);
            writer.join().unwrap_or_else(|_| bail!("the writer panicked"))?;
            load
        })?;
        busy.push(load.p99_ms);
    }
    let moved = median(quiet.iter().zip(&busy).map(|(quiet, busy)| busy - quiet).collect()).unwrap_or(f64::NAN);
    let middle = |values: Vec<f64>| median(values).unwrap_or(f64::NAN);
    let verdict = if moved < LIMIT { "pass" } else { "MISS" };
    Ok(format!(
        "Reloads of {ROUTES} routes, one a second ({} taken up): p99 {:.2} ms without, {:.2} ms with; \
         moved by {moved:+.2} ms ({verdict}, less than {LIMIT:.0})",
        reloads(&gateway),
        middle(quiet),
        middle(busy)
    ))
}

/// The gateway's configuration, which it watches.
struct Config {
    path: std::path::PathBuf,
    head: String,
}

impl Config {
    fn of(gateway: &Gateway) -> Result<Self> {
        let path = gateway.dir.join("portcullis.yaml");
        let text = fs::read_to_string(&path)?;
        let (head, _) = text.split_once("routes:").context("the configuration has routes")?;
        Ok(Self { path, head: head.to_owned() })
    }

    /// Writes the next revision, as careful people do: into place in one step.
    fn write(&self, revision: usize) -> Result<()> {
        let mut text = format!("{}routes:\n", self.head);
        for route in 0..ROUTES {
            _ = writeln!(
                text,
                "  - {{ name: r{route}, match: {{ path: \"/r{route}/v{revision}/*\" }}, upstream: origin }}"
            );
        }
        text.push_str("  - { name: all, match: { path: \"/*\" }, upstream: origin }\n");
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text)?;
        Ok(fs::rename(fresh, &self.path)?)
    }
}

fn reloads(gateway: &Gateway) -> usize {
    gateway.process.printed().matches("a new configuration is served").count()
}
