//! Token buckets in shared data.
//!
//! A request whose header or claim is missing counts against its client's address, so that leaving the key out is no way
//! around the limit.

mod key;
mod policy;
mod settings;

use std::time::{Duration, UNIX_EPOCH};

use portcullis_sdk::shared::Cell;
use portcullis_sdk::{Filter, Host, Next, Request, Response, StartError};

use policy::{Verdict, refusal};
use settings::{Limit, Settings};

struct RateLimit {
    limit: Limit,
    host: Host,
}

impl Filter for RateLimit {
    type Config = Settings;

    async fn start(settings: Settings, host: &Host) -> Result<Self, StartError> {
        Ok(Self { limit: settings.checked()?, host: host.clone() })
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let verdict = self.take(&self.limit.key.bucket(&request));
        let (mut response, standing) = match verdict {
            Some(Verdict::Refuse { retry_s, standing }) => (refusal(retry_s), standing),
            Some(Verdict::Pass { standing, .. }) => (next.run(request).await, standing),
            None => return next.run(request).await,
        };
        let mut headers = response.headers_mut();
        headers.set("ratelimit-policy", self.limit.bucket.policy_header());
        headers.set("ratelimit", standing.header());
        response
    }
}

portcullis_sdk::export_filter!(RateLimit);

impl RateLimit {
    /// Takes a token from a bucket in the shared data.
    ///
    /// `None` when the store would not take the new state however often it was tried. Then requests pass: a store that is full
    /// or broken must not lock out every client, and the gateway's own limits still hold.
    fn take(&self, bucket: &str) -> Option<Verdict> {
        let since_epoch = self.host.now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_nanos);
        let now = u64::try_from(since_epoch).unwrap_or(u64::MAX);
        let mut verdict = None;
        let stored = Cell::<[u8; 8]>::new(format!("{}{bucket}", self.limit.namespace)).update(|state| {
            let taken = self.limit.bucket.take(state.as_ref().map(<[u8; 8]>::as_slice), now);
            verdict = Some(taken);
            match taken {
                Verdict::Pass { store, .. } => Some(store),
                Verdict::Refuse { .. } => None,
            }
        });
        match stored {
            Ok(_) => verdict,
            Err(why) => {
                log::warn!("a bucket was not stored, and the request passes: {why}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
