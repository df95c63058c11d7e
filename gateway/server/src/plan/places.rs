//! Numbers for what lives on every worker for longer than one revision: VMs and upstreams.
//!
//! A number means the same thing on all workers, so that a plan made once fits each of them. It is given out again when the last
//! plan that used it is gone, and a worker lets go of a plan only when it has emptied the places that the plan held.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Where numbers come from. Clones give out of the same store.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(
    #[allow(clippy::disallowed_types, reason = "taken when plans are made and dropped, which no request waits for")]
    Arc<std::sync::Mutex<Store>>,
);

#[derive(Debug, Default)]
struct Store {
    free: BTreeSet<u32>,
    next: u32,
}

impl Places {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lowest number that is free, so that workers' lists of places stay short.
    pub(super) fn take(&self) -> Place {
        let mut store = self.store();
        let number = store.free.pop_first().unwrap_or_else(|| {
            store.next += 1;
            store.next - 1
        });
        Place { number, of: self.clone() }
    }
}

/// A number in use; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u32,
    of: Places,
}

impl Place {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.store().free.insert(self.number);
    }
}

/// Something that every worker has at the same place.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) place: Arc<Place>,
    pub(super) what: Arc<T>,
}

impl<T> Clone for Placed<T> {
    fn clone(&self) -> Self {
        Self { place: self.place.clone(), what: self.what.clone() }
    }
}

impl<T> Placed<T> {
    /// What an earlier plan has, if it is the same; else something new, at a place of its own.
    pub(super) fn kept_or_new(places: &Places, what: T, earlier: Option<&Self>, same: impl Fn(&T, &T) -> bool) -> Self {
        match earlier {
            Some(earlier) if same(&earlier.what, &what) => earlier.clone(),
            _ => Self { place: Arc::new(places.take()), what: Arc::new(what) },
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.place.number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_out_again_when_nobody_uses_it() {
        let places = Places::default();
        let [a, b, c] = [(); 3].map(|()| places.take());
        assert_eq!([a.number(), b.number(), c.number()], [0, 1, 2]);
        drop(b);
        drop(a);
        assert_eq!([(); 3].map(|()| places.take()).each_ref().map(Place::number), [0, 1, 3]);
    }

    #[test]
    fn what_is_the_same_keeps_its_place() {
        let places = Places::default();
        let one = Placed::kept_or_new(&places, "a", None, |a, b| a == b);
        let same = Placed::kept_or_new(&places, "a", Some(&one), |a, b| a == b);
        let other = Placed::kept_or_new(&places, "b", Some(&one), |a, b| a == b);
        assert_eq!((one.number(), same.number(), other.number()), (0, 0, 1));
        drop(one);
        assert_eq!(Placed::kept_or_new(&places, "c", None, |_, _| true).number(), 2, "the other plan still has it");
    }
}
