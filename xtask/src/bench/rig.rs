//! What every benchmark over sockets stands on: an origin, a load generator, and gateways started one at a time.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portcullis_measure::process::{LOAD_CORE, Process};
use portcullis_measure::{free_address, wait_for};

use super::peer::{Certificate, Filters, Peer, Place, release_binary};
use super::wrk::{self, Load};
use crate::{target_dir, tools};

/// Between two looks at what is awaited.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// What all subjects share.
pub(super) struct Rig {
    wrk: PathBuf,
    /// Where results and logs go.
    pub(super) output: PathBuf,
    origin: SocketAddr,
    /// Kept for its end.
    _origin: Process,
}

impl Rig {
    /// Finds what is needed and starts the origin.
    pub(super) fn prepare() -> Result<Self> {
        let cores = thread::available_parallelism()?;
        ensure!(cores.get() > LOAD_CORE, "a core for the gateway and one for the load are needed; there is {cores}");
        for program in ["taskset", "setpriv"] {
            tools::require(program, "util-linux")?;
        }
        let wrk = tools::require("wrk", "wrk")?;
        let output = target_dir().join("bench");
        fs::create_dir_all(&output)?;
        let program = release_binary("portcullis-peers", "origin")?;
        let (process, origin) = Process::start_origin(&program, &output.join("origin.log"))?;
        Ok(Self { wrk, output, origin, _origin: process })
    }

    /// Starts a gateway and waits until a request came back from the origin.
    pub(super) fn start(&self, peer: Peer, program: &Path, filters: Filters) -> Result<Gateway> {
        self.start_with(peer, program, filters, None)
    }

    /// The same, with TLS where there is a certificate.
    pub(super) fn start_with(
        &self,
        peer: Peer,
        program: &Path,
        filters: Filters,
        certificate: Option<&Certificate>,
    ) -> Result<Gateway> {
        let dir = self.output.join(peer.name());
        fs::create_dir_all(&dir)?;
        let place = Place { listen: free_address()?, origin: self.origin, dir: &dir, certificate };
        let log = dir.join("output.log");
        let mut process = Process::start(peer.command(program, filters, &place)?, &log)?;
        wait_for("it answers", POLL, || {
            process.still_running()?;
            let answers = if certificate.is_some() { answers_over_tls } else { answers };
            Ok(answers(place.listen).then_some(()))
        })
        .with_context(|| format!("see {}", log.display()))?;
        Ok(Gateway { process, address: place.listen, dir, secure: certificate.is_some() })
    }

    /// Sends requests to a gateway for so many seconds.
    pub(super) fn load(&self, gateway: &mut Gateway, seconds: u32) -> Result<Load> {
        self.load_with(gateway, seconds, &[])
    }

    /// The same, with more arguments for wrk.
    pub(super) fn load_with(&self, gateway: &mut Gateway, seconds: u32, arguments: &[&str]) -> Result<Load> {
        let load = wrk::load(&self.wrk, &gateway.url(), seconds, arguments)?;
        gateway.process.still_running()?;
        Ok(load)
    }
}

/// A gateway that answers; it ends with this.
pub(super) struct Gateway {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    /// Where its files are.
    pub(super) dir: PathBuf,
    secure: bool,
}

impl Gateway {
    pub(super) fn url(&self) -> String {
        format!("{}://{}/", if self.secure { "https" } else { "http" }, self.address)
    }
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

/// The same over TLS. Its certificate is nobody's business here.
fn answers_over_tls(address: SocketAddr) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--insecure", "--silent", "--fail", "--max-time", "1", "--output", "/dev/null"]);
    curl.arg(format!("https://{address}/")).status().is_ok_and(|status| status.success())
}
