//! `cargo xtask bench proxy`: gateways side by side.
//!
//! The gateway has one core, the origin and the load generator share another. A round measures every subject once, each
//! freshly started, before the next round begins: when the machine's speed drifts, it drifts for all of them. The figure
//! to trust is processor time per request; rates and latencies also depend on what the load generator can do.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::options::Options;
use super::peer::{Filters, Peer, Place, release_binary};
use super::process::{LOAD_CORE, Process, core_seconds, pinned};
use super::report::{self, Round, Subject};
use super::{target, wrk};
use crate::{plugins, target_dir, tools};

/// Ample for Envoy to compile a module on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const WARM_UP_SECONDS: u32 = 1;

/// Measures, prints the tables and leaves the raw figures as JSON.
pub(super) fn run(options: &Options) -> Result<()> {
    let bench = Bench::prepare()?;
    let mut subjects = subjects(&options.peers)?;
    ensure!(!subjects.is_empty(), "there is nothing to measure");
    for round in 1..=options.rounds {
        subjects.retain_mut(|subject| match bench.measure(subject, options.seconds) {
            Ok(figures) => {
                eprintln!("round {round}/{}  {subject}  {figures}", options.rounds);
                subject.rounds.push(figures);
                true
            }
            Err(why) => {
                eprintln!("{subject} is left out: {why:#}");
                false
            }
        });
    }
    let targets = target::judge(&subjects);
    println!("\n{}\n{}", report::markdown(&subjects), target::markdown(&targets));
    println!("{}\n", report::disturbance(&subjects));
    let json = bench.output.join("proxy.json");
    fs::write(&json, report::json(&subjects, options.seconds))?;
    println!("raw figures: {}", json.display());
    Ok(())
}

/// Everything that can be measured here, in order. A peer that is missing is named and passed over.
fn subjects(peers: &[Peer]) -> Result<Vec<Subject>> {
    if peers.iter().any(|peer| peer.cases().len() > 1) {
        plugins::build()?;
    }
    let mut subjects = Vec::new();
    for &peer in peers {
        match peer.obtain() {
            Ok(program) => subjects.extend(peer.cases().iter().map(|&case| Subject::new(peer, case, &program))),
            Err(why) => eprintln!("{} is left out: {why:#}", peer.name()),
        }
    }
    Ok(subjects)
}

/// What all subjects share.
struct Bench {
    wrk: PathBuf,
    output: PathBuf,
    origin: SocketAddr,
    /// Kept for its end.
    _origin: Process,
}

impl Bench {
    fn prepare() -> Result<Self> {
        let cores = thread::available_parallelism()?;
        ensure!(cores.get() > LOAD_CORE, "a core for the gateway and one for the load are needed; there is {cores}");
        for program in ["taskset", "setpriv"] {
            tools::require(program, "util-linux")?;
        }
        let wrk = tools::require("wrk", "wrk")?;
        let output = target_dir().join("bench");
        fs::create_dir_all(&output)?;
        let program = release_binary("portcullis-benches", "origin")?;
        let mut command = pinned(LOAD_CORE, &program);
        command.arg("127.0.0.1:0");
        let mut process = Process::start(command, &output.join("origin.log"))?;
        let origin = wait_for("the origin prints its address", || {
            process.still_running()?;
            Ok(process.printed().trim().parse().ok())
        })?;
        Ok(Self { wrk, output, origin, _origin: process })
    }

    /// One round of one subject, from its start to its end.
    fn measure(&self, subject: &Subject, seconds: u32) -> Result<Round> {
        let dir = self.output.join(subject.peer.name());
        fs::create_dir_all(&dir)?;
        let place = Place { listen: free_address()?, origin: self.origin, dir: &dir };
        let mut gateway = start(subject.peer, &subject.program, subject.filters, &place)?;
        wrk::load(&self.wrk, place.listen, WARM_UP_SECONDS)?;
        let (began, core_before, before) = (Instant::now(), core_seconds()?, gateway.cpu_seconds()?);
        let load = wrk::load(&self.wrk, place.listen, seconds)?;
        let used = gateway.cpu_seconds()? - before;
        let others = (core_seconds()? - core_before - used).max(0.0) / began.elapsed().as_secs_f64();
        gateway.still_running()?;
        Ok(Round {
            requests_per_second: load.requests_per_second,
            cpu_us: used * 1e6 / load.requests,
            p50_ms: load.p50_ms,
            p99_ms: load.p99_ms,
            resident_mib: gateway.resident_mib(),
            others,
        })
    }
}

/// Starts a gateway and waits until a request came back from the origin.
fn start(peer: Peer, program: &Path, filters: Filters, place: &Place<'_>) -> Result<Process> {
    let log = place.dir.join("output.log");
    let mut gateway = Process::start(peer.command(program, filters, place)?, &log)?;
    wait_for("it answers", || {
        gateway.still_running()?;
        Ok(answers(place.listen).then_some(()))
    })
    .with_context(|| format!("see {}", log.display()))?;
    Ok(gateway)
}

/// Asks until there is an answer.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < START_DEADLINE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        thread::sleep(POLL);
    }
    bail!("waited {START_DEADLINE:?} until {what}")
}

/// Whether a request gets the origin's reply. Not being there yet is no error.
fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        Ok(reply)
    };
    ask().is_ok_and(|reply: Vec<u8>| reply.starts_with(b"HTTP/1.1 200"))
}

/// An address nobody listens on. Somebody may take it before the gateway does, which then says so and is left out.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
