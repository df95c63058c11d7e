//! What every figure stands on: an origin, and gateways that are started, used and weighed.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use portcullis_measure::process::{GATEWAY_CORE, LOAD_CORE, Process, ensure_held_to_load_core, pinned};
use portcullis_measure::wait_for;

use crate::client::{Admin, Answer, Connection};
use crate::files::{self, Files, TOKEN};

/// Short beside the shortest of what is waited for.
const POLL: Duration = Duration::from_millis(1);

/// What all figures share.
pub(crate) struct Rig {
    gateway: PathBuf,
    banner: PathBuf,
    output: PathBuf,
    origin: SocketAddr,
    /// Kept for its end.
    _origin: Process,
}

/// Where what is measured, and what is needed for it, is found.
pub(crate) struct Paths {
    /// The gateway's program.
    pub(crate) gateway: PathBuf,
    /// The origin's.
    pub(crate) origin: PathBuf,
    /// The folder of the plugins' modules.
    pub(crate) modules: PathBuf,
    /// Where configurations and logs go.
    pub(crate) output: PathBuf,
}

impl Rig {
    /// Starts the origin.
    pub(crate) fn prepare(paths: Paths) -> Result<Self> {
        let Paths { gateway, origin, modules, output } = paths;
        ensure_held_to_load_core()?;
        fs::create_dir_all(&output)?;
        let (process, origin) = Process::start_origin(&origin, &output.join("origin.log"))?;
        Ok(Self { gateway, banner: modules.join("banner.wasm"), output, origin, _origin: process })
    }

    /// Files of a gateway without tenants. One worker has a core for itself; two have those that there are.
    pub(crate) fn files(&self, name: &str, workers: usize) -> Result<Files> {
        Files::new(&self.output.join(name), workers, self.origin, &self.banner)
    }

    /// The bytes of the plugin that every tenant has.
    pub(crate) fn banner(&self) -> Result<Vec<u8>> {
        fs::read(&self.banner).with_context(|| format!("cannot read {}", self.banner.display()))
    }

    /// Starts a gateway with these files and waits until it is ready, and a tenant's request was answered.
    pub(crate) fn start(&self, files: &Files, tenant: &str) -> Result<Gateway> {
        let cores: &[usize] = if files.workers == 1 { &[GATEWAY_CORE] } else { &[GATEWAY_CORE, LOAD_CORE] };
        let mut command = pinned(cores, &self.gateway);
        command.args(["run", "--no-watch", "--cache"]).arg(self.output.join("cache")).arg(files.config());
        command.env("BENCH_TOKEN", TOKEN);
        let began = Instant::now();
        let mut process = Process::start(command, &files.log())?;
        let (public, admin) = (files.public, Admin(files.admin));
        wait_for("it is ready", POLL, || {
            process.still_running()?;
            Ok(admin.get("/ready").is_ok_and(|answer| answer.status == 200).then_some(()))
        })
        .with_context(|| format!("see {}", files.log().display()))?;
        served(&mut Connection::open(public)?, tenant)?;
        Ok(Gateway { process, public, admin, took: began.elapsed() })
    }
}

/// A gateway that answers; it ends with this.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) public: SocketAddr,
    pub(crate) admin: Admin,
    /// From its start to the first answer.
    pub(crate) took: Duration,
}

impl Gateway {
    /// The sum over the lines of a metric that have this label.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let metrics = self.admin.get("/metrics")?.body;
        let lines = metrics.lines().filter(|line| line.split_once('{').is_some_and(|(of, _)| of == name));
        Ok(lines
            .filter(|line| line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .fold(0.0, |sum, value| sum + value))
    }
}

/// Asks until a tenant answers.
pub(crate) fn served(connection: &mut Connection, tenant: &str) -> Result<Answer> {
    let host = files::host(tenant);
    let mut last = String::new();
    // Not a moment between two questions: it is measured when the first good answer came.
    wait_for("a tenant answers", Duration::ZERO, || {
        let answer = connection.get(&host, "/")?;
        last = format!("{answer:?}");
        Ok(answer.is_of(tenant).then_some(answer))
    })
    .with_context(|| format!("its last answer: {last}"))
}
