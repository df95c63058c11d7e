//! A real registry on loopback.
//!
//! It is Debian's `docker-registry`, which `cargo xtask test` unpacks, and fails where it cannot. A test that finds none says that it
//! was skipped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;
use crate::guests::target;
use crate::process::free_address;

/// Who may use a registry that asks.
pub const LOGIN: (&str, &str) = ("ci", "registry-password");
/// The same as registries want it: the password by bcrypt.
const HTPASSWD: &str = "ci:$2b$04$S0Pvlj4F3S0Rka/az/lSw.uT5fz7lIFThwfVjkc5xEglMWU5s1k/y\n";

/// A registry with its files. It is killed when dropped.
#[derive(Debug)]
pub struct Registry {
    program: PathBuf,
    child: Option<Child>,
    folder: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Whom a registry lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Everybody.
    ToAll,
    /// Those who log in as [`LOGIN`].
    ToLogin,
}

impl Registry {
    /// An empty registry; nothing, and loudly, where there is no program for it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(open: Open) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = target().join("tools/docker-registry/usr/bin/docker-registry");
        let all = std::env::split_paths(&path).map(|folder| folder.join("docker-registry")).chain([own]);
        let Some(program) = all.into_iter().find(|program| program.is_file()) else {
            eprintln!("SKIPPED: there is no docker-registry; try `apt-get install docker-registry`");
            return None;
        };
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let here = folder.path().display();
        let auth = match open {
            Open::ToAll => String::new(),
            Open::ToLogin => format!("auth: {{ htpasswd: {{ realm: test, path: {here}/htpasswd }} }}\n"),
        };
        let configuration = format!(
            "version: 0.1\nlog: {{ level: info }}\nhttp: {{ addr: \"{address}\" }}\n\
             storage: {{ filesystem: {{ rootdirectory: {here}/data }} }}\n{auth}"
        );
        fs::write(folder.path().join("config.yml"), configuration).unwrap();
        fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let mut registry = Self { program, child: None, folder, address };
        registry.again();
        Some(registry)
    }

    /// Starts it with the same files, once it has been killed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn again(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.folder.path().join("config.yml")).stdin(Stdio::null());
        command.env_clear().stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        eventually("the registry listens", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.log());
            TcpStream::connect(self.address).is_ok()
        });
    }

    /// Kills it, as a power cut would.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// How often it was asked for what has this in its path. It must be running.
    ///
    /// It logs what it has answered a little later; so it is asked for something else first, until that has been logged.
    #[must_use]
    pub fn asked_for(&self, path: &str) -> usize {
        const MARK: &str = "/v2/has-all-been-logged/";
        let marks = || self.log().lines().filter(|line| line.contains(MARK)).count();
        let before = marks();
        let _answer = Client::connect(self.address).ask("GET", MARK, &[("host", "registry.test")], "");
        eventually("the registry has logged what it was asked", || marks() > before);
        let log = self.log();
        let completed = log.lines().filter(|line| line.contains("response completed") && !line.contains(MARK));
        completed.filter(|line| line.contains(path)).count()
    }

    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // One that has ended cannot be killed.
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}
