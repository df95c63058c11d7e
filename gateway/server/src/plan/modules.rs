//! Modules that some plan has, so that nobody loads one that is there.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use portcullis_vm::{Capabilities, Isolation, LoadError, Module};

/// Modules by their digests, with what they are compiled for and what they may use.
#[derive(Debug, Default)]
pub(super) struct Modules(
    #[allow(clippy::disallowed_types, reason = "taken when plans are made, which no request waits for")]
    std::sync::Mutex<Known>,
);

type Known = HashMap<(Code, Capabilities), Weak<Module>>;

/// A module's digest, and whether its VMs are copied: then its code is another.
pub(super) type Code = ([u8; 32], Isolation);

impl Modules {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module that some plan has, or else a new one.
    pub(super) fn get_or_make(
        &self,
        code: Code,
        capabilities: &Capabilities,
        make: impl FnOnce() -> Result<Arc<Module>, LoadError>,
    ) -> Result<Arc<Module>, LoadError> {
        let key = (code, capabilities.clone());
        if let Some(module) = self.known().get(&key).and_then(Weak::upgrade) {
            return Ok(module);
        }
        // Not while the lock is held: it may take seconds.
        let module = make()?;
        let mut known = self.known();
        if known.len() == known.capacity() {
            known.retain(|_, module| module.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&module));
        Ok(module)
    }
}
