//! Real Redis servers on loopback: one, one with Sentinels, or a Cluster.
//!
//! They are Debian's `redis-server`, which `cargo xtask test` installs, and fails where it cannot. A test that finds none says that
//! it was skipped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::eventually;
use crate::pki::Files;
use crate::process::{free_address, signal};

/// A server with its files. It is killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    folder: TempDir,
    /// What `redis-cli` has to be told beside the port.
    asks_with: Vec<String>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Whether there is a `redis-server`; says so where there is none.
#[must_use]
pub fn is_here() -> bool {
    let here = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !here {
        eprintln!("SKIPPED: there is no redis-server; try `apt-get install redis-server`");
    }
    here
}

impl Redis {
    /// A server with these lines of configuration beside the usual ones.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(lines: &str) -> Self {
        let address = free_address();
        Self::listening(address, &format!("port {}\n{lines}", address.port()), Vec::new())
    }

    /// A server that speaks TLS with `server.pem` of these files, and lets nobody in whose certificate is not of `ca.pem`; `own.pem`
    /// is one.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn encrypted(files: &Files) -> Self {
        let (address, path) = (free_address(), |name: &str| files.text(name));
        let port = format!("port 0\ntls-port {}\ntls-ca-cert-file {}\n", address.port(), path("ca.pem"));
        let own = format!("tls-cert-file {}\ntls-key-file {}\n", path("server.pem"), path("server.key"));
        let [ca, cert, key] = [path("ca.pem"), path("own.pem"), path("own.key")];
        let asks_with = ["--tls", "--cacert", &ca, "--cert", &cert, "--key", &key].map(str::to_owned);
        Self::listening(address, &(port + &own), asks_with.into())
    }

    fn listening(address: SocketAddr, lines: &str, asks_with: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let usual = format!("bind 127.0.0.1\ndir {}\nsave \"\"\n{lines}", folder.path().display());
        // Sentinel writes to it.
        fs::write(folder.path().join("redis.conf"), usual).unwrap();
        let mut redis = Self { child: None, folder, asks_with, address };
        redis.again();
        redis
    }

    /// Starts it with the same files, once it has been killed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn again(&mut self) {
        let configuration = self.folder.path().join("redis.conf");
        let is_sentinel = fs::read_to_string(&configuration).unwrap().contains("sentinel monitor");
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(configuration).args(is_sentinel.then_some("--sentinel"));
        self.child = Some(command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().unwrap());
        eventually("the server answers", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.log());
            TcpStream::connect(self.address).is_ok() && self.ask(&["PING"]) == "PONG"
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

    /// Sends it a signal: `STOP`, `CONT`.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap().id(), name);
    }

    /// What it answers to a command.
    ///
    /// # Panics
    /// When there is no `redis-cli`.
    #[must_use]
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.address.port().to_string();
        let asked = Command::new("redis-cli").args(["-p", &port]).args(&self.asks_with).args(command).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    }

    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // One that has ended cannot be killed.
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}

/// A Cluster of three masters without replicas.
///
/// # Panics
/// When it does not come to be one.
#[must_use]
pub fn cluster() -> [Redis; 3] {
    let nodes = [(); 3].map(|()| {
        let bus = free_address().port();
        Redis::start(&format!("cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1000\n"))
    });
    let addresses = nodes.each_ref().map(|node| node.address.to_string());
    let made = Command::new("redis-cli").args(["--cluster", "create"]).args(&addresses).arg("--cluster-yes").output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    eventually("the Cluster is one", || {
        nodes.iter().all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    nodes
}

/// A master, its replica, and the Sentinels that know it as `limits`.
///
/// # Panics
/// When they do not come to know each other.
#[must_use]
pub fn with_sentinels() -> (Redis, Redis, [Redis; 3]) {
    let master = Redis::start("");
    let port = master.address.port();
    let replica = Redis::start(&format!("replicaof 127.0.0.1 {port}\nrepl-diskless-sync-delay 0\n"));
    let sentinels = [(); 3].map(|()| {
        Redis::start(&format!(
            "sentinel monitor limits 127.0.0.1 {port} 2\nsentinel down-after-milliseconds limits 500\n\
             sentinel failover-timeout limits 3000\n"
        ))
    });
    eventually("the Sentinels know each other and the replica", || {
        sentinels.iter().all(|sentinel| {
            let known = sentinel.ask(&["SENTINEL", "MASTER", "limits"]);
            let value = |key: &str| known.lines().skip_while(|line| *line != key).nth(1).map(str::to_owned);
            value("num-slaves").as_deref() == Some("1") && value("num-other-sentinels").as_deref() == Some("2")
        })
    });
    (master, replica, sentinels)
}
