//! Changes of tenants that the admin listener was asked for: tried on the configuration as it would be, put into use, stored.
//!
//! A tenant of the directory `admin.tenants` is a folder there: `tenant.yaml` says what would stand under `tenants.NAME`, and its
//! modules and its lock file lie beside it. **Invariant:** what is stored has been in use; what was refused has left no trace.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::config::directory::TENANT_FILE;
use crate::config::snapshot::Tenant;
use crate::config::standing::{Looking, Settled, Standing, Unusable, Used};
use crate::config::{self, Inputs};
use crate::durable;
use crate::modules::fetch::MAX_MODULE;
use crate::modules::lock::{LOCK_FILE, Lock, Locking, Update};
use crate::regular;
use crate::supervisor::Handle;

/// A change of one tenant.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its name, which `directory::is_tenant_name` holds for.
    pub(crate) tenant: String,
    pub(crate) what: What,
    pub(crate) condition: Condition,
    /// Everything is tried, and nothing changed.
    pub(crate) dry_run: bool,
    /// Who asks, for the log.
    pub(crate) who: String,
}

/// What is to be changed of it.
#[derive(Debug)]
pub(crate) enum What {
    /// What the tenant says, and what is made of its lock file meanwhile; nothing where that holds.
    Put(Bytes, Option<Update>),
    Delete,
    /// File name and content.
    PutModule(String, Bytes),
    DeleteModule(String),
    PutLock(Bytes),
    DeleteLock,
}

/// What must hold of the file as it is (RFC 9110 §13).
#[derive(Debug, Default)]
pub(crate) struct Condition {
    /// `If-Match`: one of these tags, or any if `*` is among them.
    pub(crate) matches: Option<Vec<String>>,
    /// `If-None-Match: *`.
    pub(crate) is_new: bool,
}

/// A change that was put into use, or could be.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The revision that has it; nothing where none was needed, or nothing was changed.
    pub(crate) revision: Option<u64>,
    /// Whether there was nothing in its place.
    pub(crate) is_new: bool,
    /// The tag of what is there now.
    pub(crate) tag: Option<String>,
    /// The tenant as it is then, or would be; nothing if there is none.
    pub(crate) tenant: Option<Arc<Tenant>>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("this gateway has no directory for tenants: set `admin.tenants`")]
    NoDirectory,
    #[error("there is nothing of this name in the directory for tenants")]
    NotThere,
    #[error("what is there is not what the request's condition names")]
    Condition,
    #[error("{0}")]
    Refused(String),
    #[error("it could not be stored: {0}")]
    Store(#[from] io::Error),
}

/// What came of a change, with what it was read from and what stands now, if anything new does.
pub(super) struct Outcome {
    pub(super) result: Result<Changed, ChangeError>,
    pub(super) now: Option<(Inputs, Standing)>,
}

/// The entity tag of a file: the same for the same bytes.
pub(crate) fn tag(content: &[u8]) -> String {
    let digest: String = Sha256::digest(content).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digest}\"")
}

/// Makes a change, on the thread this is called on.
pub(super) fn make(change: &Change, paths: &[PathBuf], standing: &Standing, handle: &Handle) -> Outcome {
    let outcome = try_to(change, paths, standing, handle);
    let Change { tenant, what, dry_run, who, .. } = change;
    let what = match what {
        What::Put(_, None) => "tenant put",
        What::Put(_, Some(_)) => "tenant put and locked",
        What::Delete => "tenant deleted",
        What::PutModule(..) => "module put",
        What::DeleteModule(_) => "module deleted",
        What::PutLock(_) => "lock file put",
        What::DeleteLock => "lock file deleted",
    };
    match &outcome.result {
        Ok(Changed { revision, tag, .. }) => {
            let (revision, tag) = (revision.unwrap_or_default(), tag.as_deref().unwrap_or_default());
            tracing::info!(target: "portcullis::audit", tenant, who, dry_run, revision, tag, "{what}");
        }
        Err(why) => tracing::warn!(target: "portcullis::audit", tenant, who, dry_run, %why, "{what}: refused"),
    }
    outcome
}

fn try_to(change: &Change, paths: &[PathBuf], standing: &Standing, handle: &Handle) -> Outcome {
    let refused = |why: ChangeError| Outcome { result: Err(why), now: None };
    let mut place = match Place::of(change, handle) {
        Ok(place) => place,
        Err(why) => return refused(why),
    };
    let used = match place.is_used(change) {
        true => match use_it(change, &mut place, paths, standing, handle) {
            Ok(used) => Some(used),
            Err(why) => return refused(why),
        },
        false => None,
    };
    let new = place.content.as_deref();
    let changed = Changed {
        revision: used.as_ref().and_then(|used| used.made),
        is_new: place.is_new,
        tag: new.map(tag),
        tenant: used.as_ref().and_then(|used| used.standing.snapshot()?.tenants.named(&change.tenant).cloned()),
    };
    if change.dry_run {
        return Outcome { result: Ok(changed), now: None };
    }
    let stored = place.store(change);
    let now = used.map(|Tried { inputs, standing, .. }| {
        inputs.note_again(&place.file, &change.tenant);
        inputs.note_again(&place.lock_file(), &change.tenant);
        inputs.note_folder(&place.folder, place.folder.join(TENANT_FILE).is_file());
        (inputs, standing)
    });
    Outcome { result: stored.map(|()| changed).map_err(ChangeError::from), now }
}

/// The file that changes.
struct Place {
    folder: PathBuf,
    file: PathBuf,
    /// What is to be in it; nothing if it is to go.
    content: Option<Bytes>,
    is_new: bool,
    /// What the lock file beside it is to say; nothing if that stays as it is.
    lock: Option<Lock>,
}

impl Place {
    fn of(change: &Change, handle: &Handle) -> Result<Self, ChangeError> {
        let folder = handle.tenants_folder().ok_or(ChangeError::NoDirectory)?.join(&change.tenant);
        let (name, content) = match &change.what {
            What::Put(text, _) => (TENANT_FILE, Some(text.clone())),
            What::Delete => (TENANT_FILE, None),
            What::PutModule(name, module) => (name.as_str(), Some(module.clone())),
            What::DeleteModule(name) => (name.as_str(), None),
            What::PutLock(text) => {
                let read = std::str::from_utf8(text).map_err(|_| "it is not UTF-8 text".to_owned());
                read.and_then(config::lock)
                    .map_err(|why| ChangeError::Refused(format!("it is no lock file: {why}")))?;
                (LOCK_FILE, Some(text.clone()))
            }
            What::DeleteLock => (LOCK_FILE, None),
        };
        let file = folder.join(name);
        let there = match regular::read(&file, MAX_MODULE as u64) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if !change.condition.holds(there.as_deref()) {
            return Err(ChangeError::Condition);
        }
        if there.is_none() && content.is_none() {
            return Err(ChangeError::NotThere);
        }
        Ok(Self { folder, file, content, is_new: there.is_none(), lock: None })
    }

    /// Whether it is part of a tenant that there is: a module may come before the tenant that will use it.
    fn is_used(&self, change: &Change) -> bool {
        matches!(change.what, What::Put(..) | What::Delete) || self.folder.join(TENANT_FILE).is_file()
    }

    fn store(&self, change: &Change) -> io::Result<()> {
        match (&change.what, &self.content) {
            (What::Delete, _) => durable::remove_folder(&self.folder, TENANT_FILE),
            (_, None) => durable::remove(&self.file),
            (_, Some(content)) => match &self.lock {
                None => durable::replace(&self.file, content),
                Some(lock) => self.store_locked(content, lock),
            },
        }
    }

    /// Stores a lock file and what it is for. Whenever that ends, the lock file names all that the file names which is there.
    fn store_locked(&self, content: &[u8], lock: &Lock) -> io::Result<()> {
        let path = self.lock_file();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let earlier = config::lock(&text).unwrap_or_default();
        durable::replace(&path, earlier.with(lock).write().as_bytes())?;
        durable::replace(&self.file, content)?;
        durable::replace(&path, lock.write().as_bytes())
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.join(LOCK_FILE)
    }
}

impl Condition {
    fn holds(&self, there: Option<&[u8]>) -> bool {
        let is_one =
            |tags: &Vec<String>| there.is_some_and(|there| tags.iter().any(|one| one == "*" || *one == tag(there)));
        self.matches.as_ref().is_none_or(is_one) && !(self.is_new && there.is_some())
    }
}

/// A change that was put into use, or could be.
struct Tried {
    made: Option<u64>,
    inputs: Inputs,
    standing: Standing,
}

fn use_it(
    change: &Change,
    place: &mut Place,
    paths: &[PathBuf],
    standing: &Standing,
    handle: &Handle,
) -> Result<Tried, ChangeError> {
    let mut inputs = Inputs::changed(BTreeMap::from([(place.file.clone(), place.content.clone())]));
    let update = if let What::Put(_, update) = change.what { update } else { None };
    let locking = update.map(|update| Arc::new(Locking::one(update, place.lock_file())));
    if let Some(locking) = &locking {
        inputs = inputs.locking_anew(locking.clone());
    }
    let settled = standing.settle(paths, &inputs, Looking::At(&change.tenant), |snapshot, tree| {
        let used = if change.dry_run {
            handle.rehearse(snapshot).map(|snapshot| Used { made: None, snapshot })
        } else {
            let applied = handle.apply(snapshot);
            applied.map(|applied| Used { made: Some(applied.revision), snapshot: handle.snapshot() })
        };
        used.map_err(|why| Unusable::written(why, tree))
    });
    match settled {
        Ok(Settled { made, standing, inputs, .. }) => {
            place.lock = locking.and_then(|locking| locking.noted().remove(&place.lock_file())).map(Lock::new);
            Ok(Tried { made, inputs, standing })
        }
        Err(refused) => Err(ChangeError::Refused(refused.text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_about_what_is_there() {
        let matches = |tags: &[&str]| Condition {
            matches: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
            is_new: false,
        };
        let new = Condition { matches: None, is_new: true };
        let (one, other) = (tag(b"one"), tag(b"other"));
        assert!(Condition::default().holds(None) && Condition::default().holds(Some(b"one")));
        assert!(matches(&[&other, &one]).holds(Some(b"one")) && matches(&["*"]).holds(Some(b"one")));
        assert!(
            !matches(&[&other]).holds(Some(b"one")) && !matches(&["*"]).holds(None) && !matches(&[]).holds(Some(b""))
        );
        assert!(new.holds(None) && !new.holds(Some(b"one")));
    }
}
