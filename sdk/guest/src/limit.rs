//! Limits that all workers share: taken from several at once, or from none.
//!
//! Portcullis does that in one step, so what passes is exact whatever the number of workers. On other hosts each limit is changed by
//! compare-and-swap in shared data, one after another, and what was taken is given back when a later one refuses: then a request
//! that is refused can cost another one its place for that moment. The states are the same on both.

use std::cell::Cell as StdCell;
use std::time::UNIX_EPOCH;

use portcullis_abi::limit::{Entry, FUNCTION, Order};
pub use portcullis_abi::limit::{Limit, Quota, Rate, SECOND, Verdict};

use crate::host::Host;
use crate::shared::{Cell, NotStored};
use crate::sys;

/// One limit to take from.
///
/// ```
/// use portcullis_sdk::limit::{Limit, Rate, SECOND, Take};
/// let five_a_second = Limit::Rate(Rate { interval: SECOND / 5, burst: 5 });
/// let take = Take { key: "api/192.0.2.1".into(), limit: five_a_second, cost: 1, shadow: false };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// Where its state is, in shared data. Begin it with the filter's name.
    pub key: String,
    /// The limit.
    pub limit: Limit,
    /// How much is taken.
    pub cost: u64,
    /// Whether it only counts, and never refuses.
    pub shadow: bool,
}

thread_local! {
    /// Whether this host has the function; not known before it was asked.
    static IN_ONE_STEP: StdCell<Option<bool>> = const { StdCell::new(None) };
}

/// Takes from all of these, or, where one refuses, from none. A verdict for each, in order.
///
/// # Errors
/// When the host stores nothing.
///
/// ```
/// # use portcullis_sdk::{Host, limit::{self, Take}};
/// fn passes(host: &Host, takes: &[Take]) -> bool {
///     match limit::take(host, takes) {
///         Ok(verdicts) => verdicts.iter().all(|verdict| verdict.state.is_some()),
///         Err(_) => true, // a store that is full must not lock everybody out
///     }
/// }
/// ```
pub fn take(host: &Host, takes: &[Take]) -> Result<Vec<Verdict>, NotStored> {
    let entries: Vec<Entry<'_>> = takes.iter().map(Take::entry).collect();
    match in_one_step(Order::Take, &entries) {
        Some(verdicts) => verdicts,
        None => one_by_one(takes, now(host)),
    }
}

/// Takes more from a limit, or gives back where `more` is below 0, whatever the limit says: what a response has cost.
///
/// # Errors
/// When the host stores nothing.
///
/// ```
/// # use portcullis_sdk::{Host, limit::{self, Take}};
/// fn pay_for_bytes(host: &Host, reserved: &Take, bytes: usize) {
///     let more = bytes as i64 - reserved.cost as i64;
///     if let Err(why) = limit::settle(host, reserved, more) {
///         log::warn!("not counted: {why}");
///     }
/// }
/// ```
pub fn settle(host: &Host, take: &Take, more: i64) -> Result<(), NotStored> {
    let entry = Entry { cost: more, ..take.entry() };
    match in_one_step(Order::Settle, &[entry]) {
        Some(settled) => settled.map(|_| ()),
        None => settle_alone(take, more, now(host)),
    }
}

fn now(host: &Host) -> u64 {
    let since = host.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Take {
    fn entry(&self) -> Entry<'_> {
        let cost = i64::try_from(self.cost).unwrap_or(i64::MAX);
        Entry { key: self.key.as_bytes(), limit: self.limit, cost, shadow: self.shadow }
    }
}

/// The host's verdicts; nothing where it has no such function.
fn in_one_step(order: Order, entries: &[Entry<'_>]) -> Option<Result<Vec<Verdict>, NotStored>> {
    if IN_ONE_STEP.get() == Some(false) {
        return None;
    }
    let mut argument = vec![order as u8];
    for entry in entries {
        argument.extend(entry.head());
        argument.extend(entry.key);
    }
    let answered = sys::foreign_function(FUNCTION, &argument);
    let is_there = answered != Err(portcullis_abi::Status::NotFound);
    IN_ONE_STEP.set(Some(is_there));
    is_there.then(|| {
        let answer = answered.map_err(|_| NotStored::Refused)?;
        let mut rest = &answer[..];
        let mut verdicts = Vec::with_capacity(entries.len());
        for _ in entries {
            let (verdict, after) = Verdict::read(rest).ok_or(NotStored::Refused)?;
            verdicts.push(verdict);
            rest = after;
        }
        Ok(verdicts)
    })
}

fn one_by_one(takes: &[Take], now: u64) -> Result<Vec<Verdict>, NotStored> {
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(takes.len());
    let mut refused = false;
    for take in takes {
        let mut verdict = take.limit.take(None, take.cost, now);
        let stored = cell(take).update(|state| {
            verdict = take.limit.take(state, take.cost, now);
            if refused {
                verdict = take.limit.untouched(&verdict, state, now);
            }
            verdict.state.filter(|_| !refused)
        });
        if let Err(why) = stored {
            give_back(takes, &mut verdicts, now);
            return Err(why);
        }
        if verdict.state.is_none() && !take.shadow && !refused {
            refused = true;
            give_back(takes, &mut verdicts, now);
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Undoes what was taken so far, since a later limit refuses.
fn give_back(takes: &[Take], verdicts: &mut [Verdict], now: u64) {
    for (take, verdict) in takes.iter().zip(verdicts).filter(|(_, verdict)| verdict.state.is_some()) {
        let cost = i64::try_from(take.cost).unwrap_or(i64::MAX);
        match settle_alone(take, -cost, now) {
            Ok(()) => *verdict = take.limit.untouched(verdict, cell(take).get(), now),
            Err(why) => log::warn!("what was taken from `{}` could not be given back: {why}", take.key),
        }
    }
}

fn settle_alone(take: &Take, more: i64, now: u64) -> Result<(), NotStored> {
    cell(take).update(|state| Some(take.limit.settle(state, more, now))).map(|_| ())
}

fn cell(take: &Take) -> Cell<u64> {
    Cell::new(take.key.as_str())
}
