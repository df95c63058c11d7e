//! Whole exchanges through the core alone: its filters are fakes that cost next to nothing.
//!
//! The fakes keep a VM's table of contexts, as `gateway/vm` does, since that table is the core's.

use std::sync::Arc;

use bytes::Bytes;
use portcullis_core::chain;
use portcullis_core::context::{ContextRef, Contexts, Owner};
use portcullis_core::event::{Direction, End, Event, Part};
use portcullis_core::exchange::{ExchangeId, Exchanges};
use portcullis_core::filter::{
    Callback, Chain, ChainFilter, Export, Exports, Failed, Filters, HeadersPause, NotOpened, OnFailure, VmIndex,
};
use portcullis_core::host::{GuestReply, Host};

use crate::traffic::Traffic;

/// What the fakes do with a request's head; everything else they let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Let it pass.
    Pass,
    /// Answer it with a local reply.
    Reply,
}

/// A worker whose filters are fakes.
pub struct Worker {
    exchanges: Exchanges,
    fakes: Fakes,
    chain: Arc<Chain>,
}

impl Worker {
    /// A worker whose only chain has this many filters, each exporting every callback, as guests made with an SDK do.
    ///
    /// One exchange has passed already, so that its tables have the size they will keep.
    #[must_use]
    pub fn new(filters: usize, does: Does) -> Self {
        let vm = VmIndex(0);
        let mut contexts = Contexts::new(vm, 1, Arc::default(), Bytes::new());
        contexts.add_root("fake".into(), Bytes::new());
        let filter = ChainFilter {
            name: "fake".into(),
            vm,
            root: 0,
            exports: every_export(),
            on_failure: OnFailure::Closed,
            headers_pause: HeadersPause::StopsAll,
        };
        let chain = Arc::new(Chain::new(vec![filter; filters]));
        let mut worker = Self { exchanges: Exchanges::default(), fakes: Fakes { contexts, does }, chain };
        worker.serve(Traffic::default());
        worker
    }

    /// One exchange from its opening to its end: a request without a body, a response in two parts. What a local reply has
    /// made superfluous is not fed.
    pub fn serve(&mut self, traffic: Traffic) {
        let Traffic { facts, request, response, body } = traffic;
        let id = self.exchanges.open(self.chain.clone(), facts);
        self.feed(id, Event::Request(Part::Head(request, End::Yes)));
        if self.fakes.does == Does::Pass {
            self.feed(id, Event::Response(Part::Head(response, End::No)));
            self.feed(id, Event::Response(Part::Body(body, End::Yes)));
        }
        chain::end(&mut self.exchanges, &mut self.fakes, id, None, |_exchange| {});
    }

    fn feed(&mut self, id: ExchangeId, event: Event) {
        chain::feed(&mut self.exchanges, &mut self.fakes, id, event);
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        for direction in [Direction::Request, Direction::Response] {
            while let Some(effect) = exchange.next_effect(direction) {
                std::hint::black_box(effect);
            }
        }
    }
}

fn every_export() -> Exports {
    use Export::{
        Delete, Done, Log, RequestBody, RequestHeaders, RequestTrailers, ResponseBody, ResponseHeaders,
        ResponseTrailers,
    };
    let requests = [RequestHeaders, RequestBody, RequestTrailers];
    let responses = [ResponseHeaders, ResponseBody, ResponseTrailers];
    requests.into_iter().chain(responses).chain([Log, Done, Delete]).fold(Exports::default(), Exports::with)
}

struct Fakes {
    contexts: Contexts,
    does: Does,
}

impl Filters for Fakes {
    fn open(&mut self, _: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        let (id, _root) = self.contexts.add_exchange(owner).ok_or(Failed)?;
        Ok(ContextRef { vm: filter.vm, life: self.contexts.life, id })
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        self.contexts.enter(context.id);
        if self.does == Does::Reply && matches!(callback, Callback::Headers(Direction::Request, ..)) {
            let reply = GuestReply { status: 403, details: b"denied", body: b"Forbidden", grpc_status: u32::MAX };
            let fields = [(&b"x-denied-by"[..], &b"fake"[..])];
            Host { exchanges, contexts: &mut self.contexts }.send_local_response(reply, fields.into_iter());
        }
        self.contexts.leave();
        Ok(0)
    }

    fn close(&mut self, _: &mut Exchanges, context: ContextRef) {
        self.contexts.remove(context.id);
    }
}
