//! Sockets that this process was started with: by systemd (socket activation), or by the gateway it takes over from.
//!
//! A gateway that is to be replaced starts its successor with the very sockets it accepts on, so that connections which wait in
//! them are not lost whoever of the two accepts them. The successor says through a pipe when it serves; until then, and if it
//! never does, the old one goes on.
//!
//! This file holds the crate's only `unsafe`: an open descriptor is known by its number alone.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::process::{Child, Command};
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::SockRef;

/// Where a successor finds its descriptors: the pipe's, then the sockets', between commas.
const TAKEOVER: &str = "PORTCULLIS_TAKEOVER";
/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;

/// Sockets that nobody has asked for yet. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Inherited(
    #[allow(clippy::disallowed_types, reason = "taken at the start only")]
    Arc<std::sync::Mutex<Vec<(String, TcpListener)>>>,
);

/// Tells the gateway before this one that it may go.
#[derive(Debug)]
pub struct Predecessor(PipeWriter);

impl Predecessor {
    /// This process serves.
    pub(crate) fn dismiss(mut self) {
        if let Err(error) = self.0.write_all(b"r") {
            tracing::warn!(%error, "the gateway before this one was not told that it may go");
        }
    }
}

impl Inherited {
    /// What this process was started with. To be asked once, before anything else is opened.
    pub(crate) fn of_this_process() -> (Self, Option<Predecessor>) {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        if let Some((pipe, sockets)) = takeover(&variable(TAKEOVER)) {
            let sockets =
                sockets.into_iter().filter_map(|number| listener(number).map(|socket| (String::new(), socket)));
            let sockets = sockets.collect();
            return (Self::of(sockets), adopt(pipe).map(|pipe| Predecessor(pipe.into())));
        }
        let (count, pid) = (variable("LISTEN_FDS"), variable("LISTEN_PID"));
        let named = activated(&count, &pid, &variable("LISTEN_FDNAMES"), std::process::id());
        (Self::of(named.into_iter().filter_map(|(number, name)| Some((name, listener(number)?))).collect()), None)
    }

    fn of(sockets: Vec<(String, TcpListener)>) -> Self {
        Self(Arc::new(sockets.into()))
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<(String, TcpListener)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sockets that are bound to this address, or were given this name.
    pub(crate) fn take(&self, address: SocketAddr, name: &str) -> Vec<TcpListener> {
        let fits = |(given, socket): &mut (String, TcpListener)| {
            given == name || socket.local_addr().is_ok_and(|own| own == address)
        };
        self.sockets().extract_if(.., fits).map(|(_, socket)| socket).collect()
    }

    /// Closes what nobody has asked for.
    pub(crate) fn close_rest(&self) {
        for (name, socket) in self.sockets().drain(..) {
            tracing::warn!(%name, address = ?socket.local_addr().ok(), "no listener has this inherited socket; it is closed");
        }
    }
}

fn takeover(variable: &str) -> Option<(RawFd, Vec<RawFd>)> {
    let mut numbers = variable.split(',').map(|number| number.parse::<RawFd>().ok());
    Some((numbers.next()??, numbers.collect::<Option<_>>()?))
}

/// The descriptors that systemd passes, with their names; none if they are meant for another process.
fn activated(count: &str, pid: &str, names: &str, own: u32) -> Vec<(RawFd, String)> {
    let count: RawFd = if pid.parse() == Ok(own) { count.parse().unwrap_or(0) } else { 0 };
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    (FIRST..FIRST.saturating_add(count)).zip(names).collect()
}

/// Takes an open descriptor over.
fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number < FIRST || !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        tracing::warn!(number, "a descriptor that was promised is not there");
        return None;
    }
    // SAFETY: it is open, since `/proc` lists it; and it is nobody else's: whoever started this process said that it is for us,
    // this is asked once, before anything else is opened, and the three standard streams were ruled out.
    #[allow(unsafe_code, reason = "there is no safe way to own a descriptor that is known by its number")]
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // Processes that this one starts have no business with it.
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC).ok()?;
    Some(descriptor)
}

/// An inherited socket that connections can be accepted on.
fn listener(number: RawFd) -> Option<TcpListener> {
    let descriptor = adopt(number)?;
    let socket = TcpListener::from(descriptor);
    let accepts = SockRef::from(&socket).is_listener().unwrap_or(false) && socket.local_addr().is_ok();
    if !accepts {
        tracing::warn!(number, "an inherited descriptor is no listening TCP socket; it is closed");
    }
    (accepts && socket.set_nonblocking(true).is_ok()).then_some(socket)
}

/// A process that is to take over from this one.
#[derive(Debug)]
pub(crate) struct Successor {
    /// The process.
    pub(crate) process: Child,
    /// Gives one byte when it serves, and ends without one when it has failed.
    pub(crate) ready: PipeReader,
}

impl Successor {
    /// Starts the program that this process was started as, as it is now, with these sockets.
    pub(crate) fn start(sockets: &[OwnedFd]) -> io::Result<Self> {
        let (ready, said) = io::pipe()?;
        let said = OwnedFd::from(said);
        let passed = || std::iter::once(said.as_fd()).chain(sockets.iter().map(AsFd::as_fd));
        for descriptor in passed() {
            // The only process that is started here is the one that shall have them.
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        let numbers: Vec<String> = passed().map(|descriptor| descriptor.as_raw_fd().to_string()).collect();
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command.args(arguments).env(TAKEOVER, numbers.join(","));
        // Those are this process's own: by its id, which the other does not have.
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        Ok(Self { process: command.spawn()?, ready })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_sockets_are_those_it_meant_for_this_process() {
        let names =
            |named: Vec<(RawFd, String)>| named.into_iter().map(|(n, name)| format!("{n} {name}")).collect::<Vec<_>>();
        assert_eq!(names(activated("2", "7", "web:admin", 7)), ["3 web", "4 admin"]);
        assert_eq!(names(activated("2", "7", "web", 7)), ["3 web", "4 "]);
        for (count, pid) in [("2", "8"), ("2", ""), ("", "7"), ("x", "7"), ("-1", "7")] {
            assert!(activated(count, pid, "web", 7).is_empty(), "{count} {pid}");
        }
    }

    #[test]
    fn a_takeover_names_a_pipe_and_sockets() {
        assert_eq!(takeover("9,10,11"), Some((9, vec![10, 11])));
        assert_eq!(takeover("9"), Some((9, vec![])));
        assert_eq!([takeover(""), takeover("9,x")], [None, None]);
    }

    #[test]
    fn a_socket_goes_to_whom_it_names_or_whose_address_it_has() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (named, plain, other) = (bind(), bind(), bind());
        let address = plain.local_addr().unwrap();
        let inherited = Inherited::of(vec![("web".to_owned(), named), (String::new(), plain), ("x".to_owned(), other)]);
        assert_eq!(inherited.take(address, "nobody").len(), 1);
        assert_eq!(inherited.take(address, "web").len(), 1);
        assert_eq!(inherited.take(address, "web").len(), 0, "only once");
    }
}
