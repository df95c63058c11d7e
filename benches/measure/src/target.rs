//! One figure that should stay below a limit, and whether it did.

use std::fmt::Write as _;

/// A target and the figure that stands against it.
#[derive(Debug)]
pub struct Target {
    /// The figure's name.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// The most it may be.
    pub limit: f64,
    /// What it was; nothing when it could not be measured.
    pub measured: Option<f64>,
}

impl Target {
    /// In a word, for a table.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(measured) if measured <= self.limit => "pass",
            Some(_) => "MISS",
        }
    }

    /// Whether it was measured and is within the limit.
    #[must_use]
    pub fn met(&self) -> bool {
        self.measured.is_some_and(|measured| measured <= self.limit)
    }
}

/// A row per target.
#[must_use]
pub fn markdown(targets: &[Target]) -> String {
    let mut table = String::from("| target | at most | measured | |\n| --- | ---: | ---: | --- |\n");
    for target in targets {
        let Target { what, unit, limit, measured } = target;
        let measured = measured.map_or_else(|| "–".to_owned(), |measured| format!("{measured:.2} {unit}"));
        writeln!(table, "| {what} | {limit:.2} {unit} | {measured} | {} |", target.verdict())
            .expect("a string takes whatever is written to it");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(measured: Option<f64>) -> Target {
        Target { what: "resident".to_owned(), unit: "MiB", limit: 1536.0, measured }
    }

    #[test]
    fn a_figure_at_its_limit_passes_and_one_above_it_is_a_miss() {
        let table = markdown(&[target(Some(1536.0)), target(Some(1536.5))]);
        assert!(table.contains("| resident | 1536.00 MiB | 1536.00 MiB | pass |"), "{table}");
        assert!(table.contains("| resident | 1536.00 MiB | 1536.50 MiB | MISS |"), "{table}");
    }

    #[test]
    fn a_target_that_was_not_measured_is_not_met() {
        let target = target(None);
        assert!(!target.met());
        assert_eq!(target.verdict(), "not measured");
    }
}
