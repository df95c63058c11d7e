//! `/v1/rollouts`: how the roll-outs of plugins' next versions stand, and their end when somebody says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use portcullis_core::rollout::{Rollout, State};
use portcullis_core::time::Time;
use serde_json::{Value, json};

use super::access::{self, Refusal, Via};
use super::{AdminState, JSON, problem, response, wrong_method};
use crate::clock;

/// Answers a request for what is below `/v1/rollouts`.
pub(super) fn answer(
    (method, path, query): (&Method, &str, &str),
    state: &AdminState,
    via: &Via,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    Ok(match (method, parts.as_slice()) {
        (&Method::GET | &Method::HEAD, []) => {
            let all: Vec<Value> = state.shown.borrow().rollouts.iter().map(|rollout| described(rollout)).collect();
            response(StatusCode::OK, JSON, format!("{:#}\n", json!({ "rollouts": all })))
        }
        (_, []) => wrong_method("GET, HEAD"),
        (&Method::POST, [plugin, "abort"]) => tell((plugin, query), State::Aborted, state, via)?,
        (&Method::POST, [plugin, "promote"]) => tell((plugin, query), State::Promoted, state, via)?,
        (_, [_, "abort" | "promote"]) => wrong_method("POST"),
        _ => problem(StatusCode::NOT_FOUND, "not_found", "There is no such page"),
    })
}

/// Decides about a roll-out, whatever was decided before.
fn tell(
    (plugin, query): (&str, &str),
    what: State,
    state: &AdminState,
    via: &Via,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let shown = state.shown.borrow();
    access::may_change(shown.admin.as_ref(), via)?;
    let tenant = match query.strip_prefix("tenant=") {
        Some(tenant) if !tenant.contains('&') => tenant,
        None if query.is_empty() => "",
        // Whoever asks for a dry run does not want it done.
        Some(_) | None => {
            return Ok(problem(StatusCode::BAD_REQUEST, "bad_query", "Ask for ?tenant=NAME, and for nothing else"));
        }
    };
    let is_meant =
        |rollout: &&Arc<Rollout>| &*rollout.plugin == plugin && rollout.tenant.as_deref().unwrap_or_default() == tenant;
    let Some(rollout) = shown.rollouts.iter().find(is_meant) else {
        return Ok(problem(StatusCode::NOT_FOUND, "no_rollout", "There is no roll-out of such a plugin"));
    };
    rollout.tell(what, &via.who, clock::now());
    tracing::info!(target: "portcullis::audit", tenant, plugin, who = via.who, "roll-out {}", what.as_str());
    if let Err(error) = state.decisions.keep(rollout) {
        tracing::error!(plugin, tenant, %error, "this will be forgotten with the next start");
        let title = "It holds now, and could not be kept for the next start: see the log";
        return Ok(problem(StatusCode::INTERNAL_SERVER_ERROR, "not_stored", title));
    }
    Ok(response(StatusCode::OK, JSON, format!("{:#}\n", described(rollout))))
}

fn described(rollout: &Rollout) -> Value {
    let counts = rollout.counts();
    let [current, candidate] = counts.exchanges;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let [agreed, disagreed, incomplete] = counts.shadows;
    let [current_p99, candidate_p99] = counts.p99.map(|p99| p99.map(micros));
    let decided =
        rollout.decision().map(|decision| json!({ "at": seconds(decision.at), "why": decision.why.to_string() }));
    json!({
        "plugin": &*rollout.plugin,
        "tenant": rollout.tenant.as_deref(),
        "state": rollout.state().as_str(),
        "began": seconds(rollout.began),
        "decided": decided,
        "exchanges": { "current": current, "candidate": candidate },
        "traps": counts.traps,
        "no_room": counts.no_room,
        "shadows": { "agreed": agreed, "disagreed": disagreed, "incomplete": incomplete },
        "p99_us": { "current": current_p99, "candidate": candidate_p99 },
    })
}

fn seconds(time: Time) -> u64 {
    time.as_nanos() / 1_000_000_000
}
