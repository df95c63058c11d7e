//! An Envoy that runs: started with a configuration, asked where it listens, ended when dropped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// How long Envoy may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A running Envoy; killed when dropped, with its files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    /// Starts `program` with static resources ([`super::configuration`]) and these arguments beside its own.
    ///
    /// It has one worker, and an admin listener on a port that the system chooses.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, resources: &Value, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = folder()?;
        let admin = json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } });
        let configuration = json!({ "static_resources": resources, "admin": admin });
        let file = folder.join("envoy.json");
        fs::write(&file, configuration.to_string())?;
        Self::spawn(program, &file, folder, arguments)
    }

    /// Starts `program` with a whole configuration, which must have an admin listener, and these arguments beside its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of_file(program: &Path, file: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::spawn(program, file, folder()?, arguments)
    }

    fn spawn(program: &Path, file: &Path, folder: PathBuf, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(program);
        command.args(["--concurrency", "1", "--disable-hot-restart"]).args(arguments);
        command.arg("--admin-address-path").arg(folder.join("admin")).arg("-c").arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, folder })
    }

    /// Waits until it serves, and tells where each of its listeners is, by name.
    ///
    /// # Errors
    /// When it ends instead, or takes too long; with what it said.
    pub async fn listeners(&mut self) -> anyhow::Result<Vec<(String, SocketAddr)>> {
        let mut left = PATIENCE;
        while self.ask("/ready").await.is_none() {
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy ended with {status}: {}", self.log());
            }
            left = left.saturating_sub(POLL);
            if left.is_zero() {
                bail!("Envoy does not get ready: {}", self.log());
            }
            tokio::time::sleep(POLL).await;
        }
        let listed = self.ask("/listeners").await.context("Envoy does not tell its listeners")?;
        let listener = |line: &str| {
            let (name, address) = line.split_once("::")?;
            Some((name.to_owned(), address.parse().ok()?))
        };
        Ok(listed.lines().filter_map(listener).collect())
    }

    /// One of its admin pages, if it is there with status 200.
    async fn ask(&self, path: &str) -> Option<String> {
        let admin: SocketAddr = fs::read_to_string(self.folder.join("admin")).ok()?.trim().parse().ok()?;
        let stream = TcpStream::connect(admin).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let request = http::Request::get(path).header("host", "admin").body(Empty::<Bytes>::new()).ok()?;
        let asked = async {
            let response = sender.send_request(request).await.ok()?;
            let found = response.status().is_success();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            found.then(|| String::from_utf8_lossy(&body).into_owned())
        };
        tokio::select! {
            page = asked => page,
            _ = connection => None,
        }
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The file it logs to.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }
}

/// A new directory for what it writes.
fn folder() -> std::io::Result<PathBuf> {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let folder = std::env::temp_dir().join(format!("portcullis-envoy-{}-{}", std::process::id(), time.as_nanos()));
    fs::create_dir(&folder)?;
    Ok(folder)
}

impl Drop for Process {
    fn drop(&mut self) {
        // What cannot be ended or removed is left to the system.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.folder);
    }
}
