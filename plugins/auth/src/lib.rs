//! JWT bearer tokens: the glue from callbacks to `policy.rs`.
//!
//! Keys of a JWKS document belong to the root context: it fetches them on ticks, and an exchange whose key is not there
//! pauses, brings the tick forward, and is judged by the root context when the fetch has ended. Were exchanges to make the
//! callout, its answer would be lost with the exchange that made it, and with it everyone who waits.

mod jwks;
mod keys;
mod policy;
mod settings;
mod token;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jwks::{Jwks, Unknown};
use keys::KeySet;
use plugin_common::headers::Side;
use plugin_common::{now_ns, settings as config};
use policy::{Refusal, Rules, judge};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use settings::{JwksSource, KeySource, Settings};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// Exchanges that may wait for keys at once; more are told to come back.
const MAX_WAITING: usize = 1024;

/// A JWKS document is this long at most.
const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Soon, as ticks go: what an exchange that waits for keys asks for.
const SOON: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Root {
    auth: Option<Rc<Auth>>,
}

/// What the root context and its exchanges share.
struct Auth {
    rules: Rules,
    keys: Keys,
    waiting: RefCell<Vec<u32>>,
}

enum Keys {
    Inline(KeySet),
    Fetched { from: JwksSource, jwks: RefCell<Jwks> },
}

/// What became of an exchange.
enum Outcome {
    Admitted,
    Replied,
    Waits,
}

impl Auth {
    /// Judges the exchange that is the effective context, and acts on it.
    fn decide(&self, id: u32) -> Outcome {
        let now = now_ns();
        let authorization = Side::Request.get_all("authorization");
        let judged = self.with_keys(|keys| judge(&self.rules, keys, &authorization, now / 1_000_000_000));
        match judged {
            Ok(admitted) => {
                for (name, value) in &admitted.headers {
                    match value {
                        Some(value) => Side::Request.set(name, value),
                        None => Side::Request.remove(name),
                    }
                }
                Outcome::Admitted
            }
            Err(Refusal::UnknownKey | Refusal::KeysUnavailable) if self.wait(id, now) => Outcome::Waits,
            Err(refusal) => {
                refusal.problem(&self.rules).send();
                Outcome::Replied
            }
        }
    }

    fn with_keys<T>(&self, judge: impl FnOnce(&KeySet) -> Result<T, Refusal>) -> Result<T, Refusal> {
        match &self.keys {
            Keys::Inline(keys) => judge(keys),
            Keys::Fetched { jwks, .. } => match jwks.borrow().keys() {
                Some(keys) => judge(keys),
                // A request without a token is refused for that, keys or no keys.
                None => judge(&KeySet::default())
                    .map_err(|why| if why == Refusal::UnknownKey { Refusal::KeysUnavailable } else { why }),
            },
        }
    }

    /// Puts the exchange on the waiting list when a fetch may still bring its key.
    fn wait(&self, id: u32, now: u64) -> bool {
        let Keys::Fetched { jwks, .. } = &self.keys else { return false };
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MAX_WAITING || jwks.borrow_mut().unknown_key(now) == Unknown::GiveUp {
            return false;
        }
        waiting.push(id);
        let _ok = hostcalls::set_tick_period(SOON);
        true
    }

    /// Judges everyone who waits, with whatever keys there are now.
    fn judge_waiting(&self) {
        for id in self.waiting.take() {
            // An exchange may have ended meanwhile.
            if hostcalls::set_effective_context(id).is_err() {
                continue;
            }
            if let Outcome::Admitted = self.decide(id) {
                let _ok = hostcalls::resume_http_request();
            }
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body_size: usize, _: usize) {
        let Some(auth) = &self.auth else { return };
        let Keys::Fetched { from, jwks } = &auth.keys else { return };
        let fetched = fetched_keys(self, headers, body_size);
        match &fetched {
            Ok(keys) => log::info!("{} keys from {}{}", keys.len(), from.upstream, from.path),
            Err(why) => log::warn!("no keys from {}{}: {why}", from.upstream, from.path),
        }
        let now = now_ns();
        jwks.borrow_mut().ended(fetched.ok(), now);
        let next = jwks.borrow().next_look(now);
        let _ok = hostcalls::set_tick_period(next);
        auth.judge_waiting();
    }
}

fn fetched_keys(context: &dyn Context, headers: usize, body_size: usize) -> Result<KeySet, String> {
    if headers == 0 {
        return Err("the connection broke".to_owned());
    }
    let status = context.get_http_call_response_header_bytes(":status").unwrap_or_default();
    if status != b"200" {
        return Err(format!("status {}", String::from_utf8_lossy(&status)));
    }
    if body_size > MAX_JWKS_BYTES {
        return Err(format!("{body_size} bytes are too many"));
    }
    KeySet::from_jwks(&context.get_http_call_response_body(0, body_size).unwrap_or_default())
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Some((rules, source)) = config::load(|written: Settings, _| written.checked()) else { return false };
        let keys = match source {
            KeySource::Inline(keys) => Keys::Inline(keys),
            KeySource::Fetched(from) => {
                // On a tick rather than now: Envoy configures plugins before its upstreams can be called.
                let _ok = hostcalls::set_tick_period(SOON);
                Keys::Fetched { jwks: RefCell::new(Jwks::new(from.refresh, from.timeout)), from }
            }
        };
        self.auth = Some(Rc::new(Auth { rules, keys, waiting: RefCell::default() }));
        true
    }

    fn on_tick(&mut self) {
        let Some(auth) = &self.auth else { return };
        let Keys::Fetched { from, jwks } = &auth.keys else { return };
        let now = now_ns();
        if jwks.borrow_mut().start(now) {
            let headers = vec![
                (":method", "GET"),
                (":path", &from.path),
                (":authority", &from.host),
                ("accept", "application/json"),
            ];
            if let Err(status) = hostcalls::dispatch_http_call(&from.upstream, headers, None, vec![], from.timeout) {
                log::warn!("no keys from {}{}: the call was refused: {status:?}", from.upstream, from.path);
                jwks.borrow_mut().ended(None, now);
                auth.judge_waiting();
            }
        }
        let next = jwks.borrow().next_look(now);
        let _ok = hostcalls::set_tick_period(next);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { id, auth: self.auth.clone() }))
    }
}

struct Filter {
    id: u32,
    auth: Option<Rc<Auth>>,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Without settings nobody gets in; the host should not have let a request come this far.
        let Some(auth) = &self.auth else {
            Refusal::KeysUnavailable.problem(&Rules::default()).send();
            return Action::Pause;
        };
        match auth.decide(self.id) {
            Outcome::Admitted => Action::Continue,
            Outcome::Replied | Outcome::Waits => Action::Pause,
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(auth) = &self.auth {
            auth.waiting.borrow_mut().retain(|id| *id != self.id);
        }
    }
}
