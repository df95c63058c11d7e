//! Modules that lie elsewhere: in registries and on web servers. They are fetched while a configuration is read, before any request
//! can see them, and kept by their digest.
//!
//! `reference` says what may be written, `fetch` and `oci` ask others, `cache` keeps what came, `signature` says who has
//! made it, `lock` holds references to what they stood for. Which tenant may fetch what, and whose signature it needs, is decided in
//! `config::check`. **Invariants:** nothing is fetched on a worker; what a digest, a lock file or an earlier answer names is not asked
//! for again; a module is used only if it has the digest that it was asked for by.

mod cache;
pub(crate) mod fetch;
mod image;
pub(crate) mod lock;
mod oci;
mod push;
pub(crate) mod reference;
pub(crate) mod signature;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use self::cache::{Cache, FOLDER_BYTES, Resolved};
use self::fetch::{Ask, Client, FetchError, Hosts, MAX_MODULE};
use self::oci::{Repository, checked};
use self::reference::Version;
pub use self::reference::{Oci, Remote, Web};
use self::signature::Signature;
use crate::config::{Digest, Text};

/// How many modules are fetched at the same time.
const AT_ONCE: usize = 16;
/// What a web server's signature may be at most: larger than one, so that what is none is told from one that is cut off.
const MAX_SIGNATURE: usize = 4 << 10;

/// How modules are fetched, as operators say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) hosts: Arc<Hosts>,
    /// How old an answer may be before a tag, or a file, is asked for again; absent: for ever.
    pub(crate) refresh: Option<Duration>,
    /// How long all that one reading of the configuration needs may take.
    pub(crate) timeout: Duration,
}

/// A module that a configuration wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) remote: Remote,
    /// The digest that it must have, where that is known.
    pub(crate) module: Option<Digest>,
    /// Whether it is of no use without a signature.
    pub(crate) signed: bool,
    /// Whether it is asked for, whatever an earlier answer was: one that cannot be had now is none.
    pub(crate) anew: bool,
}

/// A module that was fetched, now or before.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) module: Bytes,
    pub(crate) digest: Digest,
    /// The digest of its artefact's manifest.
    pub(crate) manifest: Option<Digest>,
    pub(crate) signature: Option<Signature>,
    /// Why what came before stands in for what is there now.
    pub(crate) instead: Option<FetchError>,
}

/// Fetches modules, and keeps them.
#[derive(Debug, Default)]
pub struct Fetcher {
    cache: Cache,
}

impl Fetcher {
    /// One that keeps what it fetches in a directory, which is made if need be; without one, as long as the process lives.
    ///
    /// # Errors
    /// When the directory cannot be made, or others can write to it.
    pub fn keeping(folder: Option<&Path>) -> io::Result<Self> {
        let cache = match folder {
            Some(folder) => Cache::in_folder(folder.join("modules"))?,
            None => Cache::default(),
        };
        Ok(Self { cache })
    }

    /// Whether what is fetched outlives the process.
    pub(crate) fn keeps(&self) -> bool {
        self.cache.is_kept()
    }

    /// Gets all of these: from the cache, else from where they are, some at a time. Waits until that is done or the time is over, on the
    /// thread this is called on, which must be none that serves requests.
    pub(crate) fn get(
        self: &Arc<Self>,
        wanted: impl IntoIterator<Item = Wanted>,
        settings: &Settings,
    ) -> HashMap<Wanted, Result<Fetched, FetchError>> {
        self.cache.sweep();
        let mut got = HashMap::new();
        let mut missing = Vec::new();
        for wanted in wanted {
            match self.known(&wanted, settings.refresh) {
                Some(fetched) => _ = got.insert(wanted, Ok(fetched)),
                None => missing.push(wanted),
            }
        }
        missing.sort_by(|one, other| one.remote.cmp(&other.remote));
        missing.dedup();
        if !missing.is_empty() {
            // On a thread of its own: whoever reads a configuration may be in a runtime already.
            let all = missing.clone();
            let fetched = std::thread::scope(|scope| scope.spawn(|| wait(self.fetch(all, settings))).join());
            match fetched {
                Ok(Ok(fetched)) => got.extend(fetched),
                Ok(Err(error)) => got.extend(missing.into_iter().map(|wanted| (wanted, Err(error.clone())))),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        self.cache.sweep_folder(FOLDER_BYTES);
        got
    }

    /// Whether what a reference stands for may have changed, and was asked for too long ago. Nothing is asked for here.
    pub(crate) fn is_due(&self, remote: &Remote, refresh: Duration) -> bool {
        let resolved = self.cache.resolved(&remote.text()).filter(|_| !is_pinned(remote));
        resolved.is_some_and(|resolved| !is_fresh(&resolved, refresh))
    }

    /// What is in the cache, if it will do: it is what was wanted, and it cannot be anything else, or is not too old.
    fn known(&self, wanted: &Wanted, refresh: Option<Duration>) -> Option<Fetched> {
        let resolved = self.resolved(wanted)?;
        let is_fixed = wanted.module.is_some() || is_pinned(&wanted.remote);
        let is_fresh = !wanted.anew && refresh.is_none_or(|refresh| is_fresh(&resolved, refresh));
        let lacks_signature = wanted.signed && resolved.signature().is_none() && !is_pinned(&wanted.remote);
        if (is_fixed || is_fresh) && !lacks_signature { self.fetched(&resolved) } else { None }
    }

    /// What the reference stood for, if that is what is wanted.
    fn resolved(&self, wanted: &Wanted) -> Option<Resolved> {
        let resolved = self.cache.resolved(&wanted.remote.text())?;
        wanted.module.is_none_or(|module| module == resolved.module.0).then_some(resolved)
    }

    fn fetched(&self, resolved: &Resolved) -> Option<Fetched> {
        let Resolved { module: Text(digest), ref manifest, .. } = *resolved;
        let manifest = manifest.as_ref().map(|manifest| manifest.0);
        let module = self.cache.module(&digest)?;
        Some(Fetched { module, digest, manifest, signature: resolved.signature(), instead: None })
    }

    async fn fetch(
        self: &Arc<Self>,
        missing: Vec<Wanted>,
        settings: &Settings,
    ) -> HashMap<Wanted, Result<Fetched, FetchError>> {
        let client = Rc::new(Client::new(settings.hosts.clone(), Instant::now() + settings.timeout));
        let room = Rc::new(Semaphore::new(AT_ONCE));
        let tasks: Vec<_> = missing
            .into_iter()
            .map(|wanted| {
                let (fetcher, client, room) = (self.clone(), client.clone(), room.clone());
                let what = wanted.clone();
                let task = spawn_local(async move {
                    let _place = room.acquire().await;
                    fetcher.fetch_one(&client, &what).await
                });
                (wanted, task)
            })
            .collect();
        let mut fetched = HashMap::new();
        for (wanted, task) in tasks {
            let why = |error: tokio::task::JoinError| fetch::malformed(&wanted.remote.text(), error.to_string());
            let outcome = task.await.unwrap_or_else(|error| Err(why(error)));
            fetched.insert(wanted, outcome);
        }
        fetched
    }

    /// Fetches one; where that fails, what was there before will do, unless it is something else that is wanted.
    async fn fetch_one(&self, client: &Client, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let fetched = match &wanted.remote {
            Remote::Oci(oci) => self.pull(client, oci).await,
            Remote::Web(web) => download(client, web, wanted).await,
        };
        let fetched = fetched.and_then(|fetched| match wanted.module {
            Some(want) if want != fetched.digest => {
                Err(FetchError::Digest { what: wanted.remote.text(), want, got: fetched.digest })
            }
            Some(_) | None => Ok(fetched),
        });
        match fetched {
            Ok(fetched) => {
                let Fetched { module, digest, manifest, signature, .. } = &fetched;
                let resolved = Resolved::new(*digest, *manifest, *signature, now());
                self.cache.keep(&wanted.remote.text(), &resolved, module);
                let pinned = wanted.remote.pinned(*manifest);
                if pinned != wanted.remote {
                    // What a lock file will ask for that is made of this answer: then nobody need be asked.
                    self.cache.keep(&pinned.text(), &resolved, module);
                }
                Ok(fetched)
            }
            Err(error) => {
                let Some(resolved) = self.resolved(wanted).filter(|_| !wanted.anew) else { return Err(error) };
                let Some(earlier) = self.fetched(&resolved) else { return Err(error) };
                // Whoever does not answer is asked again when the answer would be too old again, not each time.
                let resolved = resolved.asked_at(now());
                self.cache.keep(&wanted.remote.text(), &resolved, &earlier.module);
                Ok(Fetched { instead: Some(error), ..earlier })
            }
        }
    }

    /// Pulls an artefact; its module only if it is not in the cache.
    async fn pull(&self, client: &Client, oci: &Oci) -> Result<Fetched, FetchError> {
        let repository = Repository::new(client, oci, "pull");
        let found = repository.find().await?;
        let manifest = Some(found.manifest);
        let reference = Remote::Oci(oci.clone()).text();
        let same = self.cache.resolved(&reference).filter(|known| known.manifest == manifest.map(Text));
        let signature = found.layer.signature;
        let digest = found.layer.module().or(same.map(|known| known.module.0));
        if let Some((digest, module)) = digest.and_then(|digest| Some((digest, self.cache.module(&digest)?))) {
            return Ok(Fetched { module, digest, manifest, signature, instead: None });
        }
        let module = repository.module(&found.layer).await?;
        let digest = checked(&reference, &module, None)?;
        Ok(Fetched { module, digest, manifest, signature, instead: None })
    }
}

async fn download(client: &Client, web: &Web, wanted: &Wanted) -> Result<Fetched, FetchError> {
    let ask = |url, most| {
        let mut ask = Ask::get(url, most);
        if let Some(basic) = client.host(wanted.remote.host()).and_then(fetch::Host::basic) {
            ask.fields.insert(http::header::AUTHORIZATION, basic);
        }
        client.ask(ask)
    };
    let answer = ask(web.url(), MAX_MODULE).await?;
    if answer.status == http::StatusCode::UNAUTHORIZED {
        let host = wanted.remote.host().to_owned();
        let logged_in = client.host(&host).is_some_and(|host| host.login.is_some());
        return Err(FetchError::Unauthorized { host, logged_in });
    }
    let module = answer.good(web.url())?.body;
    let digest = checked(web.url(), &module, wanted.module)?;
    let signature = if wanted.signed {
        let answer = ask(&web.signature_url(), MAX_SIGNATURE).await?;
        if answer.status.is_success() { Signature::of_file(&answer.body) } else { None }
    } else {
        None
    };
    Ok(Fetched { module, digest, manifest: None, signature, instead: None })
}

/// Pushes a module to a registry under a tag; returns the reference that names this very artefact.
///
/// # Errors
/// Why it is not there.
pub(crate) fn push(
    to: &Oci,
    module: Bytes,
    signature: Option<&Signature>,
    settings: &Settings,
) -> Result<Remote, FetchError> {
    let client = Client::new(settings.hosts.clone(), Instant::now() + settings.timeout);
    let manifest = wait(push::push(&client, to, module, signature))??;
    Ok(Remote::Oci(to.clone()).pinned(Some(manifest)))
}

/// Whether an answer is not too old.
fn is_fresh(resolved: &Resolved, refresh: Duration) -> bool {
    now().saturating_sub(resolved.asked) < refresh.as_secs()
}

/// Whether a reference cannot come to stand for something else.
fn is_pinned(remote: &Remote) -> bool {
    matches!(remote, Remote::Oci(Oci { version: Version::Pinned { .. }, .. }))
}

/// Runs to the end on this thread.
fn wait<T>(future: impl Future<Output = T>) -> Result<T, FetchError> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    Ok(runtime.map_err(|error| FetchError::NoRuntime(Arc::new(error)))?.block_on(future))
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
