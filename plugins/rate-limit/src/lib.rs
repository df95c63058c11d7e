//! Token buckets in shared data: the glue from callbacks to `policy.rs`.
//!
//! A request whose header or claim is missing counts against its client's address, so that leaving the key out is no way
//! around the limit.

mod key;
mod policy;
mod settings;

use std::rc::Rc;

use key::{bucket_name, claim_of};
use plugin_common::headers::Side;
use plugin_common::{now_ns, settings as config};
use policy::{Standing, Verdict, host_of, refusal};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use settings::{Key, Limit, Settings};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { limit: None }));
}}

/// Each lost race means that another request got through, so on as many workers as a machine has, this many are never lost
/// in a row by chance.
const MAX_TRIES: usize = 32;

struct Root {
    limit: Option<Rc<Limit>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let limit = config::load(|written: Settings, bytes| written.checked(bytes));
        self.limit = limit.map(Rc::new);
        self.limit.is_some()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { limit: self.limit.clone(), standing: None }))
    }
}

struct Filter {
    limit: Option<Rc<Limit>>,
    standing: Option<Standing>,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(limit) = &self.limit else { return Action::Continue };
        let bucket = format!("{}{}", limit.namespace, limit.key.bucket());
        match take(limit, &bucket) {
            Some(Verdict::Pass { standing, .. }) => {
                self.standing = Some(standing);
                Action::Continue
            }
            Some(Verdict::Refuse { retry_s, standing }) => {
                self.standing = Some(standing);
                refusal(retry_s).send();
                Action::Pause
            }
            None => Action::Continue,
        }
    }

    /// Runs for this filter's own 429 as well.
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let (Some(limit), Some(standing)) = (&self.limit, self.standing) {
            Side::Response.set("ratelimit-policy", limit.bucket.policy_header());
            Side::Response.set("ratelimit", standing.header());
        }
        Action::Continue
    }
}

/// Takes a token from a bucket in the shared data.
///
/// `None` when the store would not take the new state however often it was tried. Then requests pass: a store that is full
/// or broken must not lock out every client, and the gateway's own limits still hold.
fn take(limit: &Limit, bucket: &str) -> Option<Verdict> {
    let now = now_ns();
    for _ in 0..MAX_TRIES {
        let (stored, cas) = hostcalls::get_shared_data(bucket).unwrap_or_default();
        let verdict = limit.bucket.take(stored.as_deref(), now);
        let Verdict::Pass { store, .. } = verdict else { return Some(verdict) };
        if hostcalls::set_shared_data(bucket, Some(&store), cas).is_ok() {
            return Some(verdict);
        }
    }
    log::warn!("the shared data did not take a bucket in {MAX_TRIES} tries; the request passes");
    None
}

impl Key {
    /// The bucket of the running request.
    fn bucket(&self) -> String {
        let named = match self {
            Self::ClientAddress => None,
            Self::Header(name) => Side::Request.get(name).map(|value| bucket_name("header", &value)),
            Self::Claim(name) => Side::Request
                .get("authorization")
                .and_then(|authorization| claim_of(&authorization, name))
                .map(|value| bucket_name("claim", value.as_bytes())),
        };
        named.unwrap_or_else(|| {
            let address = hostcalls::get_property(vec!["source", "address"]).ok().flatten().unwrap_or_default();
            bucket_name("address", host_of(&String::from_utf8_lossy(&address)).as_bytes())
        })
    }
}
