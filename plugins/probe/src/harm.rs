//! The ways a guest can fail its host, each on purpose.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::script::Verb;

/// Does the harm, if the verb is one.
#[allow(clippy::panic, reason = "a panic is one of the ways to fail that the tests ask for")]
pub(crate) fn done_by(verb: &Verb) {
    match verb {
        Verb::Trap => std::process::abort(),
        Verb::Panic => panic!("the probe was told to panic"),
        Verb::Exit => std::process::exit(3),
        Verb::Spin(ms) => spin(Duration::from_millis(*ms)),
        Verb::Loop => forever(),
        Verb::Memory => all_memory(),
        Verb::Log
        | Verb::Headers
        | Verb::Reply(_)
        | Verb::Close
        | Verb::Pause
        | Verb::Callout(_)
        | Verb::Upper
        | Verb::Chunks
        | Verb::Count(_)
        | Verb::Property(_)
        | Verb::Path(_)
        | Verb::Reroute
        | Verb::Tick(_)
        | Verb::Fail => {}
    }
}

/// Busy for that much of the processor's time, however often it is taken away: between two looks at the clock it cannot have been busy
/// for longer than a look takes.
fn spin(time: Duration) {
    const LOOK: Duration = Duration::from_micros(20);
    let (mut busy, mut last) = (Duration::ZERO, Instant::now());
    while busy < time {
        let now = Instant::now();
        busy += now.duration_since(last).min(LOOK);
        last = now;
    }
}

fn forever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn all_memory() -> ! {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}
