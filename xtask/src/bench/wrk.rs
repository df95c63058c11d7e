//! The load: wrk with 64 kept-alive connections, and what it says.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use portcullis_measure::process::{LOAD_CORE, pinned};

const CONNECTIONS: &str = "64";

/// One run of wrk.
#[derive(Debug, PartialEq)]
pub(super) struct Load {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Sends requests to `url` for so many seconds.
///
/// # Errors
///
/// When a single one was not answered with success: figures of failures are worth nothing.
pub(super) fn load(wrk: &Path, url: &str, seconds: u32, arguments: &[&str]) -> Result<Load> {
    let mut command = pinned(&[LOAD_CORE], wrk);
    command.args(["-t1", "-c", CONNECTIONS, "--latency", "-d", &format!("{seconds}s")]).args(arguments).arg(url);
    let output = command.output().context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {}{text}", String::from_utf8_lossy(&output.stderr));
    parse(&text)
}

fn parse(text: &str) -> Result<Load> {
    if let Some(line) = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        bail!("not every request succeeded: {}", line.trim());
    }
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let millis = |label| after(label).and_then(duration_ms).with_context(|| format!("wrk printed no {label}"));
    let requests =
        text.lines().find(|line| line.contains(" requests in ")).and_then(|line| line.split_whitespace().next());
    Ok(Load {
        requests: requests.context("wrk printed no number of requests")?.parse()?,
        requests_per_second: after("Requests/sec:").context("wrk printed no rate")?.parse()?,
        p50_ms: millis("50%")?,
        p99_ms: millis("99%")?,
    })
}

fn duration_ms(text: &str) -> Option<f64> {
    // `us` and `ms` before the bare `s` they both end with.
    [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)]
        .iter()
        .find_map(|(unit, scale)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
Running 5s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.06ms  105.31us   4.51ms   88.32%
    Req/Sec    60.19k     1.10k   62.00k    90.00%
  Latency Distribution
     50%  500.00us
     75%    1.08ms
     90%    1.15ms
     99%    1.42s
  299512 requests in 5.00s, 24.28MB read
Requests/sec:  59890.12
Transfer/sec:      4.85MB
";

    #[test]
    fn figures_are_read_in_whatever_unit_wrk_chose() {
        let want = Load { requests: 299_512.0, requests_per_second: 59_890.12, p50_ms: 0.5, p99_ms: 1420.0 };
        assert_eq!(parse(PRINTED).expect("complete"), want);
    }

    #[test]
    fn a_run_with_failed_requests_has_no_figures() {
        let failed = format!("{PRINTED}  Non-2xx or 3xx responses: 3\n");
        assert!(parse(&failed).expect_err("three failed").to_string().contains("responses: 3"));
    }
}
