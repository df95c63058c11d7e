//! Shared queues: what a tenant's VMs hand each other, across workers, and how the one that waits for it is told.
//!
//! A queue belongs to a space of the tenant's, and is found by its name there; its number means the same to all the tenant's VMs.
//! Whoever registered it last is its consumer, and is told once for every item, on its own worker and after whatever callback
//! runs now: a [`Letter`] goes to the VM's [`Post`], which the worker's [`Inbox`] empties. A VM that starts away from its worker
//! keeps its letters until it is put there.
//!
//! Envoy's queues grow without end. Here a tenant has [`MOST_QUEUES`], and all of them hold [`QUEUE_BYTES`] and [`QUEUE_ITEMS`]
//! each; what comes beyond is dropped and said so in the log, since SDKs abort on any status that means "full".
//! **Invariant:** locks are taken in the order queues, post, inbox, and none is held while a guest runs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use portcullis_abi::Status;
use portcullis_core::context::ContextRef;
use portcullis_core::filter::VmIndex;

use crate::instance::Role;
use crate::shared::Realm;

/// How many queues a tenant may have.
pub const MOST_QUEUES: usize = 256;
/// How many items a queue may hold.
pub const QUEUE_ITEMS: usize = 1024;
/// How many bytes all queues of a tenant may hold.
pub const QUEUE_BYTES: usize = 4 << 20;
/// What an item costs beyond its bytes.
const ITEM_BYTES: usize = 64;
/// The longest name of a queue.
const NAME_BYTES: usize = 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queues of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// By their spaces and names.
    ids: HashMap<Realm, HashMap<Box<[u8]>, u32>>,
    queues: HashMap<u32, Queue>,
    /// The number given last, counted from 1.
    last: u32,
    bytes: usize,
}

/// What a queue is found by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'n> {
    pub(crate) realm: Realm,
    pub(crate) text: &'n [u8],
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Bytes>,
    consumer: Option<Consumer>,
    /// Letters that are on their way, whoever they are for: registering again makes no more of them than there are items.
    underway: usize,
}

#[derive(Debug)]
struct Consumer {
    root: ContextRef,
    post: Arc<Post>,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// It is in the queue.
    Kept,
    /// There was no room.
    Dropped,
}

impl Queues {
    /// The id of the queue of this name, made if need be; `root` is told from now on when something is in it. 0, which no
    /// queue has, where there are too many.
    ///
    /// What is there already is announced again: it may have been meant for a VM that has failed.
    fn register(self: &Arc<Self>, name: Name<'_>, root: ContextRef, post: &Arc<Post>) -> u32 {
        let mut table = lock(&self.0);
        let Some(id) = table.id(name) else { return 0 };
        let Some(queue) = table.queue(id) else { return 0 };
        queue.consumer = Some(Consumer { root, post: post.clone() });
        for _ in queue.underway..queue.items.len() {
            queue.announce(self, id);
        }
        id
    }

    /// [`Self::register`], unless it is a copy that asks, which is gone when its exchange is, or a VM that is used only at times and
    /// there is another: what comes in stays that one's.
    pub(crate) fn register_as(self: &Arc<Self>, role: Role, name: Name<'_>, root: ContextRef, post: &Arc<Post>) -> u32 {
        match role {
            Role::Original => self.register(name, root, post),
            Role::Aside if !self.has_consumer(name) => self.register(name, root, post),
            Role::Aside | Role::Copy => lock(&self.0).id(name).unwrap_or(0),
        }
    }

    fn has_consumer(&self, name: Name<'_>) -> bool {
        let mut table = lock(&self.0);
        let id = table.known(name);
        id.and_then(|id| table.queue(id)).is_some_and(|queue| queue.consumer.is_some())
    }

    /// The id of the queue of this name.
    pub(crate) fn resolve(&self, name: Name<'_>) -> Result<u32, Status> {
        lock(&self.0).known(name).ok_or(Status::NotFound)
    }

    /// Forgets the queues of a space that is gone, with what is in them. Their numbers are not given again.
    pub(crate) fn forget(&self, realm: Realm) {
        let mut table = lock(&self.0);
        for id in table.ids.remove(&realm).unwrap_or_default().into_values() {
            let items = table.queues.remove(&id).map(|queue| queue.items).unwrap_or_default();
            table.bytes -= items.iter().map(|item| item.len() + ITEM_BYTES).sum::<usize>();
        }
    }

    /// Puts an item at the end of a queue.
    pub(crate) fn enqueue(self: &Arc<Self>, id: u32, item: &[u8]) -> Result<Enqueued, Status> {
        let mut table = lock(&self.0);
        let size = item.len() + ITEM_BYTES;
        let has_room = table.bytes + size <= QUEUE_BYTES;
        let queue = table.queue(id).ok_or(Status::NotFound)?;
        if !has_room || queue.items.len() >= QUEUE_ITEMS {
            return Ok(Enqueued::Dropped);
        }
        queue.items.push_back(Bytes::copy_from_slice(item));
        queue.announce(self, id);
        table.bytes += size;
        Ok(Enqueued::Kept)
    }

    /// Takes the first item of a queue.
    pub(crate) fn dequeue(&self, id: u32) -> Result<Bytes, Status> {
        let mut table = lock(&self.0);
        let item = table.queue(id).ok_or(Status::NotFound)?.items.pop_front().ok_or(Status::Empty)?;
        table.bytes -= item.len() + ITEM_BYTES;
        Ok(item)
    }

    /// Notes that a letter has arrived. One for somebody who is not the consumer any more is sent on to who is.
    fn delivered(self: &Arc<Self>, id: u32, root: ContextRef) {
        let mut table = lock(&self.0);
        let Some(queue) = table.queue(id) else { return };
        queue.underway = queue.underway.saturating_sub(1);
        let astray = queue.consumer.as_ref().is_some_and(|consumer| consumer.root != root);
        if astray && queue.underway < queue.items.len() {
            queue.announce(self, id);
        }
    }
}

impl Table {
    fn queue(&mut self, id: u32) -> Option<&mut Queue> {
        self.queues.get_mut(&id)
    }

    fn known(&self, name: Name<'_>) -> Option<u32> {
        self.ids.get(&name.realm)?.get(name.text).copied()
    }

    fn id(&mut self, name: Name<'_>) -> Option<u32> {
        if let Some(id) = self.known(name) {
            return Some(id);
        }
        if self.queues.len() >= MOST_QUEUES || name.text.len() > NAME_BYTES {
            return None;
        }
        self.last = self.last.checked_add(1)?;
        self.queues.insert(self.last, Queue::default());
        self.ids.entry(name.realm).or_default().insert(name.text.into(), self.last);
        Some(self.last)
    }
}

impl Queue {
    /// Tells the consumer of an item. Items that others took away again leave letters without one; those are bounded too.
    fn announce(&mut self, queues: &Arc<Queues>, id: u32) {
        let Some(consumer) = self.consumer.as_ref().filter(|_| self.underway < QUEUE_ITEMS) else { return };
        self.underway += 1;
        consumer.post.send(Letter { root: consumer.root, queue: id, queues: queues.clone() });
    }
}

/// The news that something is in a queue.
#[derive(Debug)]
pub struct Letter {
    /// Whom it is for.
    pub(crate) root: ContextRef,
    /// The queue's id.
    pub(crate) queue: u32,
    queues: Arc<Queues>,
}

impl Letter {
    /// The VM it is for.
    #[must_use]
    pub fn vm(&self) -> VmIndex {
        self.root.vm
    }

    /// Notes that it has arrived: there may be another.
    pub(crate) fn arrived(&self) {
        self.queues.delivered(self.queue, self.root);
    }
}

/// Where letters to one VM go.
#[derive(Debug, Default)]
pub(crate) struct Post(Mutex<Route>);

#[derive(Debug)]
enum Route {
    /// The VM is not at its place yet.
    Kept(Vec<Letter>),
    To(Arc<Inbox>),
}

impl Default for Route {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

impl Post {
    fn send(&self, letter: Letter) {
        match &mut *lock(&self.0) {
            Route::Kept(letters) => letters.push(letter),
            Route::To(inbox) => inbox.put([letter]),
        }
    }

    /// The VM is at its place on the worker that this inbox belongs to.
    pub(crate) fn leads_to(&self, inbox: &Arc<Inbox>) {
        if let Route::Kept(letters) = std::mem::replace(&mut *lock(&self.0), Route::To(inbox.clone())) {
            inbox.put(letters);
        }
    }
}

/// A worker's letters. The worker waits for them ([`Self::poll`]), whoever writes them does not wait.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<Letters>);

#[derive(Debug, Default)]
struct Letters {
    unread: VecDeque<Letter>,
    waiting: Option<Waker>,
}

impl Inbox {
    fn put(&self, letters: impl IntoIterator<Item = Letter>) {
        let mut inbox = lock(&self.0);
        inbox.unread.extend(letters);
        if !inbox.unread.is_empty()
            && let Some(waiting) = inbox.waiting.take()
        {
            drop(inbox);
            waiting.wake();
        }
    }

    /// Ready when there is a letter. One task may wait.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inbox = lock(&self.0);
        if inbox.unread.is_empty() {
            inbox.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The letter that came first, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<Letter> {
        lock(&self.0).unread.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::context::ContextId;
    use portcullis_core::filter::VmIndex;

    use super::*;

    fn name(text: &[u8]) -> Name<'_> {
        Name { realm: Realm::default(), text }
    }

    fn root(id: u32) -> ContextRef {
        ContextRef { vm: VmIndex(0), life: 1, id: ContextId(id) }
    }

    fn told(inbox: &Inbox) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| inbox.take())
            .map(|letter| {
                letter.arrived();
                (letter.root.id.0, letter.queue)
            })
            .collect()
    }

    #[test]
    fn items_come_out_in_order_and_each_is_announced_to_the_last_who_registered() {
        let (queues, inbox, post) = (Arc::<Queues>::default(), Arc::<Inbox>::default(), Arc::<Post>::default());
        assert_eq!(queues.resolve(name(b"q")), Err(Status::NotFound));
        let id = queues.register(name(b"q"), root(1), &post);
        assert_eq!((id, queues.resolve(name(b"q")), queues.register(name(b"r"), root(1), &post)), (1, Ok(1), 2));
        assert_eq!(queues.enqueue(id, b"a"), Ok(Enqueued::Kept));
        post.leads_to(&inbox);
        assert_eq!(queues.enqueue(id, b""), Ok(Enqueued::Kept));
        assert_eq!(told(&inbox), [(1, 1), (1, 1)]);
        assert_eq!(queues.register(name(b"q"), root(2), &post), id);
        assert_eq!(told(&inbox), [(2, 1), (2, 1)], "what is there is announced to whoever takes over");
        assert_eq!((queues.dequeue(id), queues.dequeue(id)), (Ok("a".into()), Ok("".into())));
        assert_eq!((queues.dequeue(id), queues.dequeue(9), queues.dequeue(0)), {
            (Err(Status::Empty), Err(Status::NotFound), Err(Status::NotFound))
        });
        assert_eq!(queues.enqueue(9, b"x"), Err(Status::NotFound));
    }

    #[test]
    fn queues_items_bytes_and_letters_are_bounded() {
        let (queues, inbox, post) = (Arc::<Queues>::default(), Arc::<Inbox>::default(), Arc::<Post>::default());
        post.leads_to(&inbox);
        let ids: Vec<u32> =
            (0..MOST_QUEUES + 2).map(|n| queues.register(name(&n.to_le_bytes()), root(1), &post)).collect();
        assert_eq!(ids[MOST_QUEUES - 1..], [u32::try_from(MOST_QUEUES).unwrap(), 0, 0]);
        assert_eq!(queues.register(name(&[0; NAME_BYTES + 1]), root(1), &post), 0);
        let kept = |id, item: &[u8], times: usize| {
            (0..times).filter(|_| queues.enqueue(id, item) == Ok(Enqueued::Kept)).count()
        };
        assert_eq!(kept(1, b"x", QUEUE_ITEMS + 5), QUEUE_ITEMS);
        assert!(kept(2, &[0; 64 << 10], 1000) < QUEUE_BYTES / (64 << 10));
        for _ in 0..3 * QUEUE_ITEMS {
            queues.dequeue(1).unwrap();
            assert_eq!(kept(1, b"x", 1), 1);
        }
        assert_eq!(told(&inbox).iter().filter(|(_, queue)| *queue == 1).count(), QUEUE_ITEMS);
    }

    #[test]
    fn registering_again_and_again_makes_no_more_letters_than_there_are_items() {
        let (queues, inbox, post) = (Arc::<Queues>::default(), Arc::<Inbox>::default(), Arc::<Post>::default());
        post.leads_to(&inbox);
        let id = queues.register(name(b"q"), root(1), &post);
        for item in [b"a", b"b", b"c"] {
            queues.enqueue(id, item).unwrap();
        }
        (0..100).for_each(|n| _ = queues.register(name(b"q"), root(1 + n % 2), &post));
        // Those that were on their way to the first go on to the second, who registered last.
        assert_eq!(told(&inbox), [(1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 1)]);
        (0..100).for_each(|_| _ = queues.register(name(b"q"), root(2), &post));
        assert_eq!(told(&inbox), [(2, 1); 3]);
    }

    #[test]
    fn whoever_waits_is_woken_by_the_first_letter() {
        let (queues, inbox, post) = (Arc::<Queues>::default(), Arc::<Inbox>::default(), Arc::<Post>::default());
        post.leads_to(&inbox);
        let id = queues.register(name(b"q"), root(1), &post);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll(&mut cx), Poll::Pending);
        queues.enqueue(id, b"x").unwrap();
        assert_eq!(inbox.poll(&mut cx), Poll::Ready(()));
    }
}
