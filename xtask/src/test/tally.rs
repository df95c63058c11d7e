//! How many tests passed and failed, read from what nextest and `cargo test` print at the end of a run.

use std::fmt::{self, Display, Formatter};
use std::ops::AddAssign;

/// Counts over any number of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds the counts in a line that closes a run; passes over every other line.
    pub(super) fn read(&mut self, line: &str) {
        // `test result: ok. 3 passed; 0 failed; …`, and from nextest `     Summary [ 0.1s] 3 tests run: 3 passed, 0 skipped`. What nextest
        // shows of a test that failed is indented, and counts that test once more.
        let counts = match (line.strip_prefix("test result: "), line.trim_start().strip_prefix("Summary [")) {
            (Some(counts), _) => counts.split_once(". ").map(|(_, counts)| counts),
            (None, Some(counts)) => counts.split_once(" run: ").map(|(_, counts)| counts),
            (None, None) => None,
        };
        for count in counts.unwrap_or_default().split([',', ';']) {
            self.add(count.trim());
        }
    }

    /// A step that failed without a failed test, because it did not compile say, must not read as `0 failed`.
    pub(super) fn fail_at_least_once(&mut self) {
        self.failed = self.failed.max(1);
    }

    fn add(&mut self, count: &str) {
        let Some((number, kind)) = count.split_once(' ') else { return };
        let Ok(number) = number.parse::<u64>() else { return };
        match kind.split_once(" (").map_or(kind, |(kind, _)| kind) {
            "passed" => self.passed += number,
            "failed" | "timed out" | "exec failed" => self.failed += number,
            _ => {}
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        tally.to_string()
    }

    #[test]
    fn closing_lines_of_both_runners_are_summed() {
        let text = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.00s
test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Summary [   0.005s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 4 skipped
";
        assert_eq!(read(text), "13 passed, 5 failed");
    }

    #[test]
    fn a_run_cut_short_counts_what_was_run() {
        assert_eq!(read("     Summary [   1.2s] 3/9 tests run: 2 passed, 1 failed, 0 skipped"), "2 passed, 1 failed");
    }

    #[test]
    fn other_lines_that_speak_of_passing_are_not_counted() {
        assert_eq!(read("5 passed, 2 failed\nnote: 3 passed"), "0 passed, 0 failed");
        assert_eq!(read("    test result: FAILED. 0 passed; 1 failed; 0 ignored"), "0 passed, 0 failed");
    }

    #[test]
    fn a_failed_step_without_a_failed_test_counts_once() {
        let mut tally = Tally::default();
        tally.fail_at_least_once();
        tally.fail_at_least_once();
        assert_eq!(tally.to_string(), "0 passed, 1 failed");
    }
}
