//! Looking at TLS files once a second, on a thread of its own.
//!
//! Asking the system about some files costs microseconds, works on every file system and through every kind of link, and
//! cannot lose a change. What the system's own notifications would add is less than a second.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::files::Shown;
use super::server::Server;
use crate::config::snapshot::Snapshot;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Watches the files of a snapshot for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch; nothing is begun where there is nothing to watch.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(snapshot: &Snapshot) -> io::Result<Self> {
        let (servers, clients) = users(snapshot);
        if servers.is_empty() && clients.is_empty() {
            return Ok(Self { stop: None, thread: None });
        }
        let (stop, stopped) = mpsc::channel();
        let body = move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                servers.iter().for_each(|server| server.poll_files());
                clients.iter().for_each(|client| client.poll_files());
            }
        };
        let thread = thread::Builder::new().name("tls-files".to_owned()).spawn(body)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so on stderr.
            let _ended = thread.join();
        }
    }
}

/// What metrics say of the files of a snapshot.
pub(crate) fn shown(snapshot: &Snapshot) -> Vec<Arc<Shown>> {
    let (servers, clients) = users(snapshot);
    let servers = servers.iter().flat_map(|server| server.shown());
    servers.chain(clients.iter().flat_map(|client| client.shown())).collect()
}

fn users(snapshot: &Snapshot) -> (Vec<Arc<Server>>, Vec<Arc<Client>>) {
    let admin = snapshot.admin.iter().filter_map(|admin| admin.tls.clone());
    let servers = admin.chain(snapshot.listeners.iter().filter_map(|listener| listener.tls.clone()));
    let clients = snapshot.upstreams().filter_map(|(_, upstream)| upstream.tls.clone());
    (servers.collect(), clients.collect())
}
