//! What a tenant may use up: an account that all workers draw on.
//!
//! Requests, requests at once, processor time of its filters, memory of its VMs, their callouts, what they log and the data that
//! they share. Each has a limit or none, and limits may change while the account is drawn on.
//!
//! What no limit bounds is how long one callback keeps its worker from serving others. A tenant whose callbacks often take long is
//! *set apart* ([`Apart`]): its requests go where only such tenants wait for each other.
//! **Invariant:** an account never refuses somebody else's request.

mod apart;
mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub use self::apart::{Apart, Work};
pub use self::limits::{Limit, Limits};
use crate::meter::Meter;
use crate::reply::Failure;
use crate::time::{Time, nanos};

/// What limits on processor time and on the log are said for.
const SECOND: Duration = Duration::from_secs(1);

/// A tenant's account.
#[derive(Debug)]
pub struct Account {
    /// Whether it is set apart.
    pub apart: Apart,
    requests: Meter,
    /// Nanoseconds.
    cpu: Meter,
    callouts: Meter,
    /// Bytes.
    log: Meter,
    in_flight_limit: AtomicU32,
    memory_limit: AtomicU64,
    callouts_limit: AtomicU32,
    /// `u64::MAX` for the host's own.
    shared_data_limit: AtomicU64,
    in_flight: AtomicU32,
    memory: AtomicU64,
    callouts_in_flight: AtomicU32,
    refused: [AtomicU64; Limit::ALL.len()],
}

impl Default for Account {
    fn default() -> Self {
        Self {
            apart: Apart::default(),
            requests: Meter::default(),
            cpu: Meter::default(),
            callouts: Meter::default(),
            log: Meter::default(),
            in_flight_limit: AtomicU32::new(u32::MAX),
            memory_limit: AtomicU64::new(u64::MAX),
            callouts_limit: AtomicU32::new(u32::MAX),
            shared_data_limit: AtomicU64::new(u64::MAX),
            in_flight: AtomicU32::new(0),
            memory: AtomicU64::new(0),
            callouts_in_flight: AtomicU32::new(0),
            refused: Default::default(),
        }
    }
}

/// A call to an upstream that has been let go; it is under way until this is dropped.
#[derive(Debug)]
pub struct Calling(Arc<Account>);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.callouts_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that has been let in; it is under way until this is dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Account>);

impl Admitted {
    /// Whose it is.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    /// Sets the limits. What has been taken stays taken.
    pub fn limit(&self, limits: &Limits) {
        self.requests.limit(limits.requests);
        self.callouts.limit(limits.callouts);
        self.cpu.limit(limits.cpu.map(|time| (nanos(time), SECOND)));
        self.log.limit(limits.log.map(|bytes| (bytes, SECOND)));
        self.callouts_limit.store(limits.callouts_in_flight.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.shared_data_limit.store(limits.shared_data.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.in_flight_limit.store(limits.in_flight.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.memory_limit.store(limits.memory.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Lets a request in, or says which limit it meets. A request that is refused costs nothing.
    ///
    /// # Errors
    /// [`Failure::TenantRequests`], [`Failure::TenantInFlight`], [`Failure::TenantCpu`].
    pub fn admit(self: &Arc<Self>, now: Time) -> Result<Admitted, Failure> {
        if self.is_out_of_cpu(now) {
            self.count(Limit::Cpu);
            return Err(Failure::TenantCpu);
        }
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.in_flight_limit.load(Ordering::Relaxed) {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.count(Limit::InFlight);
            return Err(Failure::TenantInFlight);
        }
        let admitted = Admitted(self.clone());
        if !self.requests.take(1, now) {
            self.count(Limit::Requests);
            return Err(Failure::TenantRequests);
        }
        Ok(admitted)
    }

    /// Lets a filter call an upstream, if a call is to be had.
    #[must_use]
    pub fn call(self: &Arc<Self>, now: Time) -> Option<Calling> {
        if self.callouts_in_flight.fetch_add(1, Ordering::Relaxed) >= self.callouts_limit.load(Ordering::Relaxed) {
            self.callouts_in_flight.fetch_sub(1, Ordering::Relaxed);
            self.count(Limit::CalloutsInFlight);
            return None;
        }
        let calling = Calling(self.clone());
        if !self.callouts.take(1, now) {
            self.count(Limit::Callouts);
            return None;
        }
        Some(calling)
    }

    /// Lets a filter log a line of so many bytes, if they are to be had.
    #[must_use]
    pub fn log(&self, bytes: usize, now: Time) -> bool {
        let taken = self.log.take(bytes as u64, now);
        if !taken {
            self.count(Limit::Log);
        }
        taken
    }

    /// How many bytes its filters may share; `None` for as many as the host has room for.
    #[must_use]
    pub fn shared_data(&self) -> Option<u64> {
        let limit = self.shared_data_limit.load(Ordering::Relaxed);
        (limit != u64::MAX).then_some(limit)
    }

    /// Notes that shared data of its own had to go, or was not taken, for lack of room.
    pub fn ran_out_of_shared_data(&self) {
        self.count(Limit::SharedData);
    }

    /// Calls of its filters under way.
    #[must_use]
    pub fn callouts_in_flight(&self) -> u32 {
        self.callouts_in_flight.load(Ordering::Relaxed)
    }

    /// Pays for processor time that its filters have used. It may be more than there is: then the tenant waits for longer.
    pub fn charge(&self, used: Duration, now: Time) {
        self.cpu.charge(nanos(used), now);
    }

    /// Notes that it is set apart, and that there was no room for another of its requests where it is served.
    pub fn turned_away(&self) {
        self.count(Limit::Cpu);
    }

    /// Until when its filters have used more than they may; nothing when they have not.
    #[must_use]
    pub fn out_of_cpu_until(&self, now: Time) -> Option<Time> {
        self.cpu.exhausted_until(now)
    }

    /// Whether its filters have used more processor time than they may.
    #[must_use]
    pub fn is_out_of_cpu(&self, now: Time) -> bool {
        self.out_of_cpu_until(now).is_some()
    }

    /// Takes so many bytes of memory for a VM, if they are to be had.
    #[must_use]
    pub fn take_memory(&self, bytes: u64) -> bool {
        let limit = self.memory_limit.load(Ordering::Relaxed);
        let take = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= limit);
        let taken = self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if !taken {
            self.count(Limit::Memory);
        }
        taken
    }

    /// Gives them back.
    pub fn give_memory(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn count(&self, limit: Limit) {
        if let Some(count) = self.refused.get(limit as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often this limit has refused it something.
    #[must_use]
    pub fn refused(&self, limit: Limit) -> u64 {
        self.refused.get(limit as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Bytes of memory its VMs have.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limits: Limits) -> Arc<Account> {
        let account = Account::default();
        account.limit(&limits);
        Arc::new(account)
    }

    fn at(ms: u64) -> Time {
        Time::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn without_limits_everything_is_let_in() {
        let account = account(Limits::default());
        account.charge(Duration::from_secs(100), at(0));
        let all: Vec<_> = (0..1000).map(|_| account.admit(at(0))).collect();
        assert!(all.iter().all(Result::is_ok) && account.take_memory(1 << 40));
        assert_eq!(account.in_flight(), 1000);
        drop(all);
        assert_eq!(account.in_flight(), 0);
    }

    #[test]
    fn requests_come_at_their_rate_after_a_burst_of_one_period() {
        let account = account(Limits { requests: Some((10, Duration::from_secs(1))), ..Limits::default() });
        let admitted = |from: u64, to: u64| (from..to).filter(|ms| account.admit(at(*ms)).is_ok()).count();
        assert_eq!(admitted(0, 1), 1);
        assert_eq!((0..20).filter(|_| account.admit(at(1)).is_ok()).count(), 9, "what is left of the period's");
        assert_eq!(account.admit(at(1)).err(), Some(Failure::TenantRequests));
        assert_eq!(admitted(2, 10_001), 100);
        assert_eq!(account.in_flight(), 0, "those that were refused are not under way");
        assert!(account.refused(Limit::Requests) > 9_000 && account.refused(Limit::Cpu) == 0);
    }

    #[test]
    fn requests_at_once_are_counted_until_they_are_over() {
        let account = account(Limits { in_flight: Some(2), ..Limits::default() });
        let (first, second) = (account.admit(at(0)), account.admit(at(0)));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(account.admit(at(0)).err(), Some(Failure::TenantInFlight));
        drop(first);
        assert!(account.admit(at(0)).is_ok());
        account.limit(&Limits { in_flight: Some(1), ..Limits::default() });
        assert_eq!(account.admit(at(0)).err(), Some(Failure::TenantInFlight), "limits change while they are drawn on");
        drop(second);
    }

    #[test]
    fn processor_time_is_paid_for_by_waiting() {
        let account = account(Limits { cpu: Some(Duration::from_millis(100)), ..Limits::default() });
        account.charge(Duration::from_millis(100), at(0));
        assert!(account.admit(at(0)).is_ok(), "a second's worth may be used at once");
        account.charge(Duration::from_millis(10), at(0));
        assert_eq!(account.admit(at(99)).err(), Some(Failure::TenantCpu));
        assert_eq!(account.out_of_cpu_until(at(50)), Some(at(100)));
        assert!(account.admit(at(100)).is_ok());
    }

    #[test]
    fn calls_are_counted_as_they_begin_and_until_they_are_over() {
        let limits =
            Limits { callouts: Some((3, Duration::from_secs(1))), callouts_in_flight: Some(2), ..Limits::default() };
        let account = account(limits);
        let (first, second) = (account.call(at(0)), account.call(at(0)));
        assert!(first.is_some() && second.is_some() && account.call(at(0)).is_none());
        assert_eq!((account.callouts_in_flight(), account.refused(Limit::CalloutsInFlight)), (2, 1));
        drop((first, second));
        assert!(
            account.call(at(1)).is_some() && account.call(at(1)).is_none(),
            "the third of this second was the last"
        );
        assert_eq!((account.callouts_in_flight(), account.refused(Limit::Callouts)), (0, 1));
        assert!(account.call(at(400)).is_some());
    }

    #[test]
    fn log_is_counted_by_its_bytes_and_the_longest_line_still_passes_in_time() {
        let account = account(Limits { log: Some(1000), ..Limits::default() });
        assert!(account.log(600, at(0)) && !account.log(600, at(0)) && account.log(400, at(0)));
        assert!(!account.log(1, at(0)) && account.log(1, at(1)));
        assert!(!account.log(5000, at(500)) && account.log(5000, at(1100)), "as if it were all there is");
        assert_eq!(account.refused(Limit::Log), 3);
    }

    #[test]
    fn memory_is_shared_by_all_its_vms() {
        let account = account(Limits { memory: Some(100), ..Limits::default() });
        assert!(account.take_memory(60) && !account.take_memory(41) && account.take_memory(40));
        account.give_memory(60);
        assert_eq!(account.memory(), 40);
        assert!(account.take_memory(60));
    }
}
