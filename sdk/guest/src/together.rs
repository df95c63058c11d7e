//! Several futures at once, and one telling others.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::task::{Poll, Waker};

/// Which of two futures was first.
///
/// ```
/// use portcullis_sdk::Either;
/// fn either(answer: Either<u32, u32>) -> u32 {
///     match answer {
///         Either::First(number) | Either::Second(number) => number,
///     }
/// }
/// assert_eq!(either(Either::Second(2)), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    First(A),
    /// The second one.
    Second(B),
}

/// Waits for whichever of two ends first, and drops the other: its callouts are given up.
///
/// ```
/// # use portcullis_sdk::{race, Callout, CalloutError, Either, Reply};
/// async fn nearest(here: Callout, there: Callout) -> Result<Reply, CalloutError> {
///     match race(here.send(), there.send()).await {
///         Either::First(reply) | Either::Second(reply) => reply,
///     }
/// }
/// ```
pub async fn race<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

/// Waits for all of them, and has their outputs in order.
///
/// ```
/// # use portcullis_sdk::{join_all, CalloutError, Reply, Upstream};
/// async fn both(upstreams: &[Upstream]) -> Vec<Result<Reply, CalloutError>> {
///     join_all(upstreams.iter().map(|upstream| upstream.get("/").send())).await
/// }
/// ```
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.into_iter().map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|cx| {
        let mut all = true;
        for (future, output) in &mut pending {
            let Some(running) = future else { continue };
            match running.as_mut().poll(cx) {
                Poll::Ready(ready) => (*future, *output) = (None, Some(ready)),
                Poll::Pending => all = false,
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

/// Waits for all of them, or for the first that fails: then the others are dropped, and their callouts given up.
///
/// # Errors
/// The first error.
///
/// ```
/// # use portcullis_sdk::{try_join_all, CalloutError, Reply, Upstream};
/// async fn all_or_nothing(upstreams: &[Upstream]) -> Result<Vec<Reply>, CalloutError> {
///     try_join_all(upstreams.iter().map(|upstream| upstream.get("/").send())).await
/// }
/// ```
pub async fn try_join_all<T, E, F>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let failure: Cell<Option<E>> = Cell::new(None);
    let watched = futures.into_iter().map(|future| async { future.await.map_err(|why| failure.set(Some(why))).ok() });
    let mut all = pin!(join_all(watched));
    std::future::poll_fn(|cx| {
        let polled = all.as_mut().poll(cx);
        match (failure.take(), polled) {
            (Some(why), _) => Poll::Ready(Err(why)),
            (None, Poll::Ready(outputs)) => Poll::Ready(Ok(outputs.into_iter().flatten().collect())),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// Lets tasks wait until another says that something has changed.
///
/// ```
/// # use std::{cell::RefCell, rc::Rc};
/// # use portcullis_sdk::Notify;
/// struct Keys { known: RefCell<Option<u32>>, fetched: Notify }
/// async fn key(keys: Rc<Keys>) -> u32 {
///     loop {
///         if let Some(key) = *keys.known.borrow() { return key }
///         keys.fetched.notified().await;
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Notify {
    round: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    /// Tells everyone who waits now.
    ///
    /// ```
    /// use portcullis_sdk::Notify;
    /// let fetched = Notify::default();
    /// fetched.notify_all(); // nobody waits yet, so nobody is told
    /// ```
    pub fn notify_all(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Waits for the next [`Self::notify_all`].
    ///
    /// ```
    /// # use portcullis_sdk::{Notify, ms, timeout};
    /// async fn fetched_in_time(fetched: &Notify) -> bool {
    ///     timeout(ms(100), fetched.notified()).await.is_ok()
    /// }
    /// ```
    pub async fn notified(&self) {
        let round = self.round.get();
        std::future::poll_fn(|cx| {
            if self.round.get() != round {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
