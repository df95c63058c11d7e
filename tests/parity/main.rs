//! The same module, configuration and requests on Portcullis and on a real Envoy: what comes back must be the same, or stand in the
//! table of differences in `docs/abi.md`.
//!
//! A case is data (`case.rs`, `cases/`): what the guest of `plugins/parity` does in which callback, what is asked, what the origin
//! answers. Compared are the response, the requests that the origin saw, and what the guest logged: each hostcall with its status
//! and its answer. **Invariant:** a case that differs says so, in which respect, and by the name of a row of the table; one that
//! says so and does not differ fails too, and so does a table whose names or counts are not those of the cases.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what cannot go on in a test panics")]

mod case;
mod cases;
mod differences;
mod document;
mod log;
mod observed;
mod play;
mod sides;

use case::Case;
use sides::Side;

/// Plays a group of cases on both sides, and says of each that is not as it says it is what came instead.
fn compare(cases: &[Case]) {
    let Some(envoy) = portcullis_tests::envoy::program() else { return };
    let play = |side: &Side| cases.iter().map(|case| play::play(side, case)).collect::<Vec<_>>();
    let [(our_side, ours), (their_side, theirs)] = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| {
            let side = sides::envoy(&envoy, cases);
            let observed = play(&side);
            (side, observed)
        });
        let side = sides::portcullis(cases);
        let observed = play(&side);
        [(side, observed), theirs.join().unwrap()]
    });
    // Chance decides some orders: what is wrong is wrong every time.
    let again = |case: &Case| {
        let [ours, theirs] = [&our_side, &their_side].map(|side| play::play_again(side, case));
        observed::verdict(case, &ours, &theirs)
    };
    let wrong: Vec<String> = std::iter::zip(cases, std::iter::zip(&ours, &theirs))
        .filter_map(|(case, (ours, theirs))| {
            let verdict = observed::verdict(case, ours, theirs)?;
            println!("{verdict}");
            (0..2).try_fold(verdict, |_, _| again(case))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// A test for each group of cases, so that they run at the same time and fail alone.
macro_rules! groups {
    ($($group:ident)*) => {$(
        #[test]
        fn $group() {
            compare(&cases::$group::cases());
        }
    )*

        /// All cases there are.
        fn all() -> Vec<Case> {
            [$(cases::$group::cases()),*].concat()
        }
    };
}

groups! {
    integration headers maps memory buffers bodies pauses replies life calls grpc services properties foreign old
}
