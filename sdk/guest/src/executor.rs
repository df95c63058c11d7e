//! Who is polled when: one thread, no queue but the names of those that were woken.
//!
//! A task is an exchange's `handle` or something that runs in the background. Its waker is its name, a number, so that
//! waking, cloning and dropping one never touches the heap. A task is entered in the table only when somebody keeps its
//! waker: an exchange that waits for nothing but its own response never is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::root::Root;
use crate::sys;

/// A task's name. Exchanges go by their context id, everything else by numbers from [`FIRST_BACKGROUND`] on.
pub(crate) type TaskId = u32;

/// Hosts number contexts from 1; two thousand million of them are further than a VM lives.
pub(crate) const FIRST_BACKGROUND: TaskId = 1 << 31;

/// Something that is polled.
pub(crate) trait Task {
    /// Its name.
    fn id(&self) -> TaskId;
    /// The context its hostcalls are about.
    fn context(&self) -> u32;
    /// Whose timers and callouts it uses.
    fn root(&self) -> &Rc<Root>;
    /// Polls it and does what follows from that. Its context is the effective one.
    fn run(self: Rc<Self>);
}

#[derive(Default)]
struct Executor {
    ready: RefCell<Vec<TaskId>>,
    tasks: RefCell<BTreeMap<TaskId, Rc<dyn Task>>>,
    running: RefCell<Option<Rc<dyn Task>>>,
    entered: Cell<Entered>,
    next_background: Cell<TaskId>,
}

/// Whose callback runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Nobody's.
    #[default]
    Nothing,
    /// A root's, while it is configured.
    Configuring(u32),
    /// A root's.
    Root(u32),
    /// An exchange's.
    Exchange(u32),
}

impl Entered {
    fn context(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Configuring(id) | Self::Root(id) | Self::Exchange(id) => id,
        }
    }
}

thread_local! {
    static EXECUTOR: Executor = Executor::default();
}

/// Runs a callback's body, then every task that was woken by it.
pub(crate) fn enter<R>(entered: Entered, body: impl FnOnce() -> R) -> R {
    EXECUTOR.with(|executor| executor.entered.set(entered));
    let result = body();
    EXECUTOR.with(|executor| executor.run_ready(entered.context()));
    result
}

/// The callback that runs.
pub(crate) fn entered() -> Entered {
    EXECUTOR.with(|executor| executor.entered.get())
}

/// A name for a task that belongs to no exchange.
pub(crate) fn background_id() -> TaskId {
    EXECUTOR.with(|executor| {
        let next = executor.next_background.get().max(FIRST_BACKGROUND);
        executor.next_background.set(next.checked_add(1).unwrap_or(FIRST_BACKGROUND));
        next
    })
}

/// Keeps a task that nothing else keeps.
pub(crate) fn keep(task: Rc<dyn Task>) {
    EXECUTOR.with(|executor| executor.tasks.borrow_mut().insert(task.id(), task));
}

/// Forgets a task that has ended. In a native test that may be when its thread ends too, and with it the executor.
pub(crate) fn forget(id: TaskId) {
    let forgotten = EXECUTOR.try_with(|executor| executor.tasks.borrow_mut().remove(&id));
    drop(forgotten);
}

/// Marks a task to be polled before the callback ends.
pub(crate) fn wake(id: TaskId) {
    let _at_the_threads_end = EXECUTOR.try_with(|executor| {
        let mut ready = executor.ready.borrow_mut();
        if !ready.contains(&id) {
            ready.push(id);
        }
    });
}

/// Polls a task's future.
pub(crate) fn poll<T>(task: Rc<dyn Task>, future: Pin<&mut dyn Future<Output = T>>) -> Poll<T> {
    let waker = waker(task.id());
    let before = EXECUTOR.with(|executor| executor.running.replace(Some(task)));
    let polled = future.poll(&mut Context::from_waker(&waker));
    EXECUTOR.with(|executor| executor.running.replace(before));
    polled
}

/// The task that is being polled; nothing where a future is polled by something else than this executor.
pub(crate) fn running() -> Option<Rc<dyn Task>> {
    EXECUTOR.with(|executor| executor.running.borrow().clone())
}

/// Whether a waker is that of the running task itself, and not of a set of futures within it.
pub(crate) fn is_own(waker: &Waker) -> bool {
    let name = EXECUTOR.with(|executor| executor.running.borrow().as_ref().map(|task| task.id()));
    std::ptr::eq(waker.vtable(), &raw const NAMES) && name == Some(name_of(waker.data()))
}

impl Executor {
    fn run_ready(&self, context: u32) {
        let mut elsewhere = false;
        // Out of the borrow, since a task may wake others; the oldest first.
        while let Some(id) = self.next_ready() {
            let Some(task) = self.tasks.borrow().get(&id).cloned() else { continue };
            if task.context() != context || elsewhere {
                elsewhere = true;
                if sys::set_effective_context(task.context()).is_err() {
                    // Its exchange is no more; the host will say so in a moment.
                    continue;
                }
            }
            task.run();
        }
        if elsewhere {
            let _gone = sys::set_effective_context(context);
        }
    }

    fn next_ready(&self) -> Option<TaskId> {
        let mut ready = self.ready.borrow_mut();
        if ready.is_empty() { None } else { Some(ready.remove(0)) }
    }
}

static NAMES: RawWakerVTable = RawWakerVTable::new(cloned, woken, woken, dropped);

fn waker(id: TaskId) -> Waker {
    // SAFETY: the table's functions take the pointer for a number and never follow it, so the contract of `RawWaker` holds
    // for any of them, on any thread.
    #[allow(unsafe_code, reason = "there is no safe way to a waker without an allocation for each task")]
    unsafe {
        Waker::new(std::ptr::without_provenance(id as usize), &NAMES)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it was made of a `TaskId`")]
fn name_of(data: *const ()) -> TaskId {
    data.addr() as TaskId
}

/// Whoever keeps a waker may wake it from another task's callback: then its task must be found by name.
fn cloned(data: *const ()) -> RawWaker {
    EXECUTOR.with(|executor| {
        let running = executor.running.borrow().clone();
        if let Some(task) = running.filter(|task| task.id() == name_of(data)) {
            executor.tasks.borrow_mut().entry(task.id()).or_insert(task);
        }
    });
    RawWaker::new(data, &NAMES)
}

fn woken(data: *const ()) {
    wake(name_of(data));
}

fn dropped(_: *const ()) {}
