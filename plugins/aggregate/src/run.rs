//! The calls of one request, each made as soon as those that it waits for have come to something.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use portcullis_sdk::{Host, Notify, Reply, sleep, try_join_all};

use crate::failure::Failure;
use crate::json::Json;
use crate::metrics::Metrics;
use crate::outcome::{Answer, Document, Outcome};
use crate::outgoing::{Outgoing, Passed, Stop};
use crate::plan::{Call, Each, Endpoint, Otherwise, Place};
use crate::values::{Found, Received, Values};

/// A request under way.
pub(crate) struct Run<'r> {
    endpoint: &'r Endpoint,
    env: &'r BTreeMap<String, String>,
    received: &'r Received,
    passed: Passed<'r>,
    host: &'r Host,
    metrics: &'r Metrics,
    ends: SystemTime,
    /// Of the calls, in their order; empty where one is under way.
    pub(crate) outcomes: Vec<OnceCell<Outcome>>,
    /// Which calls failed, or failed for some item.
    failed: Vec<Cell<bool>>,
    /// A call could not be made, nor can it ever be: its upstream is not there.
    pub(crate) lacks_upstream: Cell<bool>,
    /// What upstreams were asked, so that nobody asks the same again.
    asked: RefCell<Vec<Rc<Question<'r>>>>,
    made: Cell<usize>,
    /// Of what answers may be together.
    room: Cell<Room>,
    /// Something has come to something.
    changed: Notify,
}

/// What an upstream was asked, and what it answered.
struct Question<'r> {
    outgoing: Outgoing<'r>,
    answer: OnceCell<Result<Rc<Answer>, Failure>>,
}

/// How many bytes and values there may still be.
#[derive(Clone, Copy)]
struct Room {
    bytes: usize,
    values: usize,
}

/// The answers of a request have so many values together at most. One that shaping looks into takes some 60 bytes, however short its
/// text, and a join copies it; a plugin has 16 MiB unless its operator gives it more.
const MAX_VALUES: usize = 50_000;

/// A request cannot do without this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lacking {
    pub(crate) call: usize,
    pub(crate) failure: Failure,
}

impl<'r> Run<'r> {
    pub(crate) fn new(
        (endpoint, env): (&'r Endpoint, &'r BTreeMap<String, String>),
        received: &'r Received,
        (host, metrics): (&'r Host, &'r Metrics),
    ) -> Self {
        let calls = &endpoint.calls;
        Self {
            endpoint,
            env,
            received,
            passed: Passed::of(received),
            host,
            metrics,
            ends: host.now() + endpoint.deadline,
            outcomes: calls.iter().map(|_| OnceCell::new()).collect(),
            failed: calls.iter().map(|_| Cell::new(false)).collect(),
            lacks_upstream: Cell::new(false),
            asked: RefCell::default(),
            made: Cell::new(0),
            room: Cell::new(Room { bytes: endpoint.max_answers_bytes, values: MAX_VALUES }),
            changed: Notify::default(),
        }
    }

    /// Makes all calls. When one fails that the request cannot do without, the others are given up.
    pub(crate) async fn all(&self) -> Result<(), Lacking> {
        let calls = self.endpoint.calls.iter().enumerate();
        try_join_all(calls.map(|(at, call)| self.one(at, call))).await.map(|_| ())
    }

    /// The names of the calls that failed.
    pub(crate) fn failed(&self) -> Vec<&'r str> {
        let named = self.endpoint.calls.iter().zip(&self.failed).filter(|(_, failed)| failed.get());
        named.map(|(call, _)| call.name.as_str()).collect()
    }

    pub(crate) fn values(&self) -> Values<'_> {
        let calls = &self.endpoint.calls;
        Values { env: self.env, received: self.received, calls, outcomes: &self.outcomes, item: None }
    }

    async fn one(&self, at: usize, call: &'r Call) -> Result<(), Lacking> {
        for earlier in call.after.iter().filter_map(|earlier| self.outcomes.get(*earlier)) {
            while earlier.get().is_none() {
                self.changed.notified().await;
            }
        }
        let outcome = match self.came_of(at, call).await {
            Ok(outcome) => outcome,
            Err(Stop::Skip) => Outcome::Skipped,
            Err(Stop::Failed(failure)) => {
                let outcome = match (&call.otherwise, &call.each) {
                    (Otherwise::Refuse, _) => Err(Lacking { call: at, failure }),
                    (Otherwise::LeaveOut, _) => Ok(Outcome::LeftOut),
                    // The stand-in is that of an item, and it is the array that is not there.
                    (Otherwise::StandIn(_), Some(_)) => Ok(Outcome::StoodIn(Document::of("[]".to_owned()))),
                    (Otherwise::StandIn(document), None) => Ok(Outcome::StoodIn(document.clone())),
                };
                self.note(at, call, failure, outcome)?
            }
        };
        if let Some(place) = self.outcomes.get(at) {
            _ = place.set(outcome);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Notes that a call failed, and passes on what becomes of that.
    fn note<T>(&self, at: usize, call: &Call, failure: Failure, then: T) -> T {
        self.metrics.failed(&call.name, failure.word());
        if failure == Failure::UnknownUpstream {
            self.metrics.unknown_upstream(&call.name, call.upstream.name());
            self.lacks_upstream.set(true);
        }
        log::info!("the call {} failed: {failure:?}", call.name);
        if let Some(failed) = self.failed.get(at) {
            failed.set(true);
        }
        then
    }

    async fn came_of(&self, at: usize, call: &'r Call) -> Result<Outcome, Stop> {
        let values = self.values();
        if call.when.as_ref().is_some_and(|when| !when.holds(&values)) {
            return Err(Stop::Skip);
        }
        let (answers, document) = match &call.each {
            Some(each) => self.ask_each(at, (call, each), &values).await?,
            None => {
                let answer = self.ask(call, &values).await?;
                let document = answer.document.clone();
                (vec![answer], document)
            }
        };
        // Now, and not with all others in the callback of the last: processor time is counted by callback.
        let result = match call.place {
            Place::Nowhere => Ok(document.clone()),
            Place::At(_) | Place::Merged => document.shaped(&call.shape, self.endpoint.reply.max_bytes),
        };
        Ok(Outcome::Answered { answers, document, result })
    }

    /// One call for each item. The results are in the order of the items; those that are left out leave no gap.
    async fn ask_each(
        &self,
        at: usize,
        (call, each): (&'r Call, &Each),
        values: &Values<'_>,
    ) -> Result<(Vec<Rc<Answer>>, Document), Stop> {
        let mut array = values.get(&each.items).map(Found::json);
        let items: Vec<String> = match array.as_mut().map(Json::open) {
            Some(Json::Array(items)) => items.iter().map(Json::to_text).collect(),
            None if values.is_skipped(&each.items) => return Err(Stop::Skip),
            _ => return Err(Stop::Failed(Failure::NoArray)),
        };
        if items.len() > each.max_items {
            return Err(Stop::Failed(Failure::TooMany));
        }
        let (next, results) = (Cell::new(0), RefCell::new(vec![None; items.len()]));
        let answers = RefCell::new(Vec::new());
        let worker = async || {
            while let Some(item) = items.get(next.get()) {
                let place = next.replace(next.get() + 1);
                let result = match (self.ask(call, &Values { item: Some(item), ..*values }).await, &call.otherwise) {
                    (Ok(answer), _) => {
                        answers.borrow_mut().push(answer.clone());
                        Some(answer.document.clone())
                    }
                    (Err(Stop::Failed(failure)), Otherwise::LeaveOut) => self.note(at, call, failure, None),
                    (Err(Stop::Failed(failure)), Otherwise::StandIn(document)) => {
                        self.note(at, call, failure, Some(document.clone()))
                    }
                    (Err(stop), _) => return Err(stop),
                };
                if let Some(slot) = results.borrow_mut().get_mut(place) {
                    *slot = result;
                }
            }
            Ok(())
        };
        try_join_all((0..each.concurrency.min(items.len())).map(|_| worker())).await?;
        let results = results.into_inner();
        let results: Vec<Json<'_>> = results.iter().flatten().map(|result| Json::of(result.text())).collect();
        Ok((answers.into_inner(), Document::of(Json::Array(results).to_text())))
    }

    /// Makes one call, unless the same has been made.
    async fn ask(&self, call: &'r Call, values: &Values<'_>) -> Result<Rc<Answer>, Stop> {
        let outgoing = Outgoing::of(call, &self.passed, values)?;
        let same = self.asked.borrow().iter().find(|question| question.outgoing == outgoing).cloned();
        let answer = match same.filter(|_| call.idempotent) {
            Some(question) => {
                self.metrics.shared.increment();
                self.answer(&question).await
            }
            None => {
                let question = Rc::new(Question { outgoing, answer: OnceCell::new() });
                if call.idempotent {
                    self.asked.borrow_mut().push(question.clone());
                }
                let answer = self.send(call, &question.outgoing).await.and_then(|reply| self.admit(call, reply));
                let answer = answer.map(Rc::new);
                _ = question.answer.set(answer.clone());
                self.changed.notify_all();
                answer
            }
        };
        answer.map_err(Stop::Failed)
    }

    /// The answer, if it is what it should be and there is room for it.
    fn admit(&self, call: &Call, reply: Reply) -> Result<Answer, Failure> {
        let length = reply.body().len();
        let answer = Answer::read(reply, call.form, call.max_depth)?;
        let Room { bytes, values } = self.room.get();
        let left = bytes.checked_sub(length).zip(values.checked_sub(answer.values));
        let (bytes, values) = left.ok_or(Failure::TooLarge)?;
        self.room.set(Room { bytes, values });
        Ok(answer)
    }

    /// What another call with the same question gets.
    async fn answer(&self, question: &Question<'_>) -> Result<Rc<Answer>, Failure> {
        loop {
            if let Some(answer) = question.answer.get() {
                return answer.clone();
            }
            self.changed.notified().await;
        }
    }

    async fn send(&self, call: &Call, outgoing: &Outgoing<'_>) -> Result<Reply, Failure> {
        if self.made.replace(self.made.get() + 1) >= self.endpoint.max_calls {
            return Err(Failure::TooMany);
        }
        let mut backoff = call.retry.backoff;
        let mut left = call.retry.times;
        loop {
            let time = call.timeout.min(self.left());
            if time.is_zero() {
                return Err(Failure::Timeout);
            }
            let failure = match outgoing.callout(call, time).send().await {
                Ok(reply) => return Ok(reply),
                Err(error) => Failure::from(&error),
            };
            if left == 0 || !failure.may_pass() || backoff >= self.left() {
                return Err(failure);
            }
            self.metrics.retries.increment();
            left -= 1;
            sleep(jittered(backoff, self.host.now())).await;
            backoff *= 2;
        }
    }

    /// What is left of the request's time, in whole milliseconds: callouts know no less.
    fn left(&self) -> Duration {
        let left = self.ends.duration_since(self.host.now()).unwrap_or_default();
        Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Between half of a pause and all of it, so that those who failed together do not come back together. The clock is all the chance
/// that hosts give a guest.
fn jittered(pause: Duration, now: SystemTime) -> Duration {
    let mut hasher = DefaultHasher::new();
    now.hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 512).unwrap_or_default();
    pause * (512 + share) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_between_a_half_and_a_whole() {
        let at = |ns: u64| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
        let pauses: Vec<Duration> = (0..100).map(|ns| jittered(Duration::from_millis(100), at(ns))).collect();
        assert!(pauses.iter().all(|pause| (50..=100).contains(&pause.as_millis())), "{pauses:?}");
        let (shortest, longest) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(longest.as_millis() - shortest.as_millis() > 30, "{shortest:?} {longest:?}");
    }
}
