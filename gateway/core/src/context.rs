//! Contexts: what a guest calls its root and its exchanges, and what a VM knows of itself.
//!
//! Ids are unique within one VM and never reused while it lives, since SDKs keep tables by them. A guest can name any id it
//! likes; only the ids in its own VM's table mean anything, so it can reach its own tenant's exchanges and no others.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_abi::Status;

use crate::exchange::ExchangeId;
use crate::filter::{FilterIndex, VmIndex};
use crate::grpc::{self, GrpcStatus, Heard, News};
use crate::headers::Headers;
use crate::tenant::{Account, Calling};
use crate::time::Time;
use crate::trace::Trace;

/// A context's name within its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextId(pub u32);

/// A context's name among all of a worker's VMs, those that ended included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextRef {
    /// The VM.
    pub vm: VmIndex,
    /// Which life of that VM: one that was replaced after a trap knows none of the old contexts.
    pub life: u32,
    /// The context.
    pub id: ContextId,
}

/// Which filter of which exchange a context stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The exchange.
    pub exchange: ExchangeId,
    /// The filter's place in its chain.
    pub filter: FilterIndex,
    /// Which of the VM's roots it belongs to.
    pub root: usize,
}

/// An upstream, as the server numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub u32);

/// A callout a guest has started.
#[derive(Debug)]
pub struct Callout {
    /// Who asked, and who gets the answer.
    pub root: ContextRef,
    /// The guest's name for it.
    pub token: u32,
    /// Where to.
    pub upstream: UpstreamId,
    /// The request's head.
    pub headers: Headers,
    /// The request's body.
    pub body: Bytes,
    /// The request's trailers.
    pub trailers: http::HeaderMap,
    /// How long it may take.
    pub timeout: Duration,
    /// The trace of the exchange it is made for.
    pub trace: Option<Trace>,
    /// What counts it as under way, on its tenant's account.
    pub calling: Option<Calling>,
}

/// What came of a callout.
#[derive(Clone, Debug, Default)]
pub struct CalloutResponse {
    /// The head; absent when the response broke off after it had begun, or was too large.
    pub headers: Option<Headers>,
    /// The whole body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Option<Headers>,
}

/// A plugin's root context.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its id.
    pub id: ContextId,
    /// The plugin's name: `plugin_name`, `plugin_root_id`.
    pub name: Arc<str>,
    /// The plugin's configuration.
    pub configuration: Bytes,
    /// The timer's period, while it is on.
    pub tick: Option<Duration>,
    /// When it next fires.
    pub next_tick: Option<Time>,
    /// How far it is on its way out.
    pub farewell: Farewell,
}

/// A root's end: it is asked, may take its time, and is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Farewell {
    /// It has not been asked.
    #[default]
    NotYet,
    /// It has answered `proxy_on_done` with "not yet", and will say `proxy_done`.
    Awaited,
    /// Nothing keeps it.
    Done,
    /// It has been deleted.
    Deleted,
}

/// What a context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The root at this place in [`Contexts::roots`].
    Root(usize),
    /// An exchange's.
    Exchange(Owner),
}

/// Ids are small and dense; hashing them would cost more than looking them up.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }

    fn write_u32(&mut self, id: u32) {
        // The map takes its buckets from the low bits and its tags from the high ones.
        self.0 = u64::from(id) | u64::from(id) << 57;
    }
}

/// All contexts of one VM in one of its lives, and what its guest has going on.
#[derive(Debug)]
pub struct Contexts {
    /// The VM.
    pub vm: VmIndex,
    /// Which life of the VM this is.
    pub life: u32,
    /// The tenant's upstreams by name, with those shared with it; no other can be called.
    pub upstreams: Arc<HashMap<Box<str>, UpstreamId>>,
    /// What guests read as `plugin_vm_id`.
    pub vm_id: Arc<str>,
    /// The VM's configuration.
    pub vm_configuration: Bytes,
    /// Whether its exchanges are shadows, on whose behalf nobody is called.
    pub shadow: bool,
    /// What the tenant may use up; nothing where nobody counts.
    pub account: Option<Arc<Account>>,
    /// The roots, in the order of creation.
    pub roots: Vec<Root>,
    entries: HashMap<ContextId, Entry, BuildHasherDefault<IdHasher>>,
    next_id: u32,
    /// The first token that is its own to give.
    first_token: u32,
    next_token: u32,
    pub(crate) current: Option<ContextId>,
    pub(crate) effective: Option<ContextId>,
    pub(crate) callout: Option<CalloutResponse>,
    pub(crate) callouts_in_flight: usize,
    pub(crate) grpc: grpc::Underway,
    declared: HashMap<Box<[u8]>, Writes>,
}

/// How often a declared property may be set on an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    Once,
    Often,
}

/// The first token of a callout; the others follow in steps of 4.
const FIRST_TOKEN: u32 = 4;
/// The most properties that a VM declares.
const MOST_DECLARED: usize = 256;

impl Contexts {
    /// The table of a VM that has just been born.
    #[must_use]
    pub fn new(vm: VmIndex, life: u32, upstreams: Arc<HashMap<Box<str>, UpstreamId>>, vm_configuration: Bytes) -> Self {
        Self {
            vm,
            life,
            upstreams,
            vm_id: Arc::default(),
            vm_configuration,
            shadow: false,
            account: None,
            roots: Vec::new(),
            entries: HashMap::default(),
            next_id: 1,
            first_token: FIRST_TOKEN,
            next_token: FIRST_TOKEN,
            current: None,
            effective: None,
            callout: None,
            callouts_in_flight: 0,
            grpc: grpc::Underway::default(),
            declared: HashMap::new(),
        }
    }

    /// The table of a copy of the VM: the roots with their timers, and what its guest has declared; nothing that is under way.
    #[must_use]
    pub fn copy(&self, life: u32) -> Self {
        let roots = |(id, entry): (&ContextId, &Entry)| matches!(entry, Entry::Root(_)).then_some((*id, *entry));
        Self {
            vm: self.vm,
            life,
            upstreams: self.upstreams.clone(),
            vm_id: self.vm_id.clone(),
            vm_configuration: self.vm_configuration.clone(),
            shadow: self.shadow,
            account: self.account.clone(),
            roots: self.roots.clone(),
            entries: self.entries.iter().filter_map(roots).collect(),
            next_id: self.next_id,
            first_token: self.next_token,
            next_token: self.next_token,
            current: None,
            effective: None,
            callout: None,
            callouts_in_flight: 0,
            grpc: self.grpc.copy(),
            declared: self.declared.clone(),
        }
    }

    fn insert(&mut self, entry: Entry) -> ContextId {
        let id = ContextId(self.next_id);
        // After four billion contexts ids come round; those still live are stepped over.
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.entries.contains_key(&ContextId(self.next_id)) {
                break;
            }
        }
        self.entries.insert(id, entry);
        id
    }

    /// Adds a plugin's root.
    pub fn add_root(&mut self, name: Arc<str>, configuration: Bytes) -> ContextId {
        let id = self.insert(Entry::Root(self.roots.len()));
        self.roots.push(Root { id, name, configuration, tick: None, next_tick: None, farewell: Farewell::NotYet });
        id
    }

    /// Adds an exchange's context; the second id is its root's.
    pub fn add_exchange(&mut self, owner: Owner) -> Option<(ContextId, ContextId)> {
        let root = self.roots.get(owner.root)?.id;
        Some((self.insert(Entry::Exchange(owner)), root))
    }

    /// Forgets an exchange's context.
    pub fn remove(&mut self, id: ContextId) {
        self.entries.remove(&id);
    }

    /// What `id` is, if it lives.
    #[must_use]
    pub fn entry(&self, id: ContextId) -> Option<Entry> {
        self.entries.get(&id).copied()
    }

    /// What a call is about: the effective context, or the one whose callback runs.
    #[must_use]
    pub fn concerned(&self) -> Option<Entry> {
        self.entry(self.effective.or(self.current)?)
    }

    /// Every exchange that has a context here: those a dying VM leaves behind.
    pub fn owners(&self) -> impl Iterator<Item = Owner> + '_ {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Exchange(owner) => Some(*owner),
            Entry::Root(_) => None,
        })
    }

    /// How many contexts live, roots included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Marks `id` as the context whose callback runs now. Call [`Self::leave`] when it has returned.
    pub fn enter(&mut self, id: ContextId) {
        self.current = Some(id);
        self.effective = None;
    }

    /// Marks that no callback runs, and ends what lasts only for one.
    pub fn leave(&mut self) {
        self.current = None;
        self.effective = None;
        self.callout = None;
        self.grpc.hearing = None;
    }

    /// Makes a callout's response readable for the callback that delivers it.
    pub fn deliver(&mut self, response: CalloutResponse) {
        self.callouts_in_flight = self.callouts_in_flight.saturating_sub(1);
        self.callout = Some(response);
    }

    /// Says of a property how often it may be set.
    ///
    /// # Errors
    /// `BadArgument` for one that has been declared, or where there are as many as may be.
    pub fn declare_property(&mut self, name: &[u8], readonly: bool) -> Result<(), Status> {
        if self.declared.len() >= MOST_DECLARED || self.declared.contains_key(name) {
            return Err(Status::BadArgument);
        }
        self.declared.insert(name.into(), if readonly { Writes::Once } else { Writes::Often });
        Ok(())
    }

    pub(crate) fn writes(&self, property: &[u8]) -> Writes {
        self.declared.get(property).copied().unwrap_or(Writes::Often)
    }

    /// Makes news of a gRPC call or stream readable for the callback that it is told by; none where nobody waits for it.
    pub fn hear(&mut self, token: u32, news: News) -> Option<Heard> {
        self.grpc.hear(token, news)
    }

    /// Whether a gRPC call or stream is under way.
    #[must_use]
    pub fn has_grpc(&self) -> bool {
        self.grpc.len() > 0
    }

    /// How many calls to upstreams are under way, of all kinds.
    pub(crate) fn calls_under_way(&self) -> usize {
        self.callouts_in_flight + self.grpc.len()
    }

    /// Lets one more call to an upstream go, of whatever kind: one of the VM's, and one of its tenant's where those are counted.
    ///
    /// # Errors
    /// `InternalFailure` when as many are under way, or have been made, as may be.
    pub(crate) fn call(&self, most: usize, now: Time) -> Result<Option<Calling>, Status> {
        if self.calls_under_way() >= most {
            return Err(Status::InternalFailure);
        }
        match &self.account {
            Some(account) => account.call(now).map(Some).ok_or(Status::InternalFailure),
            None => Ok(None),
        }
    }

    /// Whether nothing is under way: no exchange, no timer, no call or stream.
    #[must_use]
    pub fn awaits_nothing(&self) -> bool {
        self.entries.len() == self.roots.len() && self.calls_under_way() == 0 && self.next_tick().is_none()
    }

    /// What `proxy_get_status` tells: how the call ended that is being told of.
    #[must_use]
    pub fn status(&self) -> (u32, &[u8]) {
        match (&self.grpc.hearing, &self.callout) {
            (Some(News::Ended(GrpcStatus { code, message })), _) => (*code, message),
            // Envoy's number for a response that broke off.
            (_, Some(CalloutResponse { headers: None, .. })) => (11, b"reset"),
            _ => (0, b""),
        }
    }

    /// Whether this is a copy, and the original had given this token to a callout when it was made.
    #[must_use]
    pub fn has_inherited(&self, token: u32) -> bool {
        token < self.first_token
    }

    /// A new callout token: 4, 8, 12… as on Envoy, where gRPC takes the numbers between.
    pub(crate) fn token(&mut self) -> u32 {
        let token = self.next_token;
        self.next_token = self.next_token.checked_add(4).unwrap_or(FIRST_TOKEN);
        token
    }

    /// When the first of the VM's timers fires.
    #[must_use]
    pub fn next_tick(&self) -> Option<Time> {
        self.roots.iter().filter_map(|root| root.next_tick).min()
    }
}
