//! Who sends a request, and what they may: tokens, API keys, passwords and client certificates.

mod access;
mod claims;
mod consumers;
mod credentials;
mod der;
mod discovery;
mod expression;
mod foreign;
mod identity;
mod introspection;
mod jwks;
mod keys;
mod password;
mod pem;
mod policy;
mod refusal;
mod rsa;
mod settings;
mod signature;
mod token;

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Filter, Host, Next, Request, Response, StartError, property};

use credentials::Credentials;
use foreign::VerifySignature;
use introspection::{Answer, Introspection};
use jwks::Jwks;
use keys::KeySet;
use policy::{By, Evidence, Judged, Policy};
use refusal::Refusal;
use settings::{Checked, KeySource, Settings};

struct Auth {
    policy: Policy,
    keys: Keys,
    introspection: Option<Introspection>,
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
        let Checked { policy, keys, introspection } = settings.checked(&verify_signature())?;
        let keys = match keys {
            KeySource::Inline(keys) => Keys::Inline(keys),
            KeySource::Fetched(source) => Keys::Fetched(Jwks::keep(source, host)),
        };
        let counter = |by: By| (by, host.counter(&format!("auth_admitted.{}", by.word())));
        let introspection = introspection.map(|source| Introspection::new(source, host));
        Ok(Self { policy, keys, introspection, admitted: By::ALL.map(counter).into(), host: host.clone() })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let credentials = Credentials::new(request.headers().list());
        let mut judged = self.judge(&credentials, None);
        if let Err(refusal) = judged.outcome
            && let Some(news) = self.news(refusal, &credentials).await
        {
            judged = self.judge(&credentials, Some(news));
        }
        self.count(&judged);
        match judged.outcome {
            Ok(admitted) => {
                self.policy.apply(&admitted, &mut request);
                // What is not needed any more is not held while the upstream works.
                drop((credentials, admitted));
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

fn verify_signature() -> VerifySignature {
    VerifySignature::new(|call| portcullis_sdk::foreign::call("verify_signature", call))
}

/// Something that was not known when a request was judged first.
enum News {
    /// There may be other keys.
    Keys,
    /// What is said of its token.
    Answer(Answer),
}

impl Auth {
    /// Waits for what may turn a refusal into an admission, if there is anything.
    async fn news(&self, refusal: Refusal, credentials: &Credentials) -> Option<News> {
        match (refusal, &self.keys, &self.introspection) {
            (Refusal::UnknownKey | Refusal::KeysUnavailable | Refusal::KeysStale, Keys::Fetched(jwks), _) => {
                jwks.wait().await.then_some(News::Keys)
            }
            (Refusal::IntrospectionUnavailable, _, Some(introspection)) => {
                let token = self.policy.opaque_token(credentials)?;
                introspection.ask(&token).await.map(News::Answer)
            }
            _ => None,
        }
    }

    fn judge(&self, credentials: &Credentials, news: Option<News>) -> Judged {
        let now_s = now_s(&self.host);
        let connection = |name: &str| property::get(&["connection", name]).filter(|value: &String| !value.is_empty());
        let answer = |token: &str| match (&news, &self.introspection) {
            (Some(News::Answer(answer)), _) => Some(answer.clone()),
            (Some(News::Keys) | None, Some(introspection)) => introspection.known(token, now_s),
            (Some(News::Keys) | None, None) => None,
        };
        let judge = |keys: &KeySet| {
            self.policy.judge(&Evidence { credentials, keys, answer: &answer, connection: &connection, now_s })
        };
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

    /// Counts a decision: by the scheme, of which there are six, and a refusal by its code too, of which there are two dozen.
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
