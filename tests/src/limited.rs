//! A gateway in a process of its own, for what a test must not do to its own process: take its descriptors away.

use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::process::free_address;
use crate::{PATIENCE_AT_START, within};

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Child {
    /// Where its first listener listens.
    pub address: SocketAddr,
    admin: SocketAddr,
    process: process::Child,
    folder: tempfile::TempDir,
}

fn binary() -> PathBuf {
    // Beside the test's own binary, which is in `deps`.
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(|deps| deps.parent()).unwrap().join("gateway")
}

impl Child {
    /// Starts one that may have so many descriptors. `{port}` stands for a free port, `{name}` for what `places` says.
    ///
    /// # Panics
    /// When it does not start to serve.
    #[must_use]
    pub fn start(descriptors: u32, text: &str, places: &[(&str, &dyn Display)]) -> Self {
        let (address, admin) = (free_address(), free_address());
        let mut text = text.replace("{port}", &address.port().to_string());
        for (name, place) in places {
            text = text.replace(&format!("{{{name}}}"), &place.to_string());
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("portcullis.yaml");
        let top = format!("version: 1\nworkers: 1\naccess_log: off\nadmin: {{ bind: \"{admin}\" }}\n");
        fs::write(&config, top + &text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let limited = format!("ulimit -n {descriptors}; exec \"$0\" run \"$1\"");
        let process = Command::new("sh")
            .args(["-c", &limited])
            .args([binary(), config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut child = Self { address, admin, process, folder };
        within(PATIENCE_AT_START, "the process serves", || {
            if let Some(status) = child.process.try_wait().unwrap() {
                panic!("it ended with {status} (signal {:?}): {}", status.signal(), child.log());
            }
            std::net::TcpStream::connect(admin).is_ok() && child.ask("/ready").starts_with("ready")
        });
        child
    }

    fn ask(&self, path: &str) -> String {
        Client::connect(self.admin).ask("GET", path, &[("host", &self.admin.to_string())], "").text()
    }

    /// Its page of metrics.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.ask("/metrics")
    }

    /// The value of the sample that begins like this.
    #[must_use]
    pub fn metric(&self, sample: &str) -> f64 {
        let page = self.metrics();
        let line = page.lines().find(|line| line.starts_with(sample) && line[sample.len()..].starts_with(' '));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many lines of its log hold these words.
    #[must_use]
    pub fn log_lines(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }

    /// How much processor time it has used.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // After the name in parentheses: fields 14 and 15 of proc(5), in hundredths of a second.
        let after = stat.rsplit(')').next().unwrap();
        let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How many bytes of memory it has resident.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<u64>().ok()).unwrap() << 10
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
