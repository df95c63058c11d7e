//! Questions a guest may ask while it is being called.
//!
//! A [`Host`] speaks Rust types and knows no guest memory; `gateway/vm` and `sdk/testing` decode and encode around it. It never
//! calls a guest and never waits: what a guest starts is recorded, and done when its callback has returned. Statuses follow the
//! ABI reference §6, and never leave the set that SDKs accept (§12.1). Here is whom a call is about, with contexts, properties
//! and timers; the rest is a file for each of its sections.

mod buffers;
mod calls;
mod maps;
mod streams;

use std::time::Duration;

use portcullis_abi::Status;

pub use self::buffers::GuestBuffer;
pub use self::calls::{GuestCallout, GuestGrpc};
pub use self::maps::Written;
pub use self::streams::GuestReply;
use crate::context::{ContextId, ContextRef, Contexts, Entry, Farewell, Owner, Root, Writes};
use crate::exchange::{Exchange, Exchanges};
use crate::filter::FilterIndex;
use crate::property;
use crate::time::Time;

/// What a guest sees of the gateway during one callback.
#[derive(Debug)]
pub struct Host<'a> {
    /// The worker's exchanges, lent for the callback.
    pub exchanges: &'a mut Exchanges,
    /// The guest's VM.
    pub contexts: &'a mut Contexts,
}

impl Host<'_> {
    /// The context a call is about: the effective one, or the one whose callback runs.
    fn context(&self) -> Option<Entry> {
        self.contexts.concerned()
    }

    fn owner(&self) -> Option<Owner> {
        match self.context()? {
            Entry::Exchange(owner) => Some(owner),
            Entry::Root(_) => None,
        }
    }

    fn exchange(&self) -> Option<(&Exchange, FilterIndex)> {
        let owner = self.owner()?;
        Some((self.exchanges.get(owner.exchange)?, owner.filter))
    }

    fn exchange_mut(&mut self) -> Option<(&mut Exchange, FilterIndex)> {
        let owner = self.owner()?;
        Some((self.exchanges.get_mut(owner.exchange)?, owner.filter))
    }

    /// The root of the context a call is about.
    #[must_use]
    pub fn root(&self) -> Option<&Root> {
        self.contexts.roots.get(self.root_index()?)
    }

    /// The name among all VMs of the root of the context a call is about.
    #[must_use]
    pub fn root_ref(&self) -> Option<ContextRef> {
        Some(ContextRef { vm: self.contexts.vm, life: self.contexts.life, id: self.root()?.id })
    }

    fn root_index(&self) -> Option<usize> {
        match self.context()? {
            Entry::Root(index) => Some(index),
            Entry::Exchange(owner) => Some(owner.root),
        }
    }

    /// Makes later calls of this callback about another context; 0 ends that.
    ///
    /// # Errors
    /// `BadArgument` for an id that is not in this VM.
    pub fn set_effective_context(&mut self, id: u32) -> Result<(), Status> {
        if id == 0 {
            self.contexts.effective = None;
            return Ok(());
        }
        self.contexts.entry(ContextId(id)).ok_or(Status::BadArgument)?;
        self.contexts.effective = Some(ContextId(id));
        Ok(())
    }

    /// A root that had asked for time at its end needs no more of it.
    ///
    /// # Errors
    /// `NotFound` when the calling context's root has not asked for time.
    pub fn done(&mut self) -> Result<(), Status> {
        let root = self.root_index().and_then(|index| self.contexts.roots.get_mut(index)).ok_or(Status::NotFound)?;
        if root.farewell != Farewell::Awaited {
            return Err(Status::NotFound);
        }
        root.farewell = Farewell::Done;
        Ok(())
    }

    /// A property's value in Envoy's encoding.
    ///
    /// # Errors
    /// `NotFound`, or `SerializationFailure` for what has no single value.
    pub fn property(&self, path: &[u8]) -> Result<Vec<u8>, Status> {
        let exchange = self.exchange().map(|(exchange, _)| exchange);
        let plugin = self.root().map(|root| property::Plugin { name: &root.name, vm_id: &self.contexts.vm_id });
        property::get(exchange, plugin, self.exchanges.now, path)
    }

    /// Sets a property on the exchange, for this and later filters.
    ///
    /// # Errors
    /// `NotFound` in a root context, as on Envoy; `BadArgument` when the exchange holds as much as it may, or when it is a second
    /// write to one that was declared for reading.
    pub fn set_property(&mut self, path: &[u8], value: &[u8]) -> Result<(), Status> {
        let limit = self.exchanges.limits.property_bytes;
        let once = self.contexts.writes(path) == Writes::Once;
        let (exchange, _) = self.exchange_mut().ok_or(Status::NotFound)?;
        if once && exchange.properties.iter().any(|(name, _)| name == path) {
            return Err(Status::BadArgument);
        }
        property::set(&mut exchange.properties, path, value, limit)
    }

    /// Sets or, with 0, stops the timer of the calling context's root. Periods below the limit are lengthened to it.
    pub fn set_tick(&mut self, period_ms: u32) {
        let period = Duration::from_millis(u64::from(period_ms)).max(self.exchanges.limits.shortest_tick);
        let now: Time = self.exchanges.now;
        let Some(root) = self.root_index().and_then(|index| self.contexts.roots.get_mut(index)) else { return };
        root.tick = (period_ms > 0).then_some(period);
        root.next_tick = root.tick.map(|period| now + period);
        self.exchanges.timers_changed = true;
    }
}
