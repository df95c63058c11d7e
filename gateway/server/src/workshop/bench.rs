//! What a module costs: in the gateway's own core, with upstreams that are written down and no network.
//!
//! Other processes only ever make things slower, so the least of many rounds is what a thing takes; rounds of all cases take
//! turns, so that a busy moment does not fall on one of them alone. The instructions that a guest executes are counted by the
//! engine, with code that was compiled for that, and are the same on every machine. What the host's side executes is not in them:
//! that would need the processor's counters, which containers and virtual machines seldom have.

mod figures;
mod measured;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portcullis_module::Outline;
use portcullis_simulation::{Request, Simulation};
use portcullis_vm::{Engine, EngineOptions};
use tracing::subscriber::{NoSubscriber, with_default};

use self::figures::{Budget, CallbackFigures, CaseFigures, Figures, float, in_units};
use self::measured::{Measured, Meter, Tally};
use super::cases::{self, Case, Suite};
use super::stage::{self, Modules, Stage};
use super::{settings, written};

/// How long a round is about to take.
const ROUND: Duration = Duration::from_millis(5);
/// Fewer say little, however long they take.
const LEAST_ROUNDS: usize = 5;
/// How many VMs are started, and how often the module is compiled unless that takes too long.
const VMS: u32 = 32;
const COMPILATIONS: usize = 3;
const LONGEST_COMPILING: Duration = Duration::from_secs(3);
/// How many exchanges wait for their upstream at the same time.
const WAITING: u32 = 1000;
/// How many exchanges instructions are counted of.
const COUNTED: usize = 10;

/// What is to be measured, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The module
    file: PathBuf,
    /// The exchanges to measure, as `portcullis plugin test` has them; one GET without a file
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// The settings for that GET: a file, or the text itself where it begins with `{`
    #[arg(long, value_name = "SETTINGS", conflicts_with = "cases")]
    config: Option<String>,
    /// What figures may be at most, by their names in `--json`: exits with 1 if any is larger
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    /// Another module, measured in turn with the first
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// How long to measure each case
    #[arg(long, default_value = "1")]
    seconds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures, says what came of it, and holds it against the budget.
pub(crate) fn bench(options: &Options, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let budget = options.budget.as_deref().map(|path| written::read::<Budget>(path, "a budget")).transpose()?;
    let suite = match &options.cases {
        Some(path) => cases::read(path)?,
        None => Suite::of_one(settings::read(options.config.as_deref())?),
    };
    let files = [Some(&options.file), options.against.as_ref()];
    let most = u32::try_from(suite.cases.len()).unwrap_or(u32::MAX).saturating_add(VMS + 1);
    let subjects =
        files.into_iter().flatten().map(|file| Subject::load(file, most)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut measured = measure(&subjects, &suite, Duration::from_secs(options.seconds.into()))?.into_iter();
    let Some(mut figures) = measured.next() else { return Ok(ExitCode::FAILURE) };
    figures.against = measured.next().map(Box::new);
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&figures)?)?;
    } else {
        out.write_all(figures.text().as_bytes())?;
    }
    let over = budget.map(|budget| budget.exceeded(&figures)).unwrap_or_default();
    over.iter().try_for_each(|line| writeln!(std::io::stderr(), "over budget: {line}"))?;
    Ok(if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A module that is measured.
struct Subject {
    name: String,
    bytes: usize,
    compiling: Duration,
    plain: Stage,
    /// The same, with code that counts its instructions.
    counting: Stage,
}

impl Subject {
    /// Compiles it, more than once where that does not take too long.
    fn load(file: &Path, max_vms: u32) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let wasm =
            std::fs::read(file).with_context(|| format!("cannot read {name}; `portcullis plugin build` makes it"))?;
        let holds = Outline::of(&wasm).with_context(|| name.clone())?.manifest.is_some_and(|m| m.holds_headers);
        let stage = |count_instructions| {
            let engine = Engine::new(EngineOptions { max_vms, count_instructions, ..EngineOptions::default() })?;
            let began = Instant::now();
            let stage = Stage::new(engine, &name, &wasm, holds)?;
            anyhow::Ok((stage, began.elapsed()))
        };
        let (plain, mut compiling) = stage(false)?;
        let mut spent = compiling;
        for _ in 1..COMPILATIONS {
            if spent < LONGEST_COMPILING {
                let (_, took) = stage(false)?;
                (compiling, spent) = (compiling.min(took), spent + took);
            }
        }
        let (counting, _) = stage(true)?;
        Ok(Self { name, bytes: wasm.len(), compiling, plain, counting })
    }
}

/// The figures of each, with rounds in turn.
fn measure(subjects: &[Subject], suite: &Suite, each: Duration) -> anyhow::Result<Vec<Figures>> {
    let cases = measure_cases(subjects, suite, each)?;
    let figures = subjects.iter().zip(cases).map(|(subject, cases)| {
        let Started { start, memory, resident } = start(&subject.plain, suite)?;
        Ok(Figures {
            module: subject.name.clone(),
            optimised: !cfg!(debug_assertions),
            module_bytes: subject.bytes as u64,
            compile_ms: in_units(subject.compiling, Duration::from_millis(1)),
            start_us: in_units(start, Duration::from_micros(1)),
            vm_memory_bytes: memory,
            vm_resident_bytes: resident,
            cases,
            against: None,
        })
    });
    figures.collect()
}

struct Started {
    start: Duration,
    memory: u64,
    resident: Option<u64>,
}

/// Starts VMs as the first case that starts at all has it. The first of them is left out: it makes what the others share.
fn start(stage: &Stage, suite: &Suite) -> anyhow::Result<Started> {
    let mut why = None;
    for case in &suite.cases {
        let mut exchanges = stage::exchanges();
        match stage::hear(|| stage.start(suite, case, &mut exchanges)) {
            Ok(first) => return start_more(stage, (suite, case), first),
            Err(error) => why = Some(error),
        }
    }
    match why {
        Some(error) => Err(error).context("no case starts"),
        None => anyhow::bail!("there are no cases to measure"),
    }
}

fn start_more(stage: &Stage, (suite, case): (&Suite, &Case), first: Modules) -> anyhow::Result<Started> {
    let memory = memory_of(&first);
    let mut live = vec![first];
    let (before, mut start) = (resident(), Duration::MAX);
    for _ in 0..VMS {
        let mut exchanges = stage::exchanges();
        let began = Instant::now();
        live.push(with_default(NoSubscriber::default(), || stage.start(suite, case, &mut exchanges))?);
        start = start.min(began.elapsed());
    }
    let grown = resident().zip(before).map(|(after, before)| after.saturating_sub(before) / u64::from(VMS));
    Ok(Started { start, memory, resident: grown })
}

fn memory_of(modules: &Modules) -> u64 {
    modules.0.cells().first().map_or(0, |cells| cells.memory.get())
}

/// The memory of this process that is in the machine's.
fn resident() -> Option<u64> {
    // Exact, unlike the other files that have it.
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix("Rss:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn measure_cases(subjects: &[Subject], suite: &Suite, each: Duration) -> anyhow::Result<Vec<Vec<CaseFigures>>> {
    let clock = Meter::clock();
    let stands = |subject: &Subject| {
        let stand = |case| Some((case, stage::hear(|| Stand::new(&subject.plain, suite, case, clock)).ok()?));
        // What is refused at its start has no exchanges to measure.
        suite.cases.iter().filter_map(stand).collect::<Vec<_>>()
    };
    let mut stands: Vec<Vec<(&Case, Stand)>> = subjects.iter().map(stands).collect();
    with_default(NoSubscriber::default(), || {
        let count: usize = stands.iter().map(Vec::len).sum();
        let end = Instant::now() + each * u32::try_from(count).unwrap_or(u32::MAX);
        let mut rounds = 0;
        while rounds < LEAST_ROUNDS || Instant::now() < end {
            stands.iter_mut().flatten().for_each(|(_, stand)| stand.round());
            rounds += 1;
        }
        let figures = |subject: &Subject, case: &Case, stand: Stand| {
            let mut counted = Stand::new(&subject.counting, suite, case, Meter::Instructions)?;
            counted.exchanges = 1;
            (0..COUNTED).for_each(|_| counted.round());
            let waiting = waiting_bytes(&subject.plain, suite, case)?;
            anyhow::Ok(stand.figures(case, &counted, waiting))
        };
        let all = |(subject, stands): (&Subject, Vec<(&Case, Stand)>)| {
            stands.into_iter().map(|(case, stand)| figures(subject, case, stand)).collect()
        };
        subjects.iter().zip(stands).map(all).collect()
    })
}

/// A case's request, sent again and again.
struct Stand {
    gateway: Simulation<Measured>,
    request: Request,
    /// In a round.
    exchanges: u64,
    /// The least that an exchange cost in all of its callbacks.
    least: f64,
    /// The same of each callback, with how often it was called.
    callbacks: Vec<(&'static str, f64, f64)>,
}

impl Stand {
    fn new(stage: &Stage, suite: &Suite, case: &Case, meter: Meter) -> anyhow::Result<Self> {
        let mut gateway = stage.set(suite, case, |modules| Measured::new(modules, meter))?;
        let request = case.request.request();
        let began = Instant::now();
        gateway.send(std::slice::from_ref(&request));
        let fit = ROUND.as_nanos() / began.elapsed().as_nanos().max(1);
        gateway.guests().take_tallies();
        let exchanges = u64::try_from(fit).unwrap_or(u64::MAX).clamp(1, 500);
        Ok(Self { gateway, request, exchanges, least: f64::INFINITY, callbacks: Vec::new() })
    }

    fn round(&mut self) {
        for _ in 0..self.exchanges {
            self.gateway.send(std::slice::from_ref(&self.request));
        }
        self.gateway.take_calls();
        let tallies = self.gateway.guests().take_tallies();
        let all: u64 = tallies.iter().map(|tally| tally.cost).sum();
        self.least = self.least.min(float(all) / float(self.exchanges));
        for Tally { name, calls, cost } in tallies.into_iter().filter(|tally| tally.calls > 0) {
            let (often, each) = (float(calls) / float(self.exchanges), float(cost) / float(calls));
            match self.callbacks.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, times, least)) => (*times, *least) = (often, least.min(each)),
                None => self.callbacks.push((name, often, each)),
            }
        }
    }

    fn figures(mut self, case: &Case, counted: &Self, waiting: f64) -> CaseFigures {
        let last = self.gateway.send(std::slice::from_ref(&self.request)).pop().unwrap_or_default();
        // Nothing is logged here, so only what came over the wire is compared.
        let differs = case.expect.differs_on_the_wire(&last);
        let callbacks = self.callbacks.iter().map(|(name, calls, ns)| {
            let instructions = counted.callbacks.iter().find(|(known, ..)| known == name);
            let instructions = instructions.map_or(0.0, |(.., each)| *each);
            CallbackFigures { name, calls_per_exchange: *calls, ns: *ns, instructions }
        });
        let remark = "after many such requests it goes otherwise than the case expects; that is what was measured";
        CaseFigures {
            name: case.name.clone(),
            exchange_ns: self.least,
            exchange_instructions: counted.least,
            exchange_memory_bytes: waiting,
            callbacks: callbacks.collect(),
            remark: differs.then(|| remark.to_owned()),
        }
    }
}

/// By how much a VM's memory grows for each exchange that waits.
fn waiting_bytes(stage: &Stage, suite: &Suite, case: &Case) -> anyhow::Result<f64> {
    let mut case = case.clone();
    case.origin = Some(case.origin.unwrap_or_else(cases::Answer::plain).later(Duration::from_millis(1)));
    let mut gateway = stage.set(suite, &case, std::convert::identity)?;
    let request = case.request.request();
    gateway.send(std::slice::from_ref(&request));
    let before = memory_of(gateway.guests());
    gateway.send(&vec![request; WAITING as usize]);
    Ok(float(memory_of(gateway.guests()).saturating_sub(before)) / f64::from(WAITING))
}
