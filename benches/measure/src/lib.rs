//! What benchmarks of whole processes share.
//!
//! Starting a process on its cores and asking the kernel what it used (`process`), waiting for one, medians and quartiles, and what was measured
//! held against what it should be (`target`). Stands on the standard library, for `xtask` compiles in seconds.

pub mod process;
pub mod target;

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Ample for a gateway to compile a module on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Asks until there is an answer, with so much time between two questions.
///
/// # Errors
/// When asking fails, or there is no answer for a minute.
pub fn wait_for<T>(what: &str, poll: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < START_DEADLINE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        thread::sleep(poll);
    }
    bail!("waited {START_DEADLINE:?} until {what}")
}

/// An address nobody listens on. Somebody may take it before a gateway does, which then says so and ends.
///
/// # Errors
/// When the system has none to give.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// What a quarter of the values are below; `None` of nothing.
#[must_use]
pub fn lower_quartile(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied()
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_below_the_lower_quartile() {
        assert_eq!(lower_quartile((0..40).rev().map(f64::from).collect()), Some(10.0));
        assert_eq!(lower_quartile(vec![3.0, 2.0]), Some(2.0));
        assert_eq!(lower_quartile(Vec::new()), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
