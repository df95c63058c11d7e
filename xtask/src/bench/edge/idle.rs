//! What an idle kept-alive connection weighs: ten thousand are opened, each after one request, and the gateway is weighed.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portcullis_measure::process::{LOAD_CORE, pinned};

use crate::bench::peer::{Certificate, Filters, Peer, release_binary};
use crate::bench::rig::Rig;

const CONNECTIONS: u32 = 10_000;
/// How long they have been idle when the gateway is weighed.
const IDLE: Duration = Duration::from_secs(5);
/// So many come and go first: what they make the allocator keep is no cost of the others.
const WARM_UP: u32 = 200;
/// The most that each may weigh in Portcullis, in KiB: in the clear, and with TLS.
const LIMITS: [f64; 2] = [12.0, 40.0];

/// A table of all gateways.
pub(super) fn run(rig: &Rig, gateways: &[(Peer, &Path)], certificate: &Certificate) -> Result<String> {
    let holder = release_binary("portcullis-peers", "idle")?;
    let mut table =
        format!("| KiB for each of {CONNECTIONS} idle connections | in the clear | TLS 1.3 |\n| --- | ---: | ---: |\n");
    for (peer, program) in gateways {
        let weigh = |certificate| weigh(rig, &holder, *peer, program, certificate);
        let figures = [weigh(None)?, weigh(Some(certificate))?];
        let cell = |(figure, limit): (f64, f64)| {
            let verdict = if figure > limit { "MISS" } else { "pass" };
            if *peer == Peer::Portcullis {
                format!("{figure:.1} ({verdict}, at most {limit:.0})")
            } else {
                format!("{figure:.1}")
            }
        };
        let cells: Vec<_> = figures.into_iter().zip(LIMITS).map(cell).collect();
        _ = writeln!(table, "| {} | {} |", peer.name(), cells.join(" | "));
    }
    Ok(table)
}

fn weigh(rig: &Rig, holder: &Path, peer: Peer, program: &Path, certificate: Option<&Certificate>) -> Result<f64> {
    let gateway = rig.start_with(peer, program, Filters::None, certificate)?;
    let hold = |count: u32| -> Result<f64> {
        let mut command = pinned(&[LOAD_CORE], holder);
        command.args([gateway.address.to_string(), count.to_string()]);
        command.args(certificate.map(|_| "tls")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut said = [0; 6];
        let ready = child.stdout.as_mut().context("its output")?.read_exact(&mut said);
        thread::sleep(IDLE);
        let weight = gateway.process.resident_mib() * 1024.0;
        drop(child.stdin.take());
        let status = child.wait()?;
        ready.with_context(|| format!("{}: not all connections were served", peer.name()))?;
        ensure!(status.success(), "{}: the connections ended with {status}", peer.name());
        Ok(weight)
    };
    let before = hold(WARM_UP)?;
    Ok((hold(CONNECTIONS)? - before) / f64::from(CONNECTIONS - WARM_UP))
}
