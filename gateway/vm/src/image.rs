//! What a started VM has become, to make copies of: each exchange of a plugin that is isolated by request gets one.
//!
//! The original is started and configured as ever, and sees no exchange. What its guest has written to its memory since it was an
//! instance that nothing had run in is recorded, with its mutable globals and what the host keeps for it: contexts, metrics and
//! expressions by their numbers. A copy is a new instance with all that put in its place, so it begins where the original stands, and
//! ends with its exchange. **Invariant:** nothing of an exchange reaches the original, nor any other copy.

use portcullis_core::context::Contexts;
use portcullis_core::time::Time;
use wasmtime::Val;

use crate::engine::Engine;
use crate::failure::StartFailure;
use crate::foreign::Expressions;
use crate::guest::Taken;
use crate::instance::{Birth, Instance, NotStarted};
use crate::metrics::Defined;
use crate::plugin::VmSpec;

/// The pieces in which memory is compared and recorded: a page of the system's, since a copy pays for each that is written.
const PIECE: usize = 4096;

/// What copies of a VM are made of.
pub(crate) struct Image {
    memory: u64,
    /// What differs from an instance that nothing has run in, by address.
    written: Box<[(usize, Box<[u8]>)]>,
    globals: Box<[Val]>,
    contexts: Contexts,
    metrics: Defined,
    expressions: Expressions,
    /// What it takes of its tenant's memory.
    _taken: Taken,
}

/// Why there is no copy.
#[derive(Debug)]
pub(crate) enum NotCopied {
    /// All of the pool is taken: a VM that is idle may make way.
    PoolFull,
    /// Copies' part of it, or what its tenant has of memory, is used up.
    NoRoom,
    /// Something that cannot happen to a module that was taken in.
    Broken(StartFailure),
}

impl NotCopied {
    fn of((failure, _): NotStarted) -> Self {
        match failure {
            StartFailure::NoRoom { .. } => Self::PoolFull,
            StartFailure::TenantMemory => Self::NoRoom,
            StartFailure::TooMuchMemory { .. }
            | StartFailure::Instantiate(_)
            | StartFailure::Trapped { .. }
            | StartFailure::Refused { .. } => Self::Broken(failure),
        }
    }
}

impl Image {
    /// Records what a VM is now.
    pub(crate) fn of(
        original: &mut Instance,
        engine: &Engine,
        spec: &VmSpec,
        birth: Birth,
        now: Time,
    ) -> Result<Self, NotCopied> {
        let blank = Instance::blank(engine, spec, birth, now).map_err(NotCopied::of)?;
        let written = difference(original.memory(), blank.memory());
        drop(blank);
        let mut taken = Taken::none(spec.account.clone());
        if !taken.reach(written.iter().map(|(_, bytes)| bytes.len() as u64).sum()) {
            return Err(NotCopied::NoRoom);
        }
        let globals = spec.module.globals().iter().filter_map(|global| original.global(global)).collect();
        let (memory, (contexts, guest)) = (original.memory().len() as u64, original.kept());
        let contexts = contexts.copy(contexts.life);
        let (metrics, expressions) = (guest.metrics.clone(), guest.expressions.clone());
        Ok(Self { memory, written, globals, contexts, metrics, expressions, _taken: taken })
    }

    /// Makes a copy.
    pub(crate) fn copy(&self, engine: &Engine, spec: &VmSpec, birth: Birth, now: Time) -> Result<Instance, NotCopied> {
        let room = engine.room_for_copy().ok_or(NotCopied::NoRoom)?;
        let life = birth.life;
        let mut copy = Instance::blank(engine, spec, birth, now).map_err(NotCopied::of)?;
        if !copy.grow_memory(self.memory) {
            return Err(NotCopied::NoRoom);
        }
        let memory = copy.memory_mut();
        for (address, bytes) in &self.written {
            if let Some(place) = memory.get_mut(*address..*address + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        for (global, value) in spec.module.globals().iter().zip(&self.globals) {
            copy.set_global(global, *value)
                .map_err(|error| NotCopied::Broken(StartFailure::Instantiate(error.to_string())))?;
        }
        copy.keep(self.contexts.copy(life), self.metrics.clone(), self.expressions.clone());
        Ok(copy.in_room(room))
    }
}

/// What is other in a memory than it was before, by address. Where there was nothing before, there were zeros.
fn difference(now: &[u8], before: &[u8]) -> Box<[(usize, Box<[u8]>)]> {
    const ZEROS: [u8; PIECE] = [0; PIECE];
    let before = before.chunks(PIECE).chain(std::iter::repeat(&ZEROS[..]));
    let mut written: Vec<(usize, Vec<u8>)> = Vec::new();
    for (place, (now, _)) in now.chunks(PIECE).zip(before).enumerate().filter(|(_, (now, before))| now != before) {
        let address = place * PIECE;
        match written.last_mut() {
            Some((begin, bytes)) if *begin + bytes.len() == address => bytes.extend_from_slice(now),
            _ => written.push((address, now.to_vec())),
        }
    }
    written.into_iter().map(|(address, bytes)| (address, bytes.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_recorded_in_pieces_that_lie_together() {
        let before = [vec![1; PIECE], vec![2; PIECE], vec![3; PIECE]].concat();
        let found = |now: &[u8]| -> Vec<(usize, usize)> {
            difference(now, &before).iter().map(|(address, bytes)| (address / PIECE, bytes.len() / PIECE)).collect()
        };
        assert_eq!(found(&before), []);
        let mut now = before.clone();
        now[PIECE * 2 - 1] = 0;
        assert_eq!(found(&now), [(1, 1)]);
        now[PIECE * 2] = 0;
        assert_eq!(found(&now), [(1, 2)]);
        now[PIECE * 2 - 1] = 2;
        now[0] = 0;
        assert_eq!(found(&now), [(0, 1), (2, 1)]);
        let mut grown = [before.clone(), vec![0; PIECE * 3]].concat();
        assert_eq!(found(&grown), [], "what has been added is zero");
        grown[PIECE * 4] = 1;
        assert_eq!(found(&grown), [(4, 1)]);
    }
}
