//! Guests without wasm: scripted filters behind the real `Host`, in VMs that keep the real tables.
//!
//! Asserts what the ABI promises guests: one create and one delete per context, nothing after the delete, and no callback into a
//! VM that died.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_abi::{BufferType, MapType, Status, StreamType};
use portcullis_core::context::{CalloutResponse, ContextId, ContextRef, Contexts, Owner, UpstreamId};
use portcullis_core::exchange::{ExchangeId, Exchanges};
use portcullis_core::filter::{Callback, ChainFilter, Failed, FilterIndex, Filters, VmIndex};
use portcullis_core::host::{GuestCallout, GuestReply, Host, Written};

use crate::script::{Action, Script, describe};
use crate::wire::shown;

/// How far a context's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Created,
    Logged,
    Done,
    Deleted,
}

/// One context of one filter.
#[derive(Debug)]
struct Known {
    owner: Owner,
    life: Life,
    /// How often each callback has come.
    counts: HashMap<String, usize>,
}

#[derive(Debug)]
struct Vm {
    contexts: Contexts,
    known: BTreeMap<ContextId, Known>,
    /// Which context waits for which callout, by token.
    waiting: HashMap<u32, (String, ContextId)>,
}

/// All VMs of a test.
#[derive(Debug)]
pub(crate) struct Fakes {
    pub(crate) scripts: Rc<[Script]>,
    vms: BTreeMap<u32, Vm>,
    upstreams: Arc<HashMap<Box<str>, UpstreamId>>,
    /// The upstreams' names by number.
    upstream_names: Vec<Box<str>>,
    /// The ids by which filters know each other's contexts; kept after these have ended.
    ids: BTreeMap<(ExchangeId, FilterIndex), ContextId>,
    /// The transcript.
    pub(crate) lines: Vec<String>,
    /// How many exchanges a transcript must tell apart.
    pub(crate) tags: BTreeMap<ExchangeId, usize>,
}

impl Fakes {
    pub(crate) fn new(scripts: Vec<Script>) -> Self {
        let upstream_names: Vec<Box<str>> = scripts.iter().flat_map(Script::callouts).map(Box::from).collect();
        let numbered = upstream_names.iter().cloned().zip((0..).map(UpstreamId));
        let upstreams = numbered.collect();
        let mut fakes = Self {
            scripts: scripts.into(),
            vms: BTreeMap::new(),
            upstreams: Arc::new(upstreams),
            upstream_names,
            ids: BTreeMap::new(),
            lines: Vec::new(),
            tags: BTreeMap::new(),
        };
        let vms: Vec<u32> = fakes.scripts.iter().map(|script| script.vm).collect();
        vms.into_iter().for_each(|vm| fakes.start(vm, 0));
        fakes
    }

    /// Every VM has a root for each filter, so that a filter's place in the chain is its root's index.
    fn start(&mut self, vm: u32, life: u32) {
        let mut contexts = Contexts::new(VmIndex(vm), life, self.upstreams.clone(), Bytes::from_static(b"vm config"));
        for script in self.scripts.iter() {
            contexts.add_root(script.name.as_str().into(), Bytes::from(format!("{} config", script.name)));
        }
        self.vms.insert(vm, Vm { contexts, known: BTreeMap::new(), waiting: HashMap::new() });
    }

    fn vm(&mut self, vm: u32) -> &mut Vm {
        self.vms.get_mut(&vm).expect("VMs are started with the chain")
    }

    /// An upstream's name.
    pub(crate) fn upstream_name(&self, upstream: UpstreamId) -> String {
        self.upstream_names.get(upstream.0 as usize).expect("upstreams are numbered from 0").to_string()
    }

    fn script(&self, index: FilterIndex) -> &Script {
        self.scripts.get(index).expect("every filter has a script")
    }

    pub(crate) fn index_of(&self, name: &str) -> FilterIndex {
        self.scripts.iter().position(|script| script.name == name).unwrap_or_else(|| panic!("no filter `{name}`"))
    }

    /// Ends a VM as a trap does: its exchanges are orphaned, its callouts forgotten, and a new life begins.
    pub(crate) fn die(&mut self, vm: u32, exchanges: &mut Exchanges) {
        let old = self.vms.remove(&vm).expect("it lived");
        for owner in old.contexts.owners() {
            exchanges.orphan(owner.exchange, owner.filter);
        }
        self.start(vm, old.contexts.life + 1);
    }

    /// Asserts that nothing is left of exchanges that have ended.
    pub(crate) fn assert_all_deleted(&self) {
        for vm in self.vms.values() {
            assert_eq!(vm.contexts.owners().count(), 0, "contexts are left over");
            for known in vm.known.values() {
                assert_eq!(known.life, Life::Deleted, "{:?} was never deleted", known.owner);
            }
        }
    }

    /// Brings a callout's answer to the root that asked for it. False when that VM is gone.
    pub(crate) fn answer(
        &mut self,
        exchanges: &mut Exchanges,
        root: ContextRef,
        token: u32,
        response: CalloutResponse,
    ) -> bool {
        let vm = self.vm(root.vm.0);
        if vm.contexts.life != root.life {
            return false;
        }
        let (name, asker) = vm.waiting.remove(&token).expect("each token is answered once");
        let status = response.headers.as_ref().and_then(|headers| headers.status());
        let args = status.map_or_else(|| "lost".to_owned(), |status| status.as_u16().to_string());
        vm.contexts.enter(root.id);
        vm.contexts.deliver(response);
        let trapped = self.in_root(exchanges, root.vm.0, asker, &name, &args);
        self.vm(root.vm.0).contexts.leave();
        if trapped {
            self.die(root.vm.0, exchanges);
        }
        true
    }

    /// A timer of the filter's root, about its context in this exchange.
    pub(crate) fn tick(&mut self, exchanges: &mut Exchanges, id: ExchangeId, filter: FilterIndex, when: &str) {
        let vm = self.script(filter).vm;
        let Some(asker) = self.ids.get(&(id, filter)).copied() else { return };
        let contexts = &mut self.vm(vm).contexts;
        let root = contexts.roots.get(filter).expect("a root for each filter").id;
        contexts.enter(root);
        let trapped = self.in_root(exchanges, vm, asker, when, "");
        self.vm(vm).contexts.leave();
        if trapped {
            self.die(vm, exchanges);
        }
    }

    /// Plays a root's callback about one of its contexts, as SDKs do: they make that context the effective one first.
    fn in_root(&mut self, exchanges: &mut Exchanges, vm: u32, asker: ContextId, when: &str, args: &str) -> bool {
        let contexts = &mut self.vm(vm).contexts;
        let live = Host { exchanges, contexts }.set_effective_context(asker.0) == Ok(());
        if !live {
            self.lines.push(format!("{:<28}context is gone", format!("{when} {args}")));
            return false;
        }
        let known = self.vm(vm).known.get_mut(&asker).expect("live contexts are known");
        let owner = known.owner;
        let nth = count(known, when);
        let actions = self.script(owner.filter).actions(when, nth).unwrap_or(&[Action::Resume]).to_vec();
        self.play(exchanges, vm, asker, owner, (when, args), &actions).is_err()
    }

    /// Plays a list of actions in the context that is entered. `Err` when one of them traps.
    fn play(
        &mut self,
        exchanges: &mut Exchanges,
        vm: u32,
        me: ContextId,
        owner: Owner,
        (when, args): (&str, &str),
        actions: &[Action],
    ) -> Result<u32, Failed> {
        let name = self.script(owner.filter).name.clone();
        let tag = self.tags.get(&owner.exchange).filter(|_| self.tags.len() > 1);
        let tag = tag.map_or_else(String::new, |tag| format!("#{tag}"));
        let vm = self.vms.get_mut(&vm).expect("VMs are started with the chain");
        let mut scene =
            Scene { exchanges, vm, ids: &self.ids, names: &self.scripts, me, owner, map: default_map(when) };
        let (mut answer, mut trapped, mut said) = (0, false, Vec::new());
        for action in actions {
            if let Action::Answer(value) = action {
                answer = *value;
            }
            trapped |= matches!(action, Action::Fail);
            said.push(scene.act(action));
        }
        if said.is_empty() {
            said.push("continue".to_owned());
        }
        let call = format!("{name}{tag}.{when} {args}");
        let between =
            if said.iter().map(String::len).sum::<usize>() > 70 { ",\n                            " } else { ", " };
        self.lines.push(format!("{:<27} {}", call.trim_end(), said.join(between)));
        if trapped { Err(Failed) } else { Ok(answer) }
    }
}

fn count(known: &mut Known, when: &str) -> usize {
    let count = known.counts.entry(when.to_owned()).or_default();
    *count += 1;
    *count - 1
}

impl Filters for Fakes {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, Failed> {
        let script = self.script(owner.filter).clone();
        let vm = self.vm(filter.vm.0);
        let life = vm.contexts.life;
        let (id, _root) = vm.contexts.add_exchange(owner).ok_or(Failed)?;
        let known = Known { owner, life: Life::Created, counts: HashMap::new() };
        assert!(vm.known.insert(id, known).is_none(), "an id was used twice");
        self.ids.insert((owner.exchange, owner.filter), id);
        let actions = script.actions("create", 0);
        if actions.is_some() || script.shows_create {
            self.vm(script.vm).contexts.enter(id);
            let actions = actions.unwrap_or_default().to_vec();
            let played = self.play(exchanges, script.vm, id, owner, ("create", ""), &actions);
            self.vm(script.vm).contexts.leave();
            if played.is_err() {
                self.die(script.vm, exchanges);
                return Err(Failed);
            }
        }
        Ok(ContextRef { vm: filter.vm, life, id })
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        let vm = self.vm(context.vm.0);
        if vm.contexts.life != context.life {
            return Err(Failed);
        }
        let known = vm.known.get_mut(&context.id).expect("contexts are created before they are called");
        let (life, name) = (known.life, describe(callback).0);
        known.life = match callback {
            Callback::Headers(..) | Callback::Body(..) | Callback::Trailers(..) => Life::Created,
            Callback::Log => Life::Logged,
            Callback::Done => Life::Done,
            Callback::Delete => Life::Deleted,
        };
        assert!(life <= known.life && life != Life::Deleted, "{name} after {life:?}");
        let owner = known.owner;
        let nth = count(known, name);
        vm.contexts.enter(context.id);
        let actions = self.script(owner.filter).actions(name, nth).unwrap_or_default().to_vec();
        let args = describe(callback).1;
        let answer = self.play(exchanges, context.vm.0, context.id, owner, (name, &args), &actions);
        self.vm(context.vm.0).contexts.leave();
        if answer.is_err() {
            self.die(context.vm.0, exchanges);
        }
        answer
    }

    fn close(&mut self, context: ContextRef) {
        let vm = self.vm(context.vm.0);
        assert_eq!(vm.contexts.life, context.life, "a context was closed in a VM that is gone");
        let known = vm.known.get_mut(&context.id).expect("contexts are created before they are closed");
        // A filter that exports no last callbacks is closed without them.
        known.life = Life::Deleted;
        assert!(vm.contexts.entry(context.id).is_some(), "a context was closed twice");
        vm.contexts.remove(context.id);
    }
}

fn default_map(when: &str) -> MapType {
    match when {
        "request_body" | "request_trailers" => MapType::HttpRequestTrailers,
        "response_body" | "response_trailers" => MapType::HttpResponseTrailers,
        "response_headers" | "resume_response" => MapType::HttpResponseHeaders,
        _ => MapType::HttpRequestHeaders,
    }
}

/// One callback while it runs.
struct Scene<'a> {
    exchanges: &'a mut Exchanges,
    vm: &'a mut Vm,
    ids: &'a BTreeMap<(ExchangeId, FilterIndex), ContextId>,
    names: &'a [Script],
    me: ContextId,
    owner: Owner,
    map: MapType,
}

impl Scene<'_> {
    fn host(&mut self) -> Host<'_> {
        Host { exchanges: self.exchanges, contexts: &mut self.vm.contexts }
    }

    fn is_response(&self) -> bool {
        matches!(self.map, MapType::HttpResponseHeaders | MapType::HttpResponseTrailers)
    }

    fn buffer(&self) -> BufferType {
        if matches!(self.map, MapType::HttpCallResponseHeaders | MapType::HttpCallResponseTrailers) {
            BufferType::HttpCallResponseBody
        } else if self.is_response() {
            BufferType::HttpResponseBody
        } else {
            BufferType::HttpRequestBody
        }
    }

    /// Does it, and says what came of it.
    fn act(&mut self, action: &Action) -> String {
        let map = self.map;
        match action {
            Action::Answer(0) => "continue".to_owned(),
            Action::Answer(1) => "pause".to_owned(),
            Action::Answer(answer) => format!("answer {answer}"),
            Action::Fail => "fail".to_owned(),
            Action::Map(map) => {
                self.map = *map;
                format!("map {}", u32::from(*map))
            }
            Action::Get(name) => {
                let value =
                    self.host().header(map, name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
                value.map_or_else(|status| format!("get {name}: {status:?}"), |value| format!("get {name}={value}"))
            }
            Action::Pairs => self.pairs(),
            Action::Set(name, value) => {
                let done = self.host().replace_header(map, name.as_bytes(), value.as_bytes());
                outcome(format!("set {name}={value}"), written(done))
            }
            Action::Add(name, value) => {
                let done = self.host().add_header(map, name.as_bytes(), value.as_bytes());
                outcome(format!("add {name}={value}"), written(done))
            }
            Action::Remove(name) => {
                let done = self.host().remove_header(map, name.as_bytes()).map_err(|status| format!("{status:?}"));
                outcome(format!("remove {name}"), done)
            }
            Action::Read => self.read(),
            Action::Write(start, size, text) => self.write(*start, *size, text),
            Action::Property(path) => self.property(path),
            Action::Store(path, value) => {
                let done = self.host().set_property(&property_path(path), value.as_bytes());
                outcome(format!("store {path}={value}"), done.map_err(|status| format!("{status:?}")))
            }
            Action::Resume
            | Action::Close
            | Action::Reply(..)
            | Action::GrpcReply(..)
            | Action::Call(_)
            | Action::On(_) => self.start(action),
        }
    }

    /// The actions that come to something only after the callback.
    fn start(&mut self, action: &Action) -> String {
        match action {
            Action::Resume if self.is_response() => {
                outcome("resume response".to_owned(), self.resume(StreamType::HttpResponse))
            }
            Action::Resume => outcome("resume".to_owned(), self.resume(StreamType::HttpRequest)),
            Action::Close => {
                self.host().close_stream(StreamType::HttpRequest);
                "close".to_owned()
            }
            Action::Reply(status, body) => {
                self.reply(*status, body, u32::MAX);
                format!("reply {status}")
            }
            Action::GrpcReply(status, body) => {
                self.reply(403, body, *status);
                format!("grpc reply {status}")
            }
            Action::Call(name) => self.call(name),
            Action::On(name) => {
                let index = self.names.iter().position(|script| script.name == *name).expect("a filter's name");
                let id = self.ids.get(&(self.owner.exchange, index)).map_or(999, |id| id.0);
                let done = self.host().set_effective_context(id).map_err(|status| format!("{status:?}"));
                outcome(format!("on {name}"), done)
            }
            _ => unreachable!("everything else is done in `act`"),
        }
    }

    fn resume(&mut self, stream: StreamType) -> Result<(), String> {
        self.host().continue_stream(stream).map_err(|status| format!("{status:?}"))
    }

    fn reply(&mut self, status: u32, body: &str, grpc_status: u32) {
        let reply = GuestReply { status, details: b"said so", body: body.as_bytes(), grpc_status };
        self.host().send_local_response(reply, [(&b"x-by"[..], &b"guest"[..]), (b":status", b"999")].into_iter());
    }

    fn call(&mut self, name: &str) -> String {
        let pairs: [(&[u8], &[u8]); 3] = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a.test")];
        let callout = GuestCallout { upstream: name.as_bytes(), body: b"", timeout_ms: 1000 };
        let token = self.host().http_call(callout, pairs.into_iter(), std::iter::empty());
        if let Ok(token) = token {
            self.vm.waiting.insert(token, (name.to_owned(), self.me));
        }
        outcome(format!("call {name}"), token.map(drop).map_err(|status| format!("{status:?}")))
    }

    fn pairs(&mut self) -> String {
        let map = self.map;
        let host = self.host();
        let Some(headers) = host.map(map) else { return "no pairs".to_owned() };
        let pair = |(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        format!("pairs [{}]", headers.iter().map(pair).collect::<Vec<_>>().join(" "))
    }

    fn read(&mut self) -> String {
        let buffer = self.buffer();
        let host = self.host();
        match host.buffer(buffer) {
            Ok(bytes) => {
                let read: Vec<u8> = bytes.range(0, usize::MAX).flatten().copied().collect();
                assert_eq!(read.len(), bytes.len());
                format!("read {}", shown(&read))
            }
            Err(status) => format!("read: {status:?}"),
        }
    }

    fn write(&mut self, start: usize, size: usize, text: &str) -> String {
        let buffer = self.buffer();
        let done = self.host().set_buffer(buffer, start, size, Bytes::copy_from_slice(text.as_bytes()));
        let verb = match (start, size) {
            (0, 0) => "prepend",
            (0, _) => "replace",
            _ => "append",
        };
        outcome(format!("{verb} {text}"), done.map_err(|status| format!("{status:?}")))
    }

    fn property(&mut self, path: &str) -> String {
        match self.host().property(&property_path(path)) {
            Err(status) => format!("{path}: {status:?}"),
            Ok(value) => format!("{path}={}", property_text(&value)),
        }
    }
}

/// Text as text, what is as long as a number as a number, all else as bytes.
fn property_text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(|c: char| c.is_control()) => format!("{text:?}"),
        _ => match value.try_into() {
            Ok(number) => u64::from_le_bytes(number).to_string(),
            Err(_) => format!("{value:?}"),
        },
    }
}

/// Dots separate the segments of a path; a tilde is a dot within one.
fn property_path(path: &str) -> Vec<u8> {
    path.replace('.', "\0").replace('~', ".").into_bytes()
}

fn written(done: Result<Written, Status>) -> Result<(), String> {
    match done {
        Ok(Written::Done) => Ok(()),
        Ok(Written::LeftOut(why)) => Err(format!("left out, {why}")),
        Err(status) => Err(format!("{status:?}")),
    }
}

fn outcome(what: String, done: Result<(), String>) -> String {
    match done {
        Ok(()) => what,
        Err(why) => format!("{what}: {why}"),
    }
}
