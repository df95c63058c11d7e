//! Requests over several kept-alive connections, each of them a thread that waits for its answers.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::client::Connection;
use crate::files::host;

/// Sends so many requests as fast as the answers come, to the tenants in turn.
///
/// # Errors
/// When one is not answered by its tenant.
pub(crate) fn hurried(address: SocketAddr, tenants: &[String], connections: usize, requests: usize) -> Result<()> {
    let hosts: Vec<_> = tenants.iter().map(|tenant| (tenant.as_str(), host(tenant))).collect();
    let (hosts, each) = (&hosts, requests / connections);
    let run = |number: usize| -> Result<()> {
        let mut connection = Connection::open(address)?;
        // Each begins elsewhere, and together they come to all of them.
        for (tenant, host) in hosts.iter().cycle().skip(number * hosts.len() / connections).take(each) {
            let answer = connection.get(host, "/")?;
            ensure!(answer.is_of(tenant), "{tenant}: {answer:?}");
        }
        Ok(())
    };
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
    })
}

/// A tenant asked so many times a second, however long the answers take: each connection asks once in each period, at a moment of it
/// that is drawn, so that two tenants asked equally often meet by chance and not always or never.
#[derive(Clone, Copy)]
pub(crate) struct Paced {
    pub(crate) address: SocketAddr,
    pub(crate) tenant: &'static str,
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
    /// Requests per second over all connections.
    pub(crate) rate: u32,
}

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Of those answered as they should be, what each took.
    answered: Vec<Duration>,
    /// The others by status.
    others: BTreeMap<u16, usize>,
    /// Those without an answer, and why the first has none.
    broken: usize,
    why: Option<String>,
    elapsed: Duration,
}

impl Paced {
    /// Asks until it is told to stop.
    pub(crate) fn run(self, stop: &AtomicBool) -> Outcome {
        let began = Instant::now();
        let mut sum = Outcome::default();
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.connections).map(|number| scope.spawn(move || self.connection(number, stop))).collect();
            threads.into_iter().flat_map(thread::ScopedJoinHandle::join).for_each(|outcome| sum.add(outcome));
        });
        sum.elapsed = began.elapsed();
        sum
    }

    /// For so long.
    pub(crate) fn run_for(self, time: Duration) -> Outcome {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| self.run(&stop));
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            load.join().unwrap_or_default()
        })
    }

    /// A request is late when its connection still waits for the one before: its time then counts from when it was due. One that is
    /// late because this program was, counts from when it was sent.
    fn connection(self, number: u32, stop: &AtomicBool) -> Outcome {
        let (mut outcome, host) = (Outcome::default(), host(self.tenant));
        let mut connection = None;
        let period = Duration::from_secs(1) * self.connections / self.rate;
        let mut period_begins = Instant::now() + period * number / self.connections;
        while !stop.load(Ordering::Relaxed) {
            let due = period_begins + period.mul_f64(fastrand::f64());
            period_begins += period;
            let now = Instant::now();
            let began = if now < due {
                thread::sleep(due - now);
                Instant::now()
            } else {
                due
            };
            let open = connection.take().map_or_else(|| Connection::open(self.address), Ok);
            let asked = open.and_then(|mut open| Ok((open.get(&host, self.path)?, open)));
            match asked {
                Ok((answer, open)) => {
                    connection = Some(open);
                    if answer.is_of(self.tenant) {
                        outcome.answered.push(began.elapsed());
                    } else {
                        *outcome.others.entry(answer.status).or_default() += 1;
                    }
                }
                Err(why) => {
                    outcome.broken += 1;
                    outcome.why.get_or_insert_with(|| format!("{why:#}"));
                }
            }
        }
        outcome
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        for (status, count) in other.others {
            *self.others.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        self.why = self.why.take().or(other.why);
    }

    /// How many were answered as they should be.
    pub(crate) fn good(&self) -> usize {
        self.answered.len()
    }

    /// How many were not answered as they should be.
    pub(crate) fn failed(&self) -> usize {
        self.others.values().sum::<usize>() + self.broken
    }

    /// Good answers per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.good() as f64 / self.elapsed.as_secs_f64()
    }

    /// The 99th percentile of the good answers' times, in milliseconds; nothing when there was none.
    pub(crate) fn p99_ms(&self) -> Option<f64> {
        let mut times = self.answered.clone();
        times.sort_unstable();
        let rank = (times.len() * 99).div_ceil(100).checked_sub(1)?;
        Some(times.get(rank)?.as_secs_f64() * 1e3)
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} good", self.good())?;
        for (status, count) in &self.others {
            write!(f, ", {count} with {status}")?;
        }
        match &self.why {
            Some(why) => write!(f, ", {} broken ({why})", self.broken),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_may_take_longer_than_the_99th_percentile() {
        let outcome = |times: &[u64]| Outcome {
            answered: times.iter().map(|ms| Duration::from_millis(*ms)).collect(),
            ..Outcome::default()
        };
        let hundred: Vec<_> = (1..=100).rev().collect();
        for (times, want) in [(&hundred[..], Some(99.0)), (&[7], Some(7.0)), (&[], None)] {
            assert_eq!(outcome(times).p99_ms(), want);
        }
    }
}
