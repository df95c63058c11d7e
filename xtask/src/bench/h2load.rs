//! HTTP/2 load: h2load with a hundred streams on each of its connections, and what it says.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use portcullis_measure::process::{LOAD_CORE, pinned};

const CONNECTIONS: &str = "4";
const STREAMS: &str = "100";

/// Sends requests to `url` for so many seconds; how many were answered.
///
/// # Errors
///
/// When a single one was not answered with success.
pub(super) fn load(h2load: &Path, url: &str, seconds: u32) -> Result<f64> {
    let mut command = pinned(&[LOAD_CORE], h2load);
    command.args(["-t1", "-c", CONNECTIONS, "-m", STREAMS, "-D", &seconds.to_string(), url]);
    let output = command.output().context("cannot start h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load: {}{text}", String::from_utf8_lossy(&output.stderr));
    parse(&text)
}

fn parse(text: &str) -> Result<f64> {
    ensure!(text.contains("Application protocol: h2"), "h2load did not speak HTTP/2: {text}");
    let line = text.lines().find(|line| line.starts_with("requests: ")).context("h2load printed no requests")?;
    let number = |label: &str| -> Option<f64> {
        let part = line.split(',').find(|part| part.trim().ends_with(label))?;
        part.trim().trim_start_matches("requests: ").split(' ').next()?.parse().ok()
    };
    let (succeeded, failed) = (number(" succeeded"), number(" failed"));
    ensure!(failed == Some(0.0), "not every request succeeded: {line}");
    succeeded.filter(|count| *count > 0.0).with_context(|| format!("no request succeeded: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_requests_are_counted_and_failures_refused() {
        let printed = |failed: u32| {
            format!(
                "Application protocol: h2\nfinished in 3.00s, 1.0 req/s, 1B/s\n\
                 requests: 480 total, 500 started, 480 done, 479 succeeded, {failed} failed, 0 errored, 0 timeout\n"
            )
        };
        assert_eq!(parse(&printed(0)).expect("complete"), 479.0);
        assert!(parse(&printed(1)).is_err());
        assert!(parse(&printed(0).replace("h2\n", "http/1.1\n")).is_err());
    }
}
