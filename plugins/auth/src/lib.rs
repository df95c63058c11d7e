//! JWT bearer tokens: keys of the settings, or of a JWKS document that is fetched.

mod jwks;
mod keys;
mod policy;
mod settings;
mod token;

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use portcullis_sdk::{Filter, Host, Next, Request, Response, StartError};

use jwks::Jwks;
use keys::KeySet;
use policy::{Admitted, Refusal, Rules, judge};
use settings::{KeySource, Settings};

struct Auth {
    rules: Rules,
    keys: Keys,
    host: Host,
}

enum Keys {
    Inline(KeySet),
    Fetched(Rc<Jwks>),
}

impl Filter for Auth {
    type Config = Settings;
    const PROVIDES: &'static [&'static str] = &["identity"];

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        let (rules, source) = settings.checked()?;
        let keys = match source {
            KeySource::Inline(keys) => Keys::Inline(keys),
            KeySource::Fetched(source) => Keys::Fetched(Jwks::keep(source, host)),
        };
        Ok(Self { rules, keys, host: host.clone() })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let mut judged = self.judge(&request);
        if let (Err(Refusal::UnknownKey | Refusal::KeysUnavailable), Keys::Fetched(jwks)) = (&judged, &self.keys)
            && jwks.wait().await
        {
            judged = self.judge(&request);
        }
        match judged {
            Ok(admitted) => {
                admitted.apply(&mut request);
                next.run(request).await
            }
            Err(refusal) => refusal.reply(&self.rules),
        }
    }
}

portcullis_sdk::export_filter!(Auth);

impl Auth {
    fn judge(&self, request: &Request) -> Result<Admitted, Refusal> {
        let authorization = request.headers().get_all("authorization");
        let now = self.host.now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let judge = |keys: &KeySet| judge(&self.rules, keys, &authorization, now);
        match &self.keys {
            Keys::Inline(keys) => judge(keys),
            Keys::Fetched(jwks) => match jwks.keys() {
                Some(keys) => judge(&keys),
                // A request without a token is refused for that, keys or no keys.
                None => judge(&KeySet::default())
                    .map_err(|why| if why == Refusal::UnknownKey { Refusal::KeysUnavailable } else { why }),
            },
        }
    }
}
