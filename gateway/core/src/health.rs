//! Active health checks: when an endpoint that fails some counts as down, and when it counts as up again.
//!
//! Making the checks is the server's.

use std::time::Duration;

/// How an upstream's endpoints are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The time between two checks of an endpoint.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// How many good ones in a row make an endpoint up.
    pub healthy: u32,
    /// How many bad ones in a row make it down.
    pub unhealthy: u32,
}

/// An endpoint's checks so far. It is up until they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    is_down: bool,
    /// Checks in a row that contradict that.
    against: u32,
}

impl Checks {
    /// Notes how a check went, and says whether the endpoint is up.
    pub fn note(&mut self, passed: bool, rules: &Rules) -> bool {
        if passed != self.is_down {
            self.against = 0;
            return !self.is_down;
        }
        self.against += 1;
        let enough = if self.is_down { rules.healthy } else { rules.unhealthy };
        if self.against >= enough {
            *self = Self { is_down: !self.is_down, against: 0 };
        }
        !self.is_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_in_a_row_either_way() {
        let second = Duration::from_secs(1);
        let rules = Rules { interval: second, timeout: second, healthy: 2, unhealthy: 3 };
        let mut checks = Checks::default();
        for (passed, up) in [
            (true, true),
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (false, true),
            (false, false),
            (false, false),
            (true, false),
            (false, false),
            (true, false),
            (true, true),
            (false, true),
        ] {
            assert_eq!(checks.note(passed, &rules), up, "after {passed}: {checks:?}");
        }
    }
}
