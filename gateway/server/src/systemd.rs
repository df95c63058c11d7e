//! What the service manager is told: that the gateway is ready, reads its configuration anew, ends, and is well.
//!
//! The protocol of sd_notify(3): datagrams of `KEY=value` lines to the socket that `$NOTIFY_SOCKET` names. Where there is no
//! manager, nothing is sent; what cannot be sent is no reason to fail.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that started this process, if one did.
    pub(crate) fn of_this_process() -> Self {
        Self::new(std::env::var_os("NOTIFY_SOCKET"), &watchdog(), std::process::id())
    }

    fn new(socket: Option<OsString>, (period, pid): &(Option<String>, Option<String>), own: u32) -> Self {
        let connected = socket.filter(|name| !name.is_empty()).map(|name| connect(&name)).transpose();
        let socket = connected.inspect_err(|error| tracing::warn!(%error, "the service manager cannot be told")).ok();
        let is_meant = pid.as_ref().is_none_or(|pid| *pid == own.to_string());
        let period = period.as_ref().filter(|_| is_meant).and_then(|micros| micros.parse().ok());
        let watchdog = period.filter(|micros| *micros > 0).map(Duration::from_micros);
        Self { socket: socket.flatten(), watchdog }
    }

    /// The gateway serves.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its configuration anew, and will say [`Self::ready`] when it has.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration anew"));
    }

    /// It is about to end.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Another process has taken over, and is the one to ask from now on.
    pub(crate) fn succeeded_by(&self, process: u32) {
        self.tell(&format!("MAINPID={process}\nREADY=1\nSTATUS=serving"));
    }

    /// It is well.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often the manager wants to hear [`Self::alive`], if it does: twice within the time it waits for.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

fn watchdog() -> (Option<String>, Option<String>) {
    (std::env::var("WATCHDOG_USEC").ok(), std::env::var("WATCHDOG_PID").ok())
}

/// A name that begins with `@` is one of Linux's abstract ones.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the gateway up.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn the_manager_is_told_by_path_or_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("portcullis-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, name) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            let manager = Manager::new(Some(name), &(None, None), 1);
            manager.ready("serving");
            assert_eq!(told(&socket), "READY=1\nSTATUS=serving");
            manager.reloading();
            let reloading = told(&socket);
            let micros = reloading.split("MONOTONIC_USEC=").nth(1).and_then(|rest| rest.split('\n').next()).unwrap();
            assert!(reloading.starts_with("RELOADING=1\n") && micros.parse::<u64>().unwrap() > 0, "{reloading}");
            manager.stopping();
            assert_eq!(told(&socket), "STOPPING=1\nSTATUS=draining");
        }
    }

    #[test]
    fn a_watchdog_is_heard_twice_within_its_time_and_only_if_it_is_ours() {
        let asks = |period: &str, pid: Option<&str>| {
            Manager::new(None, &(Some(period.to_owned()), pid.map(str::to_owned)), 7).watchdog()
        };
        assert_eq!(asks("3000000", Some("7")), Some(Duration::from_millis(1500)));
        assert_eq!(asks("3000000", None), Some(Duration::from_millis(1500)));
        assert_eq!([asks("3000000", Some("8")), asks("0", None), asks("soon", None)], [None; 3]);
    }

    #[test]
    fn where_there_is_no_manager_nothing_happens() {
        for socket in [None, Some(OsString::new()), Some("/nowhere/at/all".into())] {
            let manager = Manager::new(socket, &(None, None), 1);
            manager.ready("serving");
            manager.alive();
        }
    }
}
