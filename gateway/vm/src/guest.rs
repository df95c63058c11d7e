//! What a guest's store holds, and a hostcall's way to it.
//!
//! The exchanges a worker lends for a callback, and the VM's contexts, are one [`World`]. A hostcall takes it out of the store
//! and puts it back when it is done, so that a value borrowed from the world can be written into guest memory, even across a run
//! of the guest's allocator. A hostcall that the allocator makes finds no world: there is no current context then.
//!
//! **Invariant:** between hostcalls, and whenever no guest runs, the world is in the store.

use std::sync::Arc;

use portcullis_abi::pairs::{self, Pairs};
use portcullis_abi::{LogLevel, Status, Version};
use portcullis_core::context::Contexts;
use portcullis_core::exchange::Exchanges;
use portcullis_core::headers::Headers;
use portcullis_core::host::Host;
use portcullis_core::tenant::Account;
use portcullis_core::time::{Time, nanos};
use wasmtime::{Caller, Extern, Memory, ResourceLimiter, TypedFunc};

use crate::budget::{Budget, Took};
use crate::cells::VmCells;
use crate::foreign::Expressions;
use crate::instance::Role;
use crate::log::Voice;
use crate::memory::{self, Block};
use crate::metrics::Defined;
use crate::queues::Post;
use crate::shared::Space;

/// The exchanges of the worker, while they are lent, and the VM's own contexts.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) exchanges: Exchanges,
    pub(crate) contexts: Contexts,
}

impl World {
    pub(crate) fn host(&mut self) -> Host<'_> {
        Host { exchanges: &mut self.exchanges, contexts: &mut self.contexts }
    }
}

/// What a VM's store holds.
pub(crate) struct Guest {
    /// Away while a hostcall has it.
    pub(crate) world: Option<Box<World>>,
    /// Known once the instance is made, or at the first hostcall of its start section.
    pub(crate) memory: Option<Memory>,
    /// Known once the instance is made; away while it runs, which also keeps it from being run again.
    pub(crate) allocator: Option<TypedFunc<(u32,), u32>>,
    pub(crate) limits: MemoryLimits,
    pub(crate) budget: Budget,
    pub(crate) voice: Voice,
    pub(crate) metrics: Defined,
    pub(crate) space: Arc<Space>,
    /// Where news for this VM from other workers goes.
    pub(crate) post: Arc<Post>,
    /// What it has made of CEL texts.
    pub(crate) expressions: Expressions,
    pub(crate) version: Version,
    /// A root is reading its configuration: ABI 0.1.0 has one hostcall for that and for the VM's.
    pub(crate) configuring: bool,
    /// Whether a timer was set or stopped since this was last looked at.
    pub(crate) timers_changed: bool,
    /// Whether it has registered for a shared queue.
    pub(crate) consumes: bool,
    pub(crate) role: Role,
}

impl Guest {
    /// Counts what a callback that began at `now` took.
    pub(crate) fn count_time(&mut self, now: Time) {
        if let Some(took) = self.budget.end() {
            note_time(self.limits.taken.account.as_deref(), &self.limits.cells, took, now);
        }
    }
}

/// Notes what a VM took, and tells the log if that sets its tenant apart.
pub(crate) fn note_time(account: Option<&Account>, cells: &VmCells, took: Took, now: Time) {
    let Took { counted, alone, work } = took;
    cells.cpu_nanos.add(nanos(counted));
    let Some(account) = account else { return };
    account.charge(counted, now);
    if account.apart.took(alone, work, now) {
        let tenant = cells.tenant.as_deref().unwrap_or_default();
        tracing::warn!(
            tenant,
            plugin = &*cells.plugin,
            took = ?alone,
            "a tenant is set apart: callbacks of its plugins take long, this one and others of late"
        );
    }
}

/// How much memory and how large a table a guest may have.
#[derive(Debug)]
pub(crate) struct MemoryLimits {
    pub(crate) memory: u64,
    /// Whether more memory was refused in this callback.
    pub(crate) refused: bool,
    pub(crate) cells: Arc<VmCells>,
    /// Whether its size is the VM's that metrics tell: a copy's is not.
    pub(crate) told: bool,
    pub(crate) taken: Taken,
}

/// Bytes of a tenant's memory. They are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    account: Option<Arc<Account>>,
    bytes: u64,
}

impl Taken {
    /// None, of nobody's where nobody counts.
    pub(crate) fn none(account: Option<Arc<Account>>) -> Self {
        Self { account, bytes: 0 }
    }

    /// Takes what it lacks of so many bytes; false where the tenant has no more.
    pub(crate) fn reach(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if self.account.as_ref().is_some_and(|account| !account.take_memory(more)) {
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.give_memory(self.bytes);
        }
    }
}

/// The most elements of a guest's table: as many as the pool has room for.
pub(crate) const TABLE_ELEMENTS: usize = 1 << 16;

impl ResourceLimiter for MemoryLimits {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired as u64 <= self.memory && self.taken.reach(desired as u64);
        if allowed && self.told {
            self.cells.memory.set(desired as u64);
        }
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        1
    }
}

/// Why a hostcall goes no further.
pub(crate) enum Stop {
    /// The guest gets this status.
    Status(Status),
    /// The guest's allocator trapped, and with it the callback.
    Trap(wasmtime::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// A hostcall under way: guest memory, and whatever needs no [`World`].
pub(crate) struct Call<'a> {
    caller: Caller<'a, Guest>,
    name: &'static str,
}

impl<'a> Call<'a> {
    pub(crate) fn new(mut caller: Caller<'a, Guest>, name: &'static str) -> Self {
        if caller.data().memory.is_none() {
            // The module's start section runs before the instance can be asked for its exports.
            caller.data_mut().memory = caller.get_export("memory").and_then(Extern::into_memory);
        }
        Self { caller, name }
    }

    pub(crate) fn take_world(&mut self) -> Option<Box<World>> {
        self.caller.data_mut().world.take()
    }

    pub(crate) fn put_world(&mut self, world: Box<World>) {
        self.caller.data_mut().world = Some(world);
    }

    /// What the VM's store holds.
    pub(crate) fn guest(&mut self) -> &mut Guest {
        self.caller.data_mut()
    }

    fn memory(&self) -> &[u8] {
        self.caller.data().memory.map(|memory| memory.data(&self.caller)).unwrap_or_default()
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        match self.caller.data().memory {
            Some(memory) => memory.data_mut(&mut self.caller),
            None => &mut [],
        }
    }

    /// `len` bytes at `address`.
    pub(crate) fn read(&self, address: u32, len: u32) -> Result<&[u8], Status> {
        memory::read(self.memory(), address, len)
    }

    /// `len` bytes at `address`, to be written.
    pub(crate) fn write(&mut self, address: u32, len: u32) -> Result<&mut [u8], Status> {
        memory::write(self.memory_mut(), address, len)
    }

    /// The number at `address`.
    pub(crate) fn number(&self, address: u32) -> Result<u32, Status> {
        memory::number(self.memory(), address)
    }

    /// A list of pairs. A malformed one counts as empty, as on Envoy, but not without a word.
    pub(crate) fn pairs(&self, address: u32, len: u32) -> Result<Pairs<'_>, Status> {
        match Pairs::parse(self.read(address, len)?) {
            Ok(pairs) => Ok(pairs),
            Err(why) => {
                self.note(format_args!("a malformed list of pairs counts as empty: {why:?}"));
                Pairs::parse(&[]).map_err(|_| Status::InternalFailure)
            }
        }
    }

    /// Whether `len` bytes can be written at `address`: asked before something is started that could not be told.
    pub(crate) fn check(&self, address: u32, len: u32) -> Result<(), Status> {
        self.read(address, len).map(|_| ())
    }

    /// Writes a number at `address`.
    pub(crate) fn put<const N: usize>(&mut self, address: u32, bytes: [u8; N]) -> Result<(), Status> {
        memory::put(self.memory_mut(), address, bytes)
    }

    /// Gives the guest a value: in a block of its own memory, whose address and length go to `out` and `out_len`.
    pub(crate) fn give(&mut self, out: u32, out_len: u32, value: &[u8]) -> Result<(), Stop> {
        self.give_with(out, out_len, value.len(), |block| block.push(value))
    }

    /// The same, where a guest that names no address does not want the value.
    pub(crate) fn give_if_wanted(&mut self, out: u32, out_len: u32, value: &[u8]) -> Result<(), Stop> {
        match (out, out_len) {
            (0, 0) => Ok(()),
            (0, place) | (place, 0) => Ok(self.put(place, [0; 4])?),
            _ => self.give(out, out_len, value),
        }
    }

    /// Gives the guest all pairs of a head; of an empty one address and length 0, as Envoy does.
    pub(crate) fn give_pairs(&mut self, out: u32, out_len: u32, headers: &Headers) -> Result<(), Stop> {
        // Walking a map takes longer than a list, and its wire form is walked several times.
        let mut list = Vec::with_capacity(headers.count());
        list.extend(headers.iter());
        let size = if list.is_empty() { 0 } else { pairs::size(list.iter().copied()) };
        self.give_with(out, out_len, size, |block| pairs::write(|| list.iter().copied(), |piece| block.push(piece)))
    }

    /// Gives the guest `size` bytes that `fill` writes.
    ///
    /// For a value of no bytes the allocator is not run: SDKs read address 0 as "nothing".
    pub(crate) fn give_with(
        &mut self,
        out: u32,
        out_len: u32,
        size: usize,
        fill: impl FnOnce(&mut Block<'_>),
    ) -> Result<(), Stop> {
        // Before the allocator runs: a block whose address cannot be told would be lost to the guest.
        let memory = self.memory_mut();
        memory::put(memory, out, [0; 4])?;
        memory::put(memory, out_len, [0; 4])?;
        if size == 0 {
            return Ok(());
        }
        let size = u32::try_from(size).map_err(|_| Status::InternalFailure)?;
        let address = self.allocate(size)?;
        // The memory may be another one now: the allocator may have grown it.
        let memory = self.memory_mut();
        fill(&mut Block(memory::write(memory, address, size)?));
        memory::put(memory, out, address.to_le_bytes())?;
        Ok(memory::put(memory, out_len, size.to_le_bytes())?)
    }

    /// Asks the guest for memory. Its block may be anywhere, or nowhere: whoever writes to it checks.
    fn allocate(&mut self, size: u32) -> Result<u32, Stop> {
        // Not there: the guest's start section is running, or its allocator.
        let allocator = self.caller.data_mut().allocator.take().ok_or(Status::InternalFailure)?;
        let allocated = allocator.call(&mut self.caller, (size,));
        self.caller.data_mut().allocator = Some(allocator);
        match allocated {
            Ok(0) => Err(Status::InvalidMemoryAccess.into()),
            Ok(address) => Ok(address),
            Err(trap) => Err(Stop::Trap(trap)),
        }
    }

    /// Logs a guest's message.
    pub(crate) fn say(&self, level: LogLevel, message: &[u8]) {
        self.caller.data().voice.say(level, message);
    }

    /// The least serious level that is logged.
    pub(crate) fn log_level(&self) -> LogLevel {
        self.caller.data().voice.level()
    }

    /// Logs what the guest should not have done.
    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.caller.data().voice.note(self.name, what);
    }
}
