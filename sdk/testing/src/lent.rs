//! What a plugin's thread has in hand while a callback runs: the exchanges, its contexts, its log.

use std::cell::RefCell;

use portcullis_abi::Status;
use portcullis_core::context::Contexts;
use portcullis_core::exchange::Exchanges;
use portcullis_core::host::Host;
use portcullis_simulation::Line;

use crate::services::Services;

pub(crate) struct Lent {
    pub(crate) exchanges: Exchanges,
    pub(crate) contexts: Contexts,
    pub(crate) services: Services,
    pub(crate) log: Vec<Line>,
    pub(crate) name: String,
    /// Whether the guest has panicked, by its own words.
    pub(crate) panicked: bool,
}

thread_local! {
    static LENT: RefCell<Option<Box<Lent>>> = const { RefCell::new(None) };
}

/// Has a callback made with these.
pub(crate) fn lend(lent: Box<Lent>, call: impl FnOnce() -> u32) -> (Box<Lent>, u32) {
    LENT.with(|cell| cell.replace(Some(lent)));
    let answer = call();
    let lent = LENT.with(RefCell::take).expect("nobody else takes what is lent");
    (lent, answer)
}

/// What is lent to this thread; a hostcall made outside of any callback finds nothing.
pub(crate) fn with<R>(act: impl FnOnce(&mut Lent) -> R) -> Option<R> {
    // A thread that ends drops its contexts, and they may still ask for something.
    LENT.try_with(|cell| cell.try_borrow_mut().ok()?.as_deref_mut().map(act)).ok().flatten()
}

/// Answers a hostcall: by the failure that the test asked for, or by doing it.
pub(crate) fn answer(function: &str, act: impl FnOnce(&mut Lent) -> Result<(), Status>) -> u32 {
    let answered = with(|lent| match lent.services.fault(function) {
        Some(status) => status,
        None => act(lent).map_or_else(u32::from, |()| u32::from(Status::Ok)),
    });
    answered.unwrap_or_else(|| Status::InternalFailure.into())
}

impl Lent {
    pub(crate) fn host(&mut self) -> Host<'_> {
        Host { exchanges: &mut self.exchanges, contexts: &mut self.contexts }
    }

    pub(crate) fn say(&mut self, level: &'static str, text: String) {
        self.panicked |= level == "critical" && text.starts_with("panicked at");
        self.log.push(Line { filter: self.name.clone(), level, text });
    }
}
