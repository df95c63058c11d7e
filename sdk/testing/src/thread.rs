//! A plugin's thread: a VM, as far as the `proxy-wasm` crate can tell.

use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use portcullis_core::context::{CalloutResponse, ContextId, ContextRef, Contexts, Owner, UpstreamId};
use portcullis_core::event::{Direction, End};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, Failed, VmIndex};
use portcullis_core::grpc::{Heard, News};
use portcullis_core::host::Host;
use portcullis_core::time::Time;
use portcullis_simulation::Line;

use crate::externs::callbacks;
use crate::lent::{Lent, lend};
use crate::plugin::Entry;
use crate::services::Services;

type Job = Box<dyn FnOnce() -> u32 + Send>;

/// What a VM is started with.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) entry: Entry,
    pub(crate) config: Bytes,
    pub(crate) vm_config: Bytes,
    pub(crate) upstreams: std::sync::Arc<std::collections::HashMap<Box<str>, UpstreamId>>,
}

/// One life of a plugin.
pub(crate) struct Vm {
    lent: Option<Box<Lent>>,
    jobs: Sender<(Box<Lent>, Job)>,
    done: Receiver<(Box<Lent>, u32)>,
    root: ContextId,
}

impl Vm {
    /// Starts a thread, and on it the plugin. What it logged is the reason when it does not start.
    pub(crate) fn start(
        spec: &Spec,
        (index, life): (VmIndex, u32),
        services: Services,
        exchanges: &mut Exchanges,
    ) -> Result<Self, Vec<Line>> {
        let mut contexts = Contexts::new(index, life, spec.upstreams.clone(), spec.vm_config.clone());
        let root = contexts.add_root(spec.name.as_str().into(), spec.config.clone());
        let lent = Lent {
            exchanges: Exchanges::default(),
            contexts,
            services,
            log: Vec::new(),
            name: spec.name.clone(),
            panicked: false,
        };
        let (jobs, inbox) = channel::<(Box<Lent>, Job)>();
        let (outbox, done) = channel();
        std::thread::spawn(move || {
            for (lent, job) in inbox {
                if outbox.send(lend(lent, job)).is_err() {
                    return;
                }
            }
        });
        let mut vm = Self { lent: Some(Box::new(lent)), jobs, done, root };
        let (entry, sizes) = (spec.entry, (spec.vm_config.len(), spec.config.len()));
        let started = vm.call(exchanges, root, move || {
            entry.run();
            callbacks::context_create(root.0, 0);
            u32::from(callbacks::vm_start(root.0, sizes.0) && callbacks::configure(root.0, sizes.1))
        });
        match started {
            Ok(1) => Ok(vm),
            Ok(_) | Err(Failed) => Err(vm.take_log()),
        }
    }

    /// Makes a callback about a context, on the plugin's thread.
    fn call(
        &mut self,
        exchanges: &mut Exchanges,
        id: ContextId,
        call: impl FnOnce() -> u32 + Send + 'static,
    ) -> Result<u32, Failed> {
        let mut lent = self.lent.take().ok_or(Failed)?;
        std::mem::swap(&mut lent.exchanges, exchanges);
        lent.contexts.enter(id);
        self.jobs.send((lent, Box::new(call))).map_err(|_| Failed)?;
        // A thread that is gone has taken everything with it; there is nothing to go on with.
        let (mut lent, answer) = self.done.recv().expect("a plugin's thread ends after its last callback");
        lent.contexts.leave();
        std::mem::swap(&mut lent.exchanges, exchanges);
        let panicked = lent.panicked;
        self.lent = Some(lent);
        if panicked { Err(Failed) } else { Ok(answer) }
    }

    fn contexts(&mut self) -> Option<&mut Contexts> {
        self.lent.as_mut().map(|lent| &mut lent.contexts)
    }

    /// Creates a context for an exchange.
    pub(crate) fn open(&mut self, exchanges: &mut Exchanges, owner: Owner) -> Result<ContextRef, Failed> {
        let contexts = self.contexts().ok_or(Failed)?;
        let (vm, life) = (contexts.vm, contexts.life);
        let (id, root) = contexts.add_exchange(owner).ok_or(Failed)?;
        self.call(exchanges, id, move || {
            callbacks::context_create(id.0, root.0);
            0
        })?;
        Ok(ContextRef { vm, life, id })
    }

    /// Makes one of the chain's callbacks.
    pub(crate) fn callback(
        &mut self,
        exchanges: &mut Exchanges,
        id: ContextId,
        callback: Callback,
    ) -> Result<u32, Failed> {
        self.call(exchanges, id, move || chain_callback(id.0, callback))
    }

    pub(crate) fn close(&mut self, id: ContextId) {
        if let Some(contexts) = self.contexts() {
            contexts.remove(id);
        }
    }

    /// Every exchange that has a context here.
    pub(crate) fn owners(&mut self) -> Vec<Owner> {
        self.contexts().map(|contexts| contexts.owners().collect()).unwrap_or_default()
    }

    pub(crate) fn next_tick(&self) -> Option<Time> {
        self.lent.as_ref()?.contexts.next_tick()
    }

    /// Runs the timer, if it is due; it starts anew when its callback has returned.
    pub(crate) fn tick(&mut self, exchanges: &mut Exchanges) -> Result<(), Failed> {
        let (now, root) = (exchanges.now, self.root);
        if let Some(root) = self.contexts().and_then(|contexts| contexts.roots.first_mut()) {
            root.next_tick = None;
        }
        self.call(exchanges, root, move || {
            callbacks::tick(root.0);
            0
        })?;
        if let Some(root) = self.contexts().and_then(|contexts| contexts.roots.first_mut())
            && root.next_tick.is_none()
        {
            root.next_tick = root.tick.map(|period| now + period);
        }
        Ok(())
    }

    /// Tells the root what came of its callout.
    pub(crate) fn deliver(
        &mut self,
        exchanges: &mut Exchanges,
        token: u32,
        response: CalloutResponse,
    ) -> Result<(), Failed> {
        let (headers, body, trailers) = Host::callout_sizes(&response);
        let root = self.root;
        self.contexts().ok_or(Failed)?.deliver(response);
        self.call(exchanges, root, move || {
            callbacks::http_call_response(root.0, token, headers, body, trailers);
            0
        })?;
        Ok(())
    }

    /// Tells the root what came of its gRPC call or stream.
    pub(crate) fn hear(&mut self, exchanges: &mut Exchanges, token: u32, news: News) -> Result<(), Failed> {
        let Some(heard) = self.contexts().ok_or(Failed)?.hear(token, news) else { return Ok(()) };
        let root = self.root;
        self.call(exchanges, root, move || {
            match heard {
                Heard::Began(entries) => callbacks::grpc_receive_initial_metadata(root.0, token, entries),
                Heard::Message(bytes) => callbacks::grpc_receive(root.0, token, bytes as usize),
                Heard::Trailers(entries) => callbacks::grpc_receive_trailing_metadata(root.0, token, entries),
                Heard::Ended(status) => callbacks::grpc_close(root.0, token, status),
            }
            0
        })?;
        Ok(())
    }

    /// Tells the root that there is something in its queue.
    pub(crate) fn queue_ready(&mut self, exchanges: &mut Exchanges, queue: u32) -> Result<(), Failed> {
        let root = self.root;
        self.call(exchanges, root, move || {
            callbacks::queue_ready(root.0, queue);
            0
        })?;
        Ok(())
    }

    pub(crate) fn take_log(&mut self) -> Vec<Line> {
        self.lent.as_mut().map(|lent| std::mem::take(&mut lent.log)).unwrap_or_default()
    }
}

fn chain_callback(id: u32, callback: Callback) -> u32 {
    use Direction::{Request, Response};
    let count = |count: u32| count as usize;
    match callback {
        Callback::Headers(Request, headers, end) => callbacks::request_headers(id, count(headers), end.is_end()),
        Callback::Headers(Response, headers, end) => callbacks::response_headers(id, count(headers), end.is_end()),
        Callback::Body(Request, size, end) => callbacks::request_body(id, count(size), end == End::Yes),
        Callback::Body(Response, size, end) => callbacks::response_body(id, count(size), end == End::Yes),
        Callback::Trailers(Request, trailers) => callbacks::request_trailers(id, count(trailers)),
        Callback::Trailers(Response, trailers) => callbacks::response_trailers(id, count(trailers)),
        // The gateway that filters are tested against has no TCP listeners.
        Callback::NewConnection | Callback::Data(..) | Callback::Closed(..) => 0,
        Callback::Log => {
            callbacks::log(id);
            0
        }
        Callback::Done => u32::from(callbacks::done(id)),
        Callback::Delete => {
            callbacks::delete(id);
            0
        }
    }
}
