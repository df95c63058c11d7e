//! Whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;

use portcullis_core::tenant::Account;

/// What waits, by whose it is: of those who have something waiting each has one taken in turn, the one that has waited longest.
pub(super) struct Rota<T> {
    /// Whose turn is next stands first. Nobody stands here with nothing.
    owners: VecDeque<(Arc<Account>, VecDeque<T>)>,
    len: usize,
}

impl<T> Default for Rota<T> {
    fn default() -> Self {
        Self { owners: VecDeque::new(), len: 0 }
    }
}

impl<T> Rota<T> {
    /// How many wait, whosoever they are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Has one more wait.
    pub(super) fn add(&mut self, owner: Arc<Account>, one: T) {
        self.len += 1;
        match self.owners.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &owner)) {
            Some((_, own)) => own.push_back(one),
            None => self.owners.push_back((owner, VecDeque::from([one]))),
        }
    }

    /// Takes the next.
    pub(super) fn next(&mut self) -> Option<T> {
        let (owner, mut own) = self.owners.pop_front()?;
        let next = own.pop_front()?;
        self.len -= 1;
        if !own.is_empty() {
            self.owners.push_back((owner, own));
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_much_waits_for_itself() {
        let [busy, modest]: [Arc<Account>; 2] = Default::default();
        let mut rota = Rota::default();
        (0..3).for_each(|number| rota.add(busy.clone(), ("busy", number)));
        assert_eq!((rota.next(), rota.len()), (Some(("busy", 0)), 2));
        rota.add(modest.clone(), ("modest", 0));
        rota.add(busy.clone(), ("busy", 3));
        rota.add(modest, ("modest", 1));
        let rest: Vec<_> = std::iter::from_fn(|| rota.next()).collect();
        assert_eq!(rest, [("busy", 1), ("modest", 0), ("busy", 2), ("modest", 1), ("busy", 3)]);
        assert_eq!(rota.len(), 0);
        rota.add(busy, ("busy", 4));
        assert_eq!(rota.next(), Some(("busy", 4)));
    }
}
