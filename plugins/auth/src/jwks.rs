//! Keys of a JWKS document: fetched at the start and every so often, and when a token names a key that is not there.
//!
//! Where the document is, the settings say, or the issuer does. While it cannot be had, the keys of the last one stay in use for
//! as long as the settings allow.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Callout, Host, Notify, race, secs, sleep};

use crate::keys::{Algorithms, KeySet};
use crate::refusal::Refusal;
use crate::settings::{JwksPlace, JwksSource};

/// A client can ask for unknown keys as often as it likes; the issuer is asked this often at most.
const COOLDOWN: Duration = secs(10);

/// After a failed fetch; twice as long after each further one.
const RETRY: Duration = secs(1);
const MAX_RETRY: Duration = secs(30);

/// Exchanges that may wait for keys at once; more are told to come back.
const MAX_WAITING: usize = 1024;

/// A JWKS document, or an issuer's metadata, is this long at most.
const MAX_BYTES: usize = 256 * 1024;

/// The keys, and what is going on about them.
pub(crate) struct Jwks {
    source: JwksSource,
    keys: RefCell<Option<Held>>,
    fetch: Cell<Fetch>,
    /// Told when a fetch has ended.
    fetched: Notify,
    /// Told when somebody wants one.
    wanted: Notify,
    waiting: Cell<usize>,
    /// Fetches that brought keys, and those that did not.
    counters: [Counter; 2],
}

/// The keys of the last document.
struct Held {
    document: Document,
    keys: Rc<KeySet>,
    /// After this second they are too old, whatever happens.
    good_until_s: u64,
}

/// All that keys are made of.
#[derive(PartialEq, Eq)]
struct Document {
    jwks: Vec<u8>,
    algorithms: Algorithms,
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
        let jwks = Rc::new(Self {
            source,
            keys: RefCell::default(),
            fetch: Cell::default(),
            fetched: Notify::default(),
            wanted: Notify::default(),
            waiting: Cell::default(),
            counters: ["auth_key_fetches.ok", "auth_key_fetches.failed"].map(|name| host.counter(name)),
        });
        let (kept, host_kept) = (Rc::clone(&jwks), host.clone());
        host.spawn(async move {
            let mut failures = 0;
            loop {
                failures = kept.run(&host_kept, failures).await;
            }
        });
        jwks
    }

    /// One fetch, after so many that failed, and the wait for the next. How many have failed by then.
    async fn run(&self, host: &Host, failures: u32) -> u32 {
        let [good, bad] = &self.counters;
        let fetched = self.source.fetch().await.and_then(|document| self.take(document, crate::now_s(host)));
        let (failures, pause) = match fetched {
            Ok(()) => {
                good.increment();
                (0, self.source.refresh)
            }
            Err(why) => {
                bad.increment();
                log::warn!("no keys from {}: {why}", self.source);
                (failures.saturating_add(1), RETRY.saturating_mul(1 << failures.min(5)).min(MAX_RETRY))
            }
        };
        self.fetch.set(Fetch::Rests);
        self.fetched.notify_all();
        let rest = if self.keys(crate::now_s(host)).is_ok() { COOLDOWN } else { RETRY };
        race(sleep(pause), async {
            sleep(rest).await;
            self.fetch.set(Fetch::MayRun);
            self.wanted.notified().await;
        })
        .await;
        self.fetch.set(Fetch::Runs);
        failures
    }

    /// Puts the keys of this document to use. With the same document the same keys stay, and with them the tokens that passed.
    fn take(&self, document: Document, now_s: u64) -> Result<(), String> {
        let good_until_s = now_s.saturating_add((self.source.refresh + self.source.stale_if_error).as_secs());
        let mut held = self.keys.borrow_mut();
        if let Some(held) = held.as_mut().filter(|held| held.document == document) {
            held.good_until_s = good_until_s;
            return Ok(());
        }
        let keys = KeySet::from_jwks(&document.jwks, &document.algorithms, crate::verify_signature())?;
        log::info!("{} keys from {}", keys.len(), self.source);
        *held = Some(Held { document, keys: Rc::new(keys), good_until_s });
        Ok(())
    }

    /// The keys of the last fetch that brought any.
    ///
    /// # Errors
    /// There are none, or they are too old.
    pub(crate) fn keys(&self, now_s: u64) -> Result<Rc<KeySet>, Refusal> {
        match &*self.keys.borrow() {
            Some(held) if now_s <= held.good_until_s => Ok(Rc::clone(&held.keys)),
            Some(_) => Err(Refusal::KeysStale),
            None => Err(Refusal::KeysUnavailable),
        }
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

impl JwksSource {
    async fn fetch(&self) -> Result<Document, String> {
        let (path, offered) = match &self.place {
            JwksPlace::Path(path) => (path.clone(), Vec::new()),
            JwksPlace::Discovered(issuer) => {
                let reply = self.call(issuer.document_path()).send().await.map_err(|why| why.to_string())?;
                let metadata = issuer.metadata(reply.body(), &self.host)?;
                (metadata.jwks_path, metadata.algorithms)
            }
        };
        let reply = self.call(path).send().await.map_err(|why| why.to_string())?;
        Ok(Document { jwks: reply.into_body(), algorithms: Algorithms { offered, ..self.algorithms.clone() } })
    }

    fn call(&self, path: String) -> Callout {
        let call = self.upstream.get(path).authority(self.host.as_str()).timeout(self.timeout);
        call.header("accept", "application/json").limit(MAX_BYTES)
    }
}

#[cfg(test)]
mod tests;
