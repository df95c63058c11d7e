//! What an exchange turns out to have cost: paid beside what was reserved, or given back.

use std::cell::RefCell;
use std::rc::Rc;

use portcullis_sdk::limit;
use portcullis_sdk::metric::Counter;
use portcullis_sdk::{Ended, Host, Request, Response};

use crate::global::Service;
use crate::policy::{Asked, Limit, Settle};
use crate::settings::BodyBytes;
use crate::usage::Meter;

/// What a filter's bills have in common.
pub(crate) struct Book {
    pub(crate) limits: Rc<[Limit]>,
    pub(crate) host: Host,
    /// For each limit, how often nothing said what a response has cost.
    unsettled: Vec<Option<Counter>>,
}

impl Book {
    pub(crate) fn new(limits: Rc<[Limit]>, host: Host) -> Self {
        let counter = |limit: &Limit| match limit.settle {
            Some(Settle::Header(_) | Settle::Json(_)) => {
                Some(host.counter(&format!("rate_limit_unsettled.{}", limit.name)))
            }
            Some(Settle::Bytes(_)) | None => None,
        };
        let unsettled = limits.iter().map(counter).collect();
        Self { limits, host, unsettled }
    }

    /// Whether there is anything to settle.
    fn settles(&self) -> bool {
        self.limits.iter().any(|limit| limit.settle.is_some())
    }
}

/// What one exchange has to pay.
pub(crate) struct Bill {
    book: Rc<Book>,
    asked: Vec<Asked>,
    /// Who has counted what was reserved; nobody but this host where it is absent.
    service: Option<Rc<Service>>,
    /// For each limit, what reads the response's body for its cost.
    meters: RefCell<Vec<Option<Meter>>>,
}

impl Bill {
    /// The bill of a request that passes, which is paid when the exchange is over, as far as [`Self::answered`] has not paid it.
    pub(crate) fn open(
        book: &Rc<Book>,
        asked: Vec<Asked>,
        service: Option<Rc<Service>>,
        request: &mut Request,
    ) -> Option<Rc<Self>> {
        if !book.settles() {
            return None;
        }
        let meters = RefCell::new(book.limits.iter().map(|_| None).collect());
        let bill = Rc::new(Self { book: Rc::clone(book), asked, service, meters });
        let at_last = Rc::clone(&bill);
        request.on_log(move |ended| at_last.ended(ended));
        Some(bill)
    }

    /// Pays what the response's head says, and begins to read its body where that is to say it.
    pub(crate) fn answered(self: &Rc<Self>, response: &Response) {
        let headers = response.headers();
        self.pay(self.costs(|settle, _| match settle {
            Settle::Header(name) => Some(headers.text(name).and_then(|cost| cost.trim().parse().ok())),
            Settle::Json(_) | Settle::Bytes(_) => None,
        }));
        let content_type = headers.text("content-type").unwrap_or_default();
        let is_plain = headers.text("content-encoding").is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
        let meter = |limit: &Limit| match &limit.settle {
            Some(Settle::Json(tokens)) if is_plain => Meter::new(&content_type, tokens),
            Some(_) | None => None,
        };
        let meters: Vec<Option<Meter>> = self.book.limits.iter().map(meter).collect();
        if meters.iter().any(Option::is_some) {
            self.meters.replace(meters);
            let bill = Rc::clone(self);
            let seen = response.body().see_chunks(move |chunk| {
                bill.meters.borrow_mut().iter_mut().flatten().for_each(|meter| meter.read(chunk.bytes()));
            });
            if let Err(why) = seen {
                log::warn!("what a response has cost cannot be read: {why}");
            }
        }
    }

    /// Pays what is known only at the end.
    fn ended(&self, ended: &Ended) {
        let size = |side: &str| u64::try_from(ended.property::<i64>(&[side, "size"]).unwrap_or(0)).unwrap_or(0);
        let meters = self.meters.take();
        self.pay(self.costs(|settle, place| match settle {
            Settle::Header(_) => None,
            Settle::Json(_) => Some(meters.get(place).and_then(Option::as_ref).and_then(Meter::found)),
            Settle::Bytes(BodyBytes::Request) => Some(Some(size("request"))),
            Settle::Bytes(BodyBytes::Response) => Some(Some(size("response"))),
            Settle::Bytes(BodyBytes::Both) => Some(Some(size("request").saturating_add(size("response")))),
        }));
    }

    /// What is owed to which limits, beside what was reserved, by those whose cost `known` tells now. A cost that nothing says is
    /// the one that was reserved.
    fn costs(&self, known: impl Fn(&Settle, usize) -> Option<Option<u64>>) -> Vec<(usize, i64)> {
        let mut owed = Vec::new();
        for (place, (limit, asked)) in self.book.limits.iter().zip(&self.asked).enumerate() {
            match limit.settle.as_ref().and_then(|settle| known(settle, place)) {
                Some(Some(cost)) => {
                    let signed = |cost: u64| i64::try_from(cost).unwrap_or(i64::MAX);
                    owed.push((place, signed(cost).saturating_sub(signed(asked.take.cost))));
                }
                Some(None) => self.book.unsettled.get(place).into_iter().flatten().for_each(Counter::increment),
                None => {}
            }
        }
        owed.retain(|(_, more)| *more != 0);
        owed
    }

    fn pay(&self, owed: Vec<(usize, i64)>) {
        match &self.service {
            Some(service) if !owed.is_empty() => service.settle(&self.book, &self.asked, &owed),
            Some(_) => {}
            None => {
                for (asked, more) in owed.iter().filter_map(|(place, more)| Some((self.asked.get(*place)?, *more))) {
                    if let Err(why) = limit::settle(&self.book.host, &asked.take, more) {
                        log::warn!("what a response has cost was not stored: {why}");
                    }
                }
            }
        }
    }
}
