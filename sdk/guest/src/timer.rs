//! Time as futures: sleeping, giving up, and the tick that drives both.
//!
//! The host has one timer per root context. It is set to the earliest deadline of that root's tasks, and off without any.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::executor;
use crate::root::Root;
use crate::sys;

/// Milliseconds, for places where `Duration::from_millis` is a mouthful.
///
/// ```
/// assert_eq!(portcullis_sdk::ms(50), std::time::Duration::from_millis(50));
/// ```
#[must_use]
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Seconds.
///
/// ```
/// assert_eq!(portcullis_sdk::secs(2), std::time::Duration::from_secs(2));
/// ```
#[must_use]
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The deadlines of one root's tasks.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: RefCell<Vec<Waiting>>,
    next: Cell<u64>,
    /// When the host's timer fires, if it is set.
    tick: Cell<Option<u64>>,
    /// What the clock said last, and how far it has stepped back in all: deadlines must not wait for it to catch up.
    clock: Cell<(u64, u64)>,
}

struct Waiting {
    key: u64,
    deadline: u64,
    waker: Waker,
}

impl Timers {
    /// Nanoseconds on a clock that never steps back.
    pub(crate) fn now(&self) -> u64 {
        let wall = sys::now();
        let (last, stepped) = self.clock.get();
        let stepped = stepped.saturating_add(last.saturating_sub(wall));
        self.clock.set((wall, stepped));
        wall.saturating_add(stepped)
    }

    fn wait(&self, key: Option<u64>, deadline: u64, waker: &Waker) -> u64 {
        let mut waiting = self.waiting.borrow_mut();
        let known = key.and_then(|key| waiting.iter_mut().find(|waiting| waiting.key == key));
        if let Some(known) = known {
            known.waker.clone_from(waker);
            return known.key;
        }
        let key = self.next.get();
        self.next.set(key.wrapping_add(1));
        waiting.push(Waiting { key, deadline, waker: waker.clone() });
        drop(waiting);
        if self.tick.get().is_none_or(|tick| deadline < tick) {
            self.set_tick(Some(deadline));
        }
        key
    }

    fn cancel(&self, key: u64) {
        self.waiting.borrow_mut().retain(|waiting| waiting.key != key);
    }

    fn set_tick(&self, deadline: Option<u64>) {
        self.tick.set(deadline);
        let period = deadline.map_or(0, |deadline| {
            // Rounded up: a tick that comes too early finds nothing to do. And never 0, which would switch it off.
            let ms = deadline.saturating_sub(self.now()).div_ceil(1_000_000).max(1);
            u32::try_from(ms).unwrap_or(u32::MAX)
        });
        sys::set_tick(period);
    }

    /// The host's timer fired: wakes whoever is due.
    pub(crate) fn fire(&self) {
        let now = self.now();
        let mut due = Vec::new();
        self.waiting.borrow_mut().retain(|waiting| {
            let is_due = waiting.deadline <= now;
            if is_due {
                due.push(waiting.waker.clone());
            }
            !is_due
        });
        due.into_iter().for_each(Waker::wake);
        let next = self.waiting.borrow().iter().map(|waiting| waiting.deadline).min();
        self.set_tick(next);
    }
}

/// Ends after `duration`.
///
/// Rounded up to the host's timer, which has milliseconds.
///
/// ```
/// # use portcullis_sdk::{ms, sleep};
/// async fn patient() {
///     sleep(ms(20)).await;
/// }
/// ```
#[must_use]
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { duration, armed: None }
}

/// What [`sleep`] returns.
///
/// ```
/// # use portcullis_sdk::{Either, Sleep, ms, race, sleep};
/// async fn first(work: impl Future<Output = u32>) -> Option<u32> {
///     let patience: Sleep = sleep(ms(10));
///     match race(work, patience).await {
///         Either::First(done) => Some(done),
///         Either::Second(()) => None,
///     }
/// }
/// ```
pub struct Sleep {
    duration: Duration,
    armed: Option<Armed>,
}

struct Armed {
    root: Rc<Root>,
    deadline: u64,
    key: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let duration = self.duration;
        if self.armed.is_none() {
            let Some(task) = executor::running() else { return Poll::Pending };
            let root = Rc::clone(task.root());
            let deadline = root.timers.now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
            self.armed = Some(Armed { root, deadline, key: None });
        }
        let Some(armed) = &mut self.armed else { return Poll::Pending };
        if armed.root.timers.now() >= armed.deadline {
            return Poll::Ready(());
        }
        armed.key = Some(armed.root.timers.wait(armed.key, armed.deadline, cx.waker()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(Armed { root, key: Some(key), .. }) = &self.armed {
            root.timers.cancel(*key);
        }
    }
}

/// A [`timeout`] that has passed.
///
/// ```
/// use portcullis_sdk::Elapsed;
/// assert_eq!(Elapsed.to_string(), "the time is up");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is up")
    }
}

impl std::error::Error for Elapsed {}

/// Gives a future so long, and drops it then.
///
/// # Errors
/// [`Elapsed`] when the time is up first.
///
/// ```
/// # use portcullis_sdk::{ms, timeout, Elapsed};
/// async fn at_most_a_moment(slow: impl Future<Output = u32>) -> Result<u32, Elapsed> {
///     timeout(ms(100), slow).await
/// }
/// ```
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(duration));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
