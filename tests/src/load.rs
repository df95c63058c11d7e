//! Requests without pause over kept-alive connections, each answer checked, until the test has seen enough.
//!
//! A client here is as careful as a good one: it opens a new connection where a response said `connection: close`, and none
//! where nobody listens any more. Everything else that is not a whole, right response is a failure.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::client::{H2, request};
use crate::eventually;
use crate::wire::{Message, Wire};

/// What is wrong with a response, if something is.
pub type Check = fn(&Message) -> Result<(), String>;

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

/// What clients do when nobody listens any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They are done: the gateway was told to end.
    IsTheEnd,
    /// It is a failure.
    IsAFailure,
}

impl Load {
    /// Starts that many clients over HTTP/1.1, and one over HTTP/2.
    #[must_use]
    pub fn start(address: SocketAddr, clients: usize, refused: Refused, check: Check) -> Self {
        Self::start_for((address, "test"), clients, refused, check)
    }

    /// The same, for another host than `test`.
    #[must_use]
    pub fn start_for(to: (SocketAddr, &'static str), clients: usize, refused: Refused, check: Check) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let spawn = |over: fn(To, Refused, Check, &AtomicBool, &AtomicU64) -> Result<(), String>| {
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || over(to, refused, check, &stop, &answered))
        };
        let clients = (0..clients).map(|_| spawn(over_http1)).chain([spawn(over_http2)]).collect();
        Self { stop, answered, clients }
    }

    /// How many right responses there were so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for that many more right responses.
    ///
    /// # Panics
    /// When they do not come, because clients have failed.
    pub fn more(&self, count: u64) {
        let want = self.answered() + count;
        eventually("there are more responses", || self.answered() >= want || self.is_over());
    }

    /// Whether all clients are done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Lets all clients finish, and returns how many right responses there were.
    ///
    /// # Panics
    /// When a request has failed.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> =
            self.clients.into_iter().filter_map(|client| client.join().expect("a client").err()).collect();
        assert!(failures.is_empty(), "{failures:?}");
        self.answered.load(Ordering::Relaxed)
    }
}

/// Address and host.
type To = (SocketAddr, &'static str);

fn over_http1(
    (address, host): To,
    refused: Refused,
    check: Check,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(_) if refused == Refused::IsTheEnd => return Ok(()),
            Err(error) => return Err(format!("connect: {error}")),
        };
        let mut wire = Wire::new(stream);
        let mut on_this_one = 0;
        while !stop.load(Ordering::Relaxed) {
            let what = |error| format!("request {on_this_one} of a connection: {error}");
            wire.write(request("GET", "/", &[("host", host)], "")).map_err(what)?;
            let answer = wire.message().map_err(what)?;
            check(&answer)?;
            answered.fetch_add(1, Ordering::Relaxed);
            on_this_one += 1;
            if answer.get("connection") == Some("close") {
                break;
            }
        }
    }
    Ok(())
}

fn over_http2(
    (address, host): To,
    refused: Refused,
    check: Check,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let connection = match H2::try_connect(address) {
            Ok(connection) => connection,
            Err(_) if refused == Refused::IsTheEnd => return Ok(()),
            Err(error) => return Err(format!("connect: {error}")),
        };
        while !stop.load(Ordering::Relaxed) {
            match connection.ask("GET", "/", &[("host", host)], []) {
                Ok(answer) => check(&answer.into_message())?,
                // GOAWAY: the request was not sent, and belongs on another connection.
                Err(error) if error.is_canceled() || error.is_closed() => break,
                Err(error) => return Err(format!("a stream: {error:?}")),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
