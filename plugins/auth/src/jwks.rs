//! Keys of a JWKS document: fetched at the start and every so often, and when a token names a key that is not there.
//!
//! Keys once loaded stay in use however often a later fetch fails.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use portcullis_sdk::{Host, Notify, race, secs, sleep};

use crate::keys::KeySet;
use crate::settings::JwksSource;

/// A client can ask for unknown keys as often as it likes; the issuer is asked this often at most.
const COOLDOWN: Duration = secs(10);

/// After a failed fetch.
const RETRY: Duration = secs(1);

/// Exchanges that may wait for keys at once; more are told to come back.
const MAX_WAITING: usize = 1024;

/// A JWKS document is this long at most.
const MAX_BYTES: usize = 256 * 1024;

/// The keys, and what is going on about them.
#[derive(Default)]
pub(crate) struct Jwks {
    keys: RefCell<Option<Rc<KeySet>>>,
    fetch: Cell<Fetch>,
    /// Told when a fetch has ended.
    fetched: Notify,
    /// Told when somebody wants one.
    wanted: Notify,
    waiting: Cell<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fetch {
    /// One is on its way, or about to be.
    #[default]
    Runs,
    /// The last one ended too short a while ago.
    Rests,
    /// Another one may be asked for.
    MayRun,
}

impl Jwks {
    /// Begins to fetch keys, and goes on doing so.
    pub(crate) fn keep(source: JwksSource, host: &Host) -> Rc<Self> {
        let jwks = Rc::new(Self::default());
        let kept = Rc::clone(&jwks);
        host.spawn(async move {
            loop {
                kept.run(&source).await;
            }
        });
        jwks
    }

    /// One fetch, and the wait for the next.
    async fn run(&self, source: &JwksSource) {
        let fetched = fetch(source).await;
        let pause = if fetched.is_ok() { source.refresh } else { RETRY };
        match fetched {
            Ok(keys) => {
                log::info!("{} keys from {}{}", keys.len(), source.upstream, source.path);
                self.keys.replace(Some(Rc::new(keys.with_host(crate::verify_signature))));
            }
            Err(why) => log::warn!("no keys from {}{}: {why}", source.upstream, source.path),
        }
        self.fetch.set(Fetch::Rests);
        self.fetched.notify_all();
        let rest = if self.keys.borrow().is_some() { COOLDOWN } else { RETRY };
        race(sleep(pause), async {
            sleep(rest).await;
            self.fetch.set(Fetch::MayRun);
            self.wanted.notified().await;
        })
        .await;
        self.fetch.set(Fetch::Runs);
    }

    /// The keys of the last fetch that brought any.
    pub(crate) fn keys(&self) -> Option<Rc<KeySet>> {
        self.keys.borrow().clone()
    }

    /// Waits for a fetch that may bring a key which is not there. Whether there was one.
    pub(crate) async fn wait(&self) -> bool {
        if self.fetch.get() == Fetch::Rests || self.waiting.get() >= MAX_WAITING {
            return false;
        }
        self.waiting.set(self.waiting.get() + 1);
        let _no_more = Waits(&self.waiting);
        self.wanted.notify_all();
        self.fetched.notified().await;
        true
    }
}

/// One who waits, for as long as it does.
struct Waits<'a>(&'a Cell<usize>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn fetch(source: &JwksSource) -> Result<KeySet, String> {
    let call = source.upstream.get(source.path.as_str()).authority(source.host.as_str()).timeout(source.timeout);
    let reply = call.header("accept", "application/json").limit(MAX_BYTES).send().await;
    KeySet::from_jwks(reply.map_err(|why| why.to_string())?.body())
}

#[cfg(test)]
mod tests;
