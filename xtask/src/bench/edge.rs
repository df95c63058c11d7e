//! `cargo xtask bench edge`: what a gateway costs where clients meet it, beside its peers.
//!
//! TLS 1.3 with kept-alive connections, a new TLS connection for each request, HTTP/2 with a hundred streams; what an idle
//! connection weighs; and what reloads do to latency. As in `bench proxy`, the gateway has one core and a round measures every
//! subject once. The figure is always processor time of the gateway, so it does not matter what the load generator manages.

mod idle;
mod reload;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use portcullis_measure::median;

use super::h2load;
use super::options::Options;
use super::peer::{Certificate, Filters, Peer};
use super::rig::{Gateway, Rig};
use crate::{run as run_command, tools};

/// What is asked of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// HTTP/1.1 over TLS connections that stay.
    KeepAlive,
    /// A new TLS connection for each request, without resumption.
    Handshakes,
    /// HTTP/2 over TLS.
    Streams,
}

impl Case {
    const ALL: [Self; 3] = [Self::KeepAlive, Self::Handshakes, Self::Streams];

    fn describe(self) -> &'static str {
        match self {
            Self::KeepAlive => "TLS 1.3, kept alive",
            Self::Handshakes => "TLS 1.3, a connection each",
            Self::Streams => "HTTP/2 over TLS, 100 streams",
        }
    }

    /// The most it may cost, of Envoy's cost.
    fn limit(self) -> f64 {
        match self {
            Self::KeepAlive => 0.6,
            Self::Handshakes => 1.0,
            // 1.3 times as many requests per second of processor time.
            Self::Streams => 1.0 / 1.3,
        }
    }
}

/// A gateway, and what a request cost it in each round, in microseconds by case.
struct Subject {
    peer: Peer,
    program: PathBuf,
    rounds: Vec<[f64; 3]>,
}

/// Measures and prints the tables.
pub(super) fn run(options: &Options) -> Result<()> {
    let rig = Rig::prepare()?;
    let h2load = tools::require("h2load", "nghttp2-client")?;
    tools::require("curl", "curl")?;
    let certificate = certificate(&rig.output)?;
    let mut subjects = subjects(&options.peers);
    ensure!(!subjects.is_empty(), "there is nothing to measure");
    for round in 1..=options.rounds {
        for subject in &mut subjects {
            let mut gateway = rig.start_with(subject.peer, &subject.program, Filters::None, Some(&certificate))?;
            let mut figures = [0.0; 3];
            for (case, figure) in Case::ALL.into_iter().zip(&mut figures) {
                *figure = measure(&rig, &h2load, &mut gateway, case, options.seconds)?;
            }
            let [kept, fresh, streams] = figures;
            eprintln!(
                "round {round}/{}  {:<10}  {kept:.1}  {fresh:.1}  {streams:.1} µs",
                options.rounds,
                subject.peer.name()
            );
            subject.rounds.push(figures);
        }
    }
    println!("\n{}\n{}", costs(&subjects), verdicts(&subjects));
    let programs: Vec<_> = subjects.iter().map(|subject| (subject.peer, subject.program.as_path())).collect();
    println!("{}", idle::run(&rig, &programs, &certificate)?);
    if let Some((_, program)) = programs.iter().find(|(peer, _)| *peer == Peer::Portcullis) {
        println!("{}", reload::run(&rig, program, options)?);
    }
    Ok(())
}

/// All but the bare proxy, which knows no TLS.
fn subjects(peers: &[Peer]) -> Vec<Subject> {
    let able = peers.iter().filter(|peer| **peer != Peer::BareHyper);
    let obtained = able.filter_map(|&peer| match peer.obtain() {
        Ok(program) => Some(Subject { peer, program, rounds: Vec::new() }),
        Err(why) => {
            eprintln!("{} is left out: {why:#}", peer.name());
            None
        }
    });
    obtained.collect()
}

/// A certificate that signs itself, with a key on the curve that everybody uses.
fn certificate(dir: &Path) -> Result<Certificate> {
    let openssl = tools::require("openssl", "openssl")?;
    let path = |name: &str| dir.join(name);
    let made = Certificate { chain: path("cert.pem"), key: path("key.pem"), both: path("both.pem") };
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    command.args(["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"]).stderr(Stdio::null());
    run_command(command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.chain))?;
    fs::write(&made.both, [fs::read(&made.chain)?, fs::read(&made.key)?].concat())?;
    Ok(made)
}

/// Microseconds of processor time for a request.
fn measure(rig: &Rig, h2load: &Path, gateway: &mut Gateway, case: Case, seconds: u32) -> Result<f64> {
    let load = |gateway: &mut Gateway, seconds| match case {
        Case::KeepAlive => rig.load(gateway, seconds).map(|load| load.requests),
        Case::Handshakes => rig.load_with(gateway, seconds, &["-H", "connection: close"]).map(|load| load.requests),
        Case::Streams => h2load::load(h2load, &gateway.url(), seconds),
    };
    load(gateway, 1)?;
    let before = gateway.process.cpu_seconds()?;
    let requests = load(gateway, seconds)?;
    Ok((gateway.process.cpu_seconds()? - before) * 1e6 / requests)
}

fn middle(subject: &Subject, case: Case) -> f64 {
    median(subject.rounds.iter().map(|figures| of(figures, case)).collect()).unwrap_or(f64::NAN)
}

fn of(figures: &[f64; 3], case: Case) -> f64 {
    let [kept, fresh, streams] = *figures;
    match case {
        Case::KeepAlive => kept,
        Case::Handshakes => fresh,
        Case::Streams => streams,
    }
}

fn costs(subjects: &[Subject]) -> String {
    let mut table = String::from("| CPU µs/request |");
    let mut rule = String::from("\n| --- |");
    for subject in subjects {
        _ = write!(table, " {} |", subject.peer.name());
        rule.push_str(" ---: |");
    }
    table.push_str(&rule);
    for case in Case::ALL {
        _ = write!(table, "\n| {} |", case.describe());
        for subject in subjects {
            _ = write!(table, " {:.2} |", middle(subject, case));
        }
    }
    table.push('\n');
    table
}

fn verdicts(subjects: &[Subject]) -> String {
    let find = |peer| subjects.iter().find(|subject| subject.peer == peer);
    let mut table = String::from("| CPU, of Envoy's | at most | measured | |\n| --- | ---: | ---: | --- |\n");
    let (Some(ours), Some(theirs)) = (find(Peer::Portcullis), find(Peer::Envoy)) else { return String::new() };
    for case in Case::ALL {
        let ratios = ours.rounds.iter().zip(&theirs.rounds).map(|(ours, theirs)| of(ours, case) / of(theirs, case));
        let (ratio, limit) = (median(ratios.collect()).unwrap_or(f64::NAN), case.limit());
        let verdict = if ratio <= limit { "pass" } else { "MISS" };
        _ = writeln!(table, "| {} | {limit:.2} × | {ratio:.2} × | {verdict} |", case.describe());
    }
    table
}
