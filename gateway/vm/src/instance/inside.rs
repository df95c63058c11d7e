//! What an image is taken of and put into: an instance's memory, its globals, and what the host keeps for its guest.

use portcullis_core::context::Contexts;
use wasmtime::{Extern, Global, ModuleExport, Val};

use super::{Instance, Role};
use crate::engine::CopyRoom;
use crate::foreign::Expressions;
use crate::guest::Guest;
use crate::metrics::Defined;

/// A page of WebAssembly's memory.
const PAGE: u64 = 64 << 10;

impl Instance {
    /// All its memory.
    pub(crate) fn memory(&self) -> &[u8] {
        self.store.data().memory.map(|memory| memory.data(&self.store)).unwrap_or_default()
    }

    /// All its memory, to be written.
    pub(crate) fn memory_mut(&mut self) -> &mut [u8] {
        match self.store.data().memory {
            Some(memory) => memory.data_mut(&mut self.store),
            None => &mut [],
        }
    }

    /// Makes its memory as large as this; false where it may not be.
    pub(crate) fn grow_memory(&mut self, bytes: u64) -> bool {
        let Some(memory) = self.store.data().memory else { return true };
        let lacks = bytes.saturating_sub(memory.data_size(&self.store) as u64) / PAGE;
        lacks == 0 || memory.grow(&mut self.store, lacks).is_ok()
    }

    fn exported(&mut self, global: &ModuleExport) -> Option<Global> {
        self.instance.get_module_export(&mut self.store, global).and_then(Extern::into_global)
    }

    /// What a global is.
    pub(crate) fn global(&mut self, global: &ModuleExport) -> Option<Val> {
        Some(self.exported(global)?.get(&mut self.store))
    }

    /// Makes a global this.
    pub(crate) fn set_global(&mut self, global: &ModuleExport, value: Val) -> wasmtime::Result<()> {
        self.exported(global).map_or(Ok(()), |global| global.set(&mut self.store, value))
    }

    /// What the host keeps for it.
    pub(crate) fn kept(&self) -> (&Contexts, &Guest) {
        (self.contexts(), self.store.data())
    }

    /// Has the host keep this for it.
    pub(crate) fn keep(&mut self, contexts: Contexts, metrics: Defined, expressions: Expressions) {
        *self.contexts_mut() = contexts;
        let guest = self.store.data_mut();
        (guest.metrics, guest.expressions) = (metrics, expressions);
        guest.timers_changed = true;
    }

    /// The same, in a copy's part of the pool.
    pub(crate) fn in_room(mut self, room: CopyRoom) -> Self {
        self._room = Some(room);
        self
    }
}

/// Gives its memory back to the system, but for a copy's: what that has written stays with its place in the pool, for the next one.
impl Drop for Instance {
    fn drop(&mut self) {
        let guest = self.store.data();
        let Some(memory) = guest.memory.filter(|_| guest.role != Role::Copy) else { return };
        let (begin, size) = (memory.data_ptr(&self.store), memory.data_size(&self.store));
        // SAFETY: these are the pages of this guest's memory, a private mapping that its store keeps until after this. They read as they
        // were mapped from then on, and nobody reads them any more: whoever could has the instance, which goes.
        #[allow(unsafe_code, reason = "no library offers this for memory that it does not own")]
        let _kept_at_worst = unsafe { libc::madvise(begin.cast(), size, libc::MADV_DONTNEED) };
    }
}
