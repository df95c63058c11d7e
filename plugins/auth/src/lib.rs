//! Who sends a request, and what they may: tokens, API keys, passwords and client certificates.

mod access;
mod claims;
mod consumers;
mod credentials;
mod discovery;
mod foreign;
mod jwks;
mod keys;
mod password;
mod policy;
mod refusal;
mod settings;
mod token;

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Filter, Host, Next, Request, Response, StartError, property};

use credentials::Credentials;
use jwks::Jwks;
use keys::KeySet;
use policy::{By, Evidence, Judged, Policy};
use refusal::Refusal;
use settings::{KeySource, Settings};

struct Auth {
    policy: Policy,
    keys: Keys,
    host: Host,
    admitted: Vec<(By, Counter)>,
}

enum Keys {
    Inline(KeySet),
    Fetched(Rc<Jwks>),
}

impl Filter for Auth {
    type Config = Settings;
    const PROVIDES: &'static [&'static str] = &["identity"];

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let (policy, source) = settings.checked()?;
        let keys = match source {
            KeySource::Inline(keys) => Keys::Inline(keys.with_host(verify_signature)),
            KeySource::Fetched(source) => Keys::Fetched(Jwks::keep(source, host)),
        };
        let counter = |by: By| (by, host.counter(&format!("auth_admitted.{}", by.word())));
        Ok(Self { policy, keys, admitted: By::ALL.map(counter).into(), host: host.clone() })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let credentials = Credentials::new(request.headers().all());
        let mut judged = self.judge(&credentials);
        if let (Err(Refusal::UnknownKey | Refusal::KeysUnavailable | Refusal::KeysStale), Keys::Fetched(jwks)) =
            (&judged.outcome, &self.keys)
            && jwks.wait().await
        {
            judged = self.judge(&credentials);
        }
        self.count(&judged);
        match judged.outcome {
            Ok(admitted) => {
                admitted.apply(&mut request);
                next.run(request).await
            }
            Err(refusal) => self.policy.reply(refusal, &judged.scopes),
        }
    }
}

portcullis_sdk::export_filter!(Auth);

/// The time as tokens tell it: seconds since 1970.
fn now_s(host: &Host) -> u64 {
    host.now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn verify_signature(call: &[u8]) -> Option<Vec<u8>> {
    portcullis_sdk::foreign::call("verify_signature", call)
}

impl Auth {
    fn judge(&self, credentials: &Credentials) -> Judged {
        let now_s = now_s(&self.host);
        let connection = |name: &str| property::get(&["connection", name]).filter(|value: &String| !value.is_empty());
        let judge = |keys: &KeySet| self.policy.judge(&Evidence { credentials, keys, connection: &connection, now_s });
        match &self.keys {
            Keys::Inline(keys) => judge(keys),
            Keys::Fetched(jwks) => match jwks.keys(now_s) {
                Ok(keys) => judge(&keys),
                // A request without a token is refused for that, keys or no keys.
                Err(why_not) => {
                    let judged = judge(&KeySet::default());
                    let known = |why| if why == Refusal::UnknownKey { why_not } else { why };
                    Judged { outcome: judged.outcome.map_err(known), ..judged }
                }
            },
        }
    }

    /// Counts a decision: by the scheme, of which there are five, and a refusal by its code too, of which there are two dozen.
    fn count(&self, judged: &Judged) {
        match judged.outcome {
            Ok(_) => self.admitted.iter().filter(|(by, _)| *by == judged.by).for_each(|(_, count)| count.increment()),
            Err(refusal) => {
                let (_, code, _) = refusal.words();
                self.host.counter(&format!("auth_refused.{}.{code}", judged.by.word())).increment();
            }
        }
    }
}
