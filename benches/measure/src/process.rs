//! A process held to its cores, and what it has used so far.
//!
//! A process ends with its value, and with this program: the kernel is asked to pass on our death, so that neither an
//! error nor an interrupt leaves a gateway behind.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::wait_for;

/// The gateway under test has this core for itself, when it has one worker.
pub const GATEWAY_CORE: usize = 0;
/// The origin and the load generator share this one.
pub const LOAD_CORE: usize = 1;

/// `/proc` counts in hundredths of a second on every architecture that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// For how long the machine below this one has not let its processors run, though they had something to do; all of them together, in
/// steps of 10 ms. Nothing where this one is not a guest, or is not told.
///
/// # Errors
/// When the kernel does not say.
pub fn stolen_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks = stat.lines().next().and_then(|all| all.split_ascii_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(Duration::from_millis(ticks.context("/proc/stat says nothing of stolen time")? * 10))
}

/// That this program runs on the core of load generators and nowhere else: elsewhere it would take the gateway's time, and measure that.
///
/// # Errors
/// When it may run elsewhere, or the kernel does not say.
pub fn ensure_held_to_load_core() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(str::trim);
    let cores = cores.context("/proc/self/status does not say on which cores this program may run")?;
    ensure!(
        cores == LOAD_CORE.to_string(),
        "this program may run on cores {cores}: start it with `taskset -c {LOAD_CORE}`, since core {GATEWAY_CORE} is the gateway's"
    );
    Ok(())
}

/// A running process with its children.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// `program` held to these cores, ready for arguments.
#[must_use]
pub fn pinned(cores: &[usize], program: &Path) -> Command {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new("taskset");
    command.args(["-c", &cores.join(","), "setpriv", "--pdeathsig", "TERM"]).arg(program).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a command made by [`pinned`]; what it prints goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started, or the log cannot be written.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// Starts the origin that gateways forward to, beside the load; with its address, which is the first thing it prints.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it says where it listens.
    pub fn start_origin(program: &Path, log: &Path) -> Result<(Self, SocketAddr)> {
        let mut command = pinned(&[LOAD_CORE], program);
        command.arg("127.0.0.1:0");
        let mut process = Self::start(command, log)?;
        let address = wait_for("the origin prints its address", Duration::from_millis(1), || {
            process.still_running()?;
            Ok(process.printed().trim().parse().ok())
        })?;
        Ok((process, address))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// With the last lines it printed, when it has ended.
    pub fn still_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended with {status}: {}", tail(&self.printed()));
        }
        Ok(())
    }

    /// Everything printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Seconds of processor time used by the process and its children, in user mode and in the kernel.
    ///
    /// # Errors
    /// When one of them has just ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let mut ticks = 0.0;
        for pid in self.family() {
            let stat = Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
            ticks += stat.cpu_ticks;
        }
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Resident memory of the process and its children in MiB.
    #[must_use]
    pub fn resident_mib(&self) -> f64 {
        let kib = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        };
        self.family().iter().filter_map(kib).sum::<f64>() / 1024.0
    }

    /// The process and all below it, parents first.
    fn family(&self) -> Vec<u32> {
        let parents = parents();
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            family.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The children too: a worker of nginx outlives a master that had no time to say goodbye.
        let pids = self.family();
        let mut kill = Command::new("kill");
        kill.arg("-KILL").args(pids.iter().map(u32::to_string)).stderr(Stdio::null());
        if let Err(error) = kill.status().and_then(|_| self.child.wait()) {
            eprintln!("process {} may still run: {error}", self.child.id());
        }
    }
}

/// Seconds the gateway's core has spent on programs, ours or not, or was taken away by the hypervisor.
///
/// # Errors
/// When the system does not say.
pub fn core_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    occupied_ticks(&text).map(|ticks| ticks / TICKS_PER_SECOND).context("/proc/stat does not list the gateway's core")
}

/// Interrupts are left out: most are the gateway's own packets, which the kernel charges to no program.
fn occupied_ticks(text: &str) -> Option<f64> {
    let label = format!("cpu{GATEWAY_CORE} ");
    let fields: Vec<f64> =
        text.lines().find_map(|line| line.strip_prefix(&label))?.split(' ').flat_map(str::parse).collect();
    let [user, nice, system, _idle, _iowait, _irq, _softirq, steal, ..] = fields.as_slice() else { return None };
    Some(user + nice + system + steal)
}

struct Stat {
    parent: u32,
    cpu_ticks: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields are counted from behind the name, which may itself hold blanks and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let user: f64 = fields.get(11)?.parse().ok()?;
        let system: f64 = fields.get(12)?.parse().ok()?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, cpu_ticks: user + system })
    }
}

/// Every process of the system with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_a_parenthesis_does_not_shift_the_fields() {
        let line = "7 (a) b) S 3 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 0 0";
        let stat = Stat::parse(line).expect("a line as the kernel writes it");
        assert_eq!(stat.parent, 3);
        assert!((stat.cpu_ticks - 300.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_core_is_occupied_by_programs_and_the_hypervisor_but_not_by_idling_or_interrupts() {
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 10 1 5000 300 20 30 1000 0 0\ncpu1 7 7 7 7 7 7 7 7 0 0\n";
        assert_eq!(occupied_ticks(text), Some(1111.0));
    }

    #[test]
    fn this_process_has_a_parent() {
        let me = std::process::id();
        assert!(parents().iter().any(|(pid, parent)| *pid == me && *parent > 0));
    }
}
