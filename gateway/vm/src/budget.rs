//! A callback's processor time.
//!
//! wasmtime can interrupt a guest by the clock on the wall, but a worker that was not scheduled has used none of its guest's
//! budget: on a busy or throttled machine the wall alone would end innocent guests. So the first half of a budget is waited for
//! on the wall, which costs nothing, and only a callback that is still running then has its thread's processor time measured.
//!
//! What all callbacks take together is counted as well. Asking for the processor time costs more than a short callback, so one is
//! measured only now and then, by chance, and stands for those of its kind between; what lies beyond half a budget is counted as it
//! is. What a kind of callback takes is learnt from others of that kind: bodies may take long where heads do not.
//!
//! **Invariant:** a callback that uses less than half its budget is never ended, one that uses all of it always is, give or take
//! two of the ticker's steps, of which none is longer than half a budget, or a nap. Time spent in hostcalls counts.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::tenant::Work;
use wasmtime::UpdateDeadline;

use crate::callbacks::Called;
use crate::engine::thread_time;
use crate::ticker::{TICK, Ticker};

/// One callback's budget.
#[derive(Debug)]
pub(crate) struct Budget {
    half: Duration,
    /// The same in ticks, rounded up.
    half_ticks: u64,
    stage: Stage,
    /// The kind of the callback that is under way.
    kind: usize,
    samples: Samples,
    is_for_start: bool,
    ticker: Arc<Ticker>,
}

/// Times are what the thread had used.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Less than half of it has passed on the wall.
    Fresh,
    /// The same, and it is a sample that began at this time.
    Sampled { begun: Duration },
    /// Half of it had passed at `since`.
    Measured { since: Duration, begun: Option<Duration> },
}

impl Budget {
    /// A budget per callback.
    pub(crate) fn new(cpu: Duration, ticker: Arc<Ticker>) -> Self {
        ticker.serve(cpu / 2);
        let (half, half_ticks) = (cpu / 2, ticks(cpu / 2));
        Self { half, half_ticks, stage: Stage::Fresh, kind: 0, samples: Samples::new(), is_for_start: false, ticker }
    }

    /// The same for a VM's start, of which everything is measured.
    pub(crate) fn of_start(cpu: Duration, ticker: Arc<Ticker>) -> Self {
        let budget = Self::new(cpu, ticker);
        Self { samples: Samples { rarest: 1, ..budget.samples }, is_for_start: true, ..budget }
    }

    /// Starts a callback; in how many ticks to ask [`Self::expired`].
    pub(crate) fn start(&mut self, called: Called) -> u64 {
        self.kind = called.kind();
        self.stage =
            if self.samples.is_due(self.kind) { Stage::Sampled { begun: thread_time() } } else { Stage::Fresh };
        self.ticker.callback();
        // The tick that is under way is partial.
        self.half_ticks + 1
    }

    /// Whether the callback may go on.
    pub(crate) fn expired(&mut self) -> UpdateDeadline {
        let now = thread_time();
        let begun = match self.stage {
            Stage::Measured { since, .. } => {
                let left = self.half.saturating_sub(now.saturating_sub(since));
                return if left.is_zero() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(ticks(left)) };
            }
            Stage::Sampled { begun } => Some(begun),
            Stage::Fresh => None,
        };
        self.stage = Stage::Measured { since: now, begun };
        UpdateDeadline::Continue(self.half_ticks)
    }

    /// Ends a callback; what is to be counted of it, if it was measured.
    pub(crate) fn end(&mut self) -> Option<Took> {
        match self.stage {
            Stage::Fresh => None,
            Stage::Sampled { begun } => Some(self.count(Some(begun), None)),
            Stage::Measured { since, begun } => Some(self.count(begun, Some(since))),
        }
    }

    /// What a callback took that was a sample from `begun`, if it was one, and measured exactly from `since`.
    #[cold]
    fn count(&mut self, begun: Option<Duration>, since: Option<Duration>) -> Took {
        let now = thread_time();
        let since = since.unwrap_or(now);
        let exact = now.saturating_sub(since);
        let sample = begun.map_or(Sample::default(), |begun| {
            self.samples.take(self.kind, since.saturating_sub(begun).saturating_sub(self.ticker.asking))
        });
        let work = if self.is_for_start { Work::Start } else { Work::Callback { stands_for: sample.stands_for } };
        Took { counted: exact + sample.took * sample.stands_for, alone: exact + sample.took, work }
    }
}

/// What is known of a callback that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    /// Processor time to be counted, for it and for those it stands for.
    pub(crate) counted: Duration,
    /// What it took itself: those that it stands for may have been shorter.
    pub(crate) alone: Duration,
    pub(crate) work: Work,
}

/// A callback that was measured, by chance, up to half its budget.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    took: Duration,
    stands_for: u32,
}

/// How rarely callbacks are measured at most: a pair of looks at the clock costs about half a microsecond.
const RAREST: u32 = 256;
/// A callback of this length is worth being measured every time.
const WORTH: Duration = Duration::from_micros(64);

/// Which callbacks are measured. How rarely depends on how long samples took so far, never on what is to come, so that the sum is
/// right in the mean whatever a guest does.
#[derive(Debug)]
struct Samples {
    kinds: [Kind; Called::KINDS],
    rarest: u32,
    chance: u32,
}

/// What is known of callbacks of one kind.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Callbacks until the next sample.
    left: u32,
    /// How many the next sample stands for.
    weight: u32,
    /// What samples took of late.
    mean: Duration,
}

impl Samples {
    fn new() -> Self {
        // Never 0, and VMs differ: no two have used up the same time.
        let chance = thread_time().subsec_nanos() | 1;
        // The first of each kind is measured.
        Self { kinds: [Kind { left: 1, weight: 1, mean: Duration::ZERO }; Called::KINDS], rarest: RAREST, chance }
    }

    fn is_due(&mut self, kind: usize) -> bool {
        let Some(kind) = self.kinds.get_mut(kind) else { return true };
        kind.left = kind.left.saturating_sub(1);
        kind.left == 0
    }

    fn take(&mut self, kind: usize, took: Duration) -> Sample {
        let chance = self.draw();
        let Some(kind) = self.kinds.get_mut(kind) else { return Sample { took, stands_for: 1 } };
        let sample = Sample { took, stands_for: kind.weight };
        kind.mean = (kind.mean * 7 + took) / 8;
        let fair = u32::try_from(WORTH.as_nanos() / kind.mean.as_nanos().max(1)).unwrap_or(u32::MAX);
        // No more than twice as rare at once: what a new guest does is found out before much is made of one sample.
        kind.weight = fair.min(kind.weight * 2).clamp(1, self.rarest);
        kind.left = steps(chance, kind.weight);
        sample
    }

    /// Between 0 and 1.
    fn draw(&mut self) -> f64 {
        // Marsaglia's xorshift: good enough not to march in step with a guest.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        f64::from(self.chance) / f64::from(u32::MAX)
    }
}

/// How many callbacks come up to the next sample if each is one with a chance of 1 in `weight`: then none is missed or favoured for
/// its place behind another.
fn steps(chance: f64, weight: u32) -> u32 {
    let missed = (chance.ln() / (-1.0 / f64::from(weight)).ln_1p()).floor();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
    let missed = missed as u32;
    missed.saturating_add(1)
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX >> 1).clamp(1, u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use portcullis_core::filter::Export;

    use super::*;

    #[test]
    fn ticks_round_up_and_are_never_zero() {
        for (micros, want) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)] {
            assert_eq!(ticks(Duration::from_micros(micros)), want);
        }
        assert_eq!(ticks(Duration::MAX), u64::MAX >> 1);
    }

    #[test]
    fn a_thread_that_did_not_run_has_used_nothing() {
        let mut budget = Budget::new(Duration::from_secs(2), Arc::default());
        assert_eq!(budget.start(Called::Tick), 1001);
        assert!(matches!(budget.expired(), UpdateDeadline::Continue(1000)));
        assert!(matches!(budget.expired(), UpdateDeadline::Continue(_)));
    }

    #[test]
    fn samples_come_to_the_whole_whatever_is_sampled() {
        for (what, lengths) in [
            ("short ones", &[Duration::from_nanos(300)][..]),
            ("long ones", &[Duration::from_micros(200)]),
            ("both in turn", &[Duration::from_nanos(500), Duration::from_micros(40)]),
            ("a rare long one", &[[Duration::from_micros(1); 15].as_slice(), &[Duration::from_micros(90)]].concat()),
        ] {
            let mut samples = Samples { chance: 12345, ..Samples::new() };
            let (mut whole, mut counted, mut looks) = (Duration::ZERO, Duration::ZERO, 0);
            for took in lengths.iter().cycle().take(2_000_000) {
                whole += *took;
                if samples.is_due(0) {
                    looks += 1;
                    let sample = samples.take(0, *took);
                    counted += sample.took * sample.stands_for;
                }
            }
            let ratio = counted.as_secs_f64() / whole.as_secs_f64();
            assert!((0.95..1.05).contains(&ratio), "{what}: {ratio}");
            let cost = Duration::from_nanos(500) * looks;
            assert!(cost < whole / 50 || looks < 2_000_000 / 100, "{what}: {looks} looks");
        }
    }

    #[test]
    fn what_one_kind_takes_says_nothing_of_another() {
        let mut samples = Samples::new();
        let (short, long) = (Called::ContextCreate.kind(), Called::About(Export::RequestBody).kind());
        for _ in 0..100_000 {
            if samples.is_due(short) {
                samples.take(short, Duration::from_nanos(200));
            }
        }
        let all_are_measured =
            (0..100).all(|_| samples.is_due(long) && samples.take(long, Duration::from_millis(8)).stands_for == 1);
        assert!(all_are_measured);
    }

    #[test]
    fn what_lies_beyond_half_a_budget_is_counted_as_it_is() {
        let mut budget = Budget::new(Duration::from_secs(2), Arc::default());
        budget.start(Called::Tick);
        assert!(budget.end().is_some(), "the first is a sample");
        let none_is_due = |budget: &mut Budget| budget.samples.kinds.iter_mut().for_each(|kind| kind.left = 2);
        none_is_due(&mut budget);
        budget.start(Called::Tick);
        assert!(budget.end().is_none(), "no sample");
        none_is_due(&mut budget);
        budget.start(Called::Tick);
        budget.expired();
        let begun = thread_time();
        while thread_time() - begun < Duration::from_millis(3) {}
        let Took { counted, alone, work } = budget.end().unwrap();
        assert!(matches!(work, Work::Callback { stands_for: 0 }));
        assert_eq!(alone, counted, "it stands for no other");
        assert!((Duration::from_millis(3)..Duration::from_millis(30)).contains(&counted), "{counted:?}");
    }
}
