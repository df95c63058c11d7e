//! Tokens that only their issuer can read: what it says of them (RFC 7662), and for how long that counts.
//!
//! However many requests wait with one token, the issuer is asked once. What is kept are hashes: a token is worth as much as a
//! password.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Host, Notify};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::settings::IntrospectionSource;
use crate::token::Token;

/// Calls under way at once; requests with further tokens are told to come back.
const MAX_CALLS: usize = 128;

/// An answer is this long at most.
const MAX_BYTES: usize = 64 * 1024;

/// Good and bad tokens known at once, each; and of what a good one's answer may have, to be kept. A longer one is asked for again.
const MAX_KNOWN: usize = 512;
const MAX_KNOWN_BYTES: usize = 4096;

type Hash = [u8; 32];

/// What an issuer says of a token.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Active(Rc<Said>),
    Inactive,
}

/// What is said of a token that is active.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) claims: Map<String, Value>,
    /// What it comes to here; known once a request has been judged by it.
    pub(crate) token: OnceCell<Rc<Token>>,
}

/// Who is asked, and what was answered.
pub(crate) struct Introspection {
    source: IntrospectionSource,
    host: Host,
    known: RefCell<Known>,
    flights: RefCell<HashMap<Hash, Rc<Flight>>>,
    /// Calls that were answered, and those that were not.
    counters: [Counter; 2],
}

/// A call under way.
#[derive(Default)]
struct Flight {
    landed: Notify,
    outcome: RefCell<Outcome>,
}

/// What became of a call.
#[derive(Clone, Default)]
enum Outcome {
    /// Whoever made it has gone; another one of those who wait makes it again.
    #[default]
    GivenUp,
    Over(Option<Answer>),
}

impl Introspection {
    pub(crate) fn new(source: IntrospectionSource, host: &Host) -> Self {
        let counters = ["auth_introspections.ok", "auth_introspections.failed"].map(|name| host.counter(name));
        let (known, flights) = (RefCell::default(), RefCell::default());
        Self { source, host: host.clone(), known, flights, counters }
    }

    /// What was said of a token, if that still counts.
    pub(crate) fn known(&self, token: &str, now_s: u64) -> Option<Answer> {
        self.known.borrow().get(&hash(token), now_s)
    }

    /// Asks, or waits with whoever has asked already; nothing where there is no answer to be had.
    pub(crate) async fn ask(&self, token: &str) -> Option<Answer> {
        let key = hash(token);
        loop {
            let Some(flight) = self.flights.borrow().get(&key).cloned() else { break };
            flight.landed.notified().await;
            if let Outcome::Over(answer) = &*flight.outcome.borrow() {
                return answer.clone();
            }
        }
        if self.flights.borrow().len() >= MAX_CALLS {
            return None;
        }
        let flight = Rc::<Flight>::default();
        self.flights.borrow_mut().insert(key, Rc::clone(&flight));
        let _lands = Lands { of: self, key };
        let answer = self.call(token, key).await;
        flight.outcome.replace(Outcome::Over(answer.clone()));
        answer
    }

    async fn call(&self, token: &str, key: Hash) -> Option<Answer> {
        let [good, bad] = &self.counters;
        let source = &self.source;
        let form = format!("token={}&token_type_hint=access_token{}", form_encoded(token), source.form);
        let mut call = source.upstream.post(source.path.as_str(), form).authority(source.host.as_str());
        if let Some(authorization) = &source.authorization {
            call = call.header("authorization", authorization);
        }
        call = call.header("content-type", "application/x-www-form-urlencoded").header("accept", "application/json");
        let reply = call.timeout(source.timeout).limit(MAX_BYTES).send().await;
        let read =
            reply.map_err(|why| why.to_string()).and_then(|reply| Ok((answer(reply.body())?, reply.body().len())));
        match read {
            Ok((answer, bytes)) => {
                good.increment();
                let now_s = crate::now_s(&self.host);
                if let Some(until_s) = self.counts_until(&answer, bytes, now_s) {
                    self.known.borrow_mut().put(key, answer.clone(), until_s, now_s);
                }
                Some(answer)
            }
            Err(why) => {
                bad.increment();
                log::warn!("no introspection by {}{}: {why}", source.upstream, source.path);
                None
            }
        }
    }

    /// Until when an answer is good; nothing where it is only now.
    fn counts_until(&self, answer: &Answer, bytes: usize, now_s: u64) -> Option<u64> {
        let until_s = match answer {
            Answer::Inactive => now_s.saturating_add(self.source.negative_cache_s),
            Answer::Active(_) if bytes > MAX_KNOWN_BYTES => return None,
            Answer::Active(said) => {
                let expires = said.claims.get("exp").and_then(Value::as_u64).unwrap_or(u64::MAX);
                now_s.saturating_add(self.source.cache_s).min(expires)
            }
        };
        (until_s > now_s).then_some(until_s)
    }
}

/// Ends a flight, however it ends.
struct Lands<'a> {
    of: &'a Introspection,
    key: Hash,
}

impl Drop for Lands<'_> {
    fn drop(&mut self) {
        if let Some(flight) = self.of.flights.borrow_mut().remove(&self.key) {
            flight.landed.notify_all();
        }
    }
}

/// Answers that still count. Good and bad ones have their own room: guesses do not drive out what is right.
#[derive(Default)]
struct Known {
    active: HashMap<Hash, (Rc<Said>, u64)>,
    inactive: HashMap<Hash, u64>,
}

impl Known {
    fn get(&self, key: &Hash, now_s: u64) -> Option<Answer> {
        let active = self.active.get(key).filter(|(_, until_s)| now_s < *until_s);
        let active = active.map(|(said, _)| Answer::Active(Rc::clone(said)));
        active.or_else(|| self.inactive.get(key).filter(|until_s| now_s < **until_s).map(|_| Answer::Inactive))
    }

    fn put(&mut self, key: Hash, answer: Answer, until_s: u64, now_s: u64) {
        match answer {
            Answer::Active(said) => {
                make_room(&mut self.active, |(_, until_s)| now_s < *until_s);
                self.active.insert(key, (said, until_s));
                self.inactive.remove(&key);
            }
            Answer::Inactive => {
                make_room(&mut self.inactive, |until_s| now_s < *until_s);
                self.inactive.insert(key, until_s);
                self.active.remove(&key);
            }
        }
    }
}

/// Room for one more: what counts no more goes first, and if that is nothing, everything.
fn make_room<T>(known: &mut HashMap<Hash, T>, counts: impl Fn(&T) -> bool) {
    if known.len() >= MAX_KNOWN {
        known.retain(|_, one| counts(one));
    }
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, for the log.
fn answer(body: &[u8]) -> Result<Answer, String> {
    let claims: Map<String, Value> =
        serde_json::from_slice(body).map_err(|why| format!("the answer is no JSON object: {why}"))?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Answer::Active(Rc::new(Said { claims, token: OnceCell::new() }))),
        Some(Value::Bool(false)) => Ok(Answer::Inactive),
        _ => Err("the answer does not say whether the token is `active`".to_owned()),
    }
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// As forms have it (`application/x-www-form-urlencoded`).
pub(crate) fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
