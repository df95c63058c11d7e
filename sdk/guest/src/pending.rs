//! Calls under way, of any kind: from the host's name for a call to whoever waits for what comes of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::thread::LocalKey;

/// The calls of one kind. There are never so many that looking through them takes long: hosts allow some hundred.
pub(crate) struct Calls<T>(RefCell<Vec<Call<T>>>);

struct Call<T> {
    token: u32,
    limit: usize,
    waker: Option<Waker>,
    arrived: VecDeque<T>,
    is_over: bool,
}

/// Whether more will come of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Yes,
    No,
}

impl<T> Calls<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// How many bytes somebody still wants of this call; nothing where nobody waits any more.
    pub(crate) fn room(&self, token: u32, size: impl Fn(&T) -> usize) -> Option<usize> {
        let calls = self.0.borrow();
        let call = calls.iter().find(|call| call.token == token && !call.is_over)?;
        Some(call.limit.saturating_sub(call.arrived.iter().map(size).sum()))
    }

    /// Takes in what has come of a call, for whoever waits. One that was given up is nobody's.
    pub(crate) fn put(&self, token: u32, item: T, more: More) {
        let mut calls = self.0.borrow_mut();
        let Some(call) = calls.iter_mut().find(|call| call.token == token && !call.is_over) else { return };
        call.arrived.push_back(item);
        call.is_over = more == More::No;
        let waker = call.waker.take();
        drop(calls);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One call under way. Dropped, it is given up.
pub(crate) struct Pending<T: 'static> {
    pub(crate) token: u32,
    calls: &'static LocalKey<Calls<T>>,
    give_up: fn(u32),
}

impl<T> Pending<T> {
    /// A call that the host has begun under this name, and of which at most `limit` bytes are wanted at a time. `give_up` tells
    /// the host when nobody wants it any more.
    pub(crate) fn new(calls: &'static LocalKey<Calls<T>>, token: u32, limit: usize, give_up: fn(u32)) -> Self {
        let call = Call { token, limit, waker: None, arrived: VecDeque::new(), is_over: false };
        calls.with(|calls| calls.0.borrow_mut().push(call));
        Self { token, calls, give_up }
    }

    /// The next thing that comes of it; nothing when all has come.
    pub(crate) async fn next(&self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        self.calls.with(|calls| {
            let mut calls = calls.0.borrow_mut();
            let Some(call) = calls.iter_mut().find(|call| call.token == self.token) else { return Poll::Ready(None) };
            match call.arrived.pop_front() {
                Some(item) => Poll::Ready(Some(item)),
                None if call.is_over => Poll::Ready(None),
                None => {
                    call.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        // In a native test the thread may be ending, and its table gone.
        let ended = self.calls.try_with(|calls| {
            let mut calls = calls.0.borrow_mut();
            let at = calls.iter().position(|call| call.token == self.token)?;
            Some(calls.swap_remove(at))
        });
        if let Ok(Some(call)) = ended
            && !call.is_over
        {
            (self.give_up)(self.token);
        }
    }
}
