//! Bodies on their way: collected, changed and encoded again, or changed record by record as they pass.
//!
//! By default a body that cannot be transformed goes no further, in either direction: a rule may be there to take something
//! out. So a request gets a refusal; a response becomes 502, or is cut off where its head has gone out already; a record of a
//! stream, whose head has always gone out, is left out.

use std::cell::RefCell;
use std::rc::Rc;

use plugin_bodies::{Otherwise, Stale, Unread, Way};
use portcullis_sdk::{BodyError, Message};
use serde_json::Value;

use crate::Transform;
use crate::coding::Coding;
use crate::document;
use crate::media::{Format, Head};
use crate::obstacle::Obstacle;
use crate::records::{Change, Framing, Records};
use crate::rule::{Plan, Rule};
use crate::values::Scope;

/// The rules that change a body.
pub(crate) struct Work {
    plan: Rc<Plan>,
    way: Way,
    format: Format,
    /// Which of the plan's rules, with the values as they see them.
    rules: Vec<(usize, Scope)>,
}

impl Work {
    /// What there is to do, if there is.
    pub(crate) fn new(plan: &Rc<Plan>, way: Way, head: &Head, chosen: &[(usize, Scope)]) -> Option<Self> {
        let format = head.format?;
        let fits = |(index, _): &&(usize, Scope)| {
            plan.rules(way).get(*index).is_some_and(|rule| rule.format == format && rule.changes_body())
        };
        let rules: Vec<(usize, Scope)> = chosen.iter().filter(fits).cloned().collect();
        (!rules.is_empty()).then(|| Self { plan: Rc::clone(plan), way, format, rules })
    }

    fn rules(&self) -> impl Iterator<Item = (&Rule, &Scope)> {
        let all = self.plan.rules(self.way);
        self.rules.iter().filter_map(move |(index, scope)| Some((all.get(*index)?, scope)))
    }

    fn edit(&self, document: &mut Value) -> Result<(), Obstacle> {
        self.rules().try_for_each(|(rule, scope)| rule.edits.iter().try_for_each(|edit| edit.apply(document, scope)))
    }

    /// What the body is afterwards.
    fn output(&self) -> Format {
        let named = self.rules().filter_map(|(rule, _)| rule.to).last();
        named.map_or(self.format, |to| to.format())
    }

    fn changed(&self, body: Vec<u8>, coding: Coding) -> Result<Vec<u8>, Obstacle> {
        let body = coding.decoded(body, self.plan.max_bytes)?;
        let mut document = document::read(self.format, &body)?;
        self.edit(&mut document)?;
        coding.encoded(document::write(self.output(), &document)?)
    }
}

impl Transform {
    /// Changes the body of a message.
    pub(crate) async fn change_body(
        &self,
        message: &mut impl Message,
        head: &Head,
        work: Work,
    ) -> Result<(), Obstacle> {
        let way = work.way;
        let changed = if work.format.is_stream() {
            self.change_records(message, head, work)
        } else {
            self.change_document(message, head, &work).await
        };
        match changed {
            Ok(()) => {
                self.changed(way).increment();
                Ok(())
            }
            Err(obstacle) if self.plan.otherwise(obstacle) == Otherwise::Pass => {
                self.count("passed", way, obstacle);
                Ok(())
            }
            Err(obstacle) => Err(obstacle),
        }
    }

    async fn change_document(&self, message: &mut impl Message, head: &Head, work: &Work) -> Result<(), Obstacle> {
        let coding = head.coding(self.plan.max_bytes)?;
        // Now, for a host that does not hold heads sends it before the body is here.
        let mut headers = message.headers_mut();
        let mut stale = Stale::remove(&mut headers);
        if work.output() != work.format {
            stale.replace(&mut headers, "content-type", Some(work.output().content_type()));
        }
        let changed = match message.body_mut().collect(self.plan.max_bytes).await {
            // A message may have no body after all; there is nothing in it to change or to hide.
            Ok(body) if body.is_empty() => return Ok(()),
            Ok(body) => work.changed(body, coding),
            // What the upstream did not wait for it does not get.
            Err(BodyError::AnsweredEarly) => {
                return message
                    .body_mut()
                    .map_chunks(|_| Some(Vec::new()))
                    .map_err(|_| Obstacle::Body(Unread::Malformed));
            }
            Err(_) => Err(Obstacle::Body(Unread::TooLarge)),
        };
        match changed {
            Ok(body) => message.body_mut().set(body).map_err(|_| Obstacle::Body(Unread::Malformed)),
            // A head that says it is another kind of body has gone: there is no passing it as it is.
            Err(_) if work.output() != work.format && !self.holds_heads => Err(Obstacle::Unfit),
            Err(obstacle) => {
                if self.holds_heads {
                    stale.restore(&mut message.headers_mut());
                }
                Err(obstacle)
            }
        }
    }

    fn change_records(&self, message: &mut impl Message, head: &Head, work: Work) -> Result<(), Obstacle> {
        if head.coding(usize::MAX)? != Coding::Identity {
            return Err(Obstacle::Body(Unread::Encoded));
        }
        let framing = if work.format == Format::Sse { Framing::Events } else { Framing::Lines };
        let (max_bytes, on_overflow) = (self.plan.max_record_bytes, self.plan.on_overflow);
        let change = Record { work, transform: self.clone() };
        let records = Rc::new(RefCell::new(Records::new(framing, change, max_bytes, on_overflow)));
        let at_end = Rc::clone(&records);
        let map = move |chunk: portcullis_sdk::Chunk<'_>| {
            let mut records = records.borrow_mut();
            let mut out = records.push(chunk.bytes());
            if chunk.is_last() {
                out.extend(records.end());
            }
            Some(out)
        };
        message.body_mut().map_chunks(map).map_err(|_| Obstacle::Body(Unread::Malformed))?;
        let _the_body_changes = Stale::remove(&mut message.headers_mut());
        message.on_trailers(move |trailers| {
            let last = at_end.borrow_mut().end();
            if !last.is_empty() && !trailers.append_to_body(&last) {
                log::warn!("the last record of a stream had no end, and trailers followed it: it is left out");
            }
        });
        Ok(())
    }
}

/// How the records of one stream are changed.
struct Record {
    work: Work,
    transform: Transform,
}

impl Change for Record {
    fn change(&mut self, json: &[u8]) -> Option<Vec<u8>> {
        let changed = document::read(Format::Json, json).and_then(|mut document| {
            self.work.edit(&mut document)?;
            document::write(Format::Json, &document)
        });
        match changed {
            Ok(changed) => Some(changed),
            Err(obstacle) => {
                let otherwise = self.transform.plan.otherwise(obstacle);
                self.transform.count(
                    if otherwise == Otherwise::Pass { "passed" } else { "dropped" },
                    self.work.way,
                    obstacle,
                );
                (otherwise == Otherwise::Pass).then(|| json.to_vec())
            }
        }
    }

    fn overflows(&mut self) {
        let what = if self.transform.plan.on_overflow == Otherwise::Pass { "passed" } else { "dropped" };
        self.transform.count(what, self.work.way, Obstacle::Body(Unread::TooLarge));
    }
}
