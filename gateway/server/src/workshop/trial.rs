//! A module tried by cases, in the gateway's own core or on a real Envoy.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use portcullis_core::limits::Limits;
use portcullis_module::Outline;
use portcullis_simulation::{Call, Outcome};
use portcullis_vm::{Engine, EngineOptions};

use super::cases::{self, Case, Suite};
use super::envoy::Envoy;
use super::stage::{self, Stage};

/// Where cases are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// In the gateway's own core
    Portcullis,
    /// In an Envoy of its own for each case
    Envoy,
    /// On one, then on the other
    Both,
}

/// Tries every case, and says how each went.
pub(crate) fn try_cases(
    file: &Path,
    cases: &Path,
    on: On,
    envoy: Option<PathBuf>,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let shown = file.display();
    let wasm =
        std::fs::read(file).with_context(|| format!("cannot read {shown}; `portcullis plugin build` makes it"))?;
    let suite = cases::read(cases)?;
    let holds =
        Outline::of(&wasm).with_context(|| shown.to_string())?.manifest.is_some_and(|manifest| manifest.holds_headers);
    let mut failed = 0;
    if on != On::Envoy {
        let engine = Engine::new(EngineOptions { max_vms: 2, ..EngineOptions::default() })?;
        let stage = Stage::new(engine, &shown.to_string(), &wasm, holds)?;
        failed += try_each(&suite, "Portcullis", |case| outcome(&stage, &suite, case), out)?;
    }
    if on != On::Portcullis {
        let envoy = Envoy::with(envoy, file, holds)?;
        failed += try_each(&suite, "Envoy", |case| envoy.outcome(&suite, case), out)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries every case on one host; how many fail.
fn try_each(
    suite: &Suite,
    host: &str,
    outcome: impl Fn(&Case) -> anyhow::Result<(Outcome, Vec<Call>)>,
    out: &mut impl Write,
) -> anyhow::Result<usize> {
    let mut failed = 0;
    for case in &suite.cases {
        let wrong = match outcome(case) {
            Ok((outcome, calls)) => explained(case.expect.differences(&outcome, &calls), &outcome),
            Err(why) => vec![format!("+ {why:#}")],
        };
        writeln!(out, "{}  {}", if wrong.is_empty() { "ok  " } else { "FAIL" }, case.name)?;
        wrong.iter().flat_map(|lines| lines.lines()).try_for_each(|line| writeln!(out, "      {line}"))?;
        failed += usize::from(!wrong.is_empty());
    }
    writeln!(out, "{} passed, {failed} failed, on {host}", suite.cases.len() - failed)?;
    Ok(failed)
}

/// With what may say why: how the exchange ended, and what was logged.
fn explained(mut wrong: Vec<String>, outcome: &Outcome) -> Vec<String> {
    const MOST_LINES: usize = 20;
    if !wrong.is_empty() {
        let details = outcome.details.as_str();
        if !details.is_empty() && details != "via_upstream" {
            wrong.push(format!("  details: {details}{}", remedy(details)));
        }
        wrong.extend(outcome.log.iter().rev().take(MOST_LINES).rev().map(|line| format!("  log: {line}")));
    }
    wrong
}

/// What an author can do about an end that the filter has brought about without saying so.
fn remedy(details: &str) -> String {
    let side = match details {
        "request_too_large" => "request",
        "response_too_large" => "response",
        _ => return String::new(),
    };
    let most = Limits::DEFAULT.held_bytes;
    format!(
        ": the filter holds more of the {side}'s body than the {most} bytes a gateway keeps; let it stream by with `map_chunks`"
    )
}

/// What becomes of a case's request, in a VM of its own, and the calls that are made for it.
fn outcome(stage: &Stage, suite: &Suite, case: &Case) -> anyhow::Result<(Outcome, Vec<Call>)> {
    stage::hear(|| {
        let mut gateway = stage.set(suite, case, std::convert::identity)?;
        let outcome = gateway.send(&[case.request.request()]).pop().unwrap_or_default();
        Ok((outcome, gateway.take_calls()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_the_filter_holds_and_the_gateway_does_not_is_explained() {
        let outcome = Outcome { details: "request_too_large".to_owned(), ..Outcome::default() };
        let lines = explained(vec!["- status: 200".to_owned()], &outcome);
        let why = "  details: request_too_large: the filter holds more of the request's body than the 1048576 bytes a gateway keeps; \
                   let it stream by with `map_chunks`";
        assert_eq!(lines, ["- status: 200", why]);
        assert_eq!(explained(Vec::new(), &outcome), [""; 0]);
    }
}
