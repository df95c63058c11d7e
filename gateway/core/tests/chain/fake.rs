//! Guests without wasm: scripted filters behind the real `Host`, in VMs that keep the real tables.
//!
//! Asserts what the ABI promises guests: one create and one delete per context, nothing after the delete, and no callback into a
//! VM that died.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_abi::MapType;
use portcullis_core::context::{CalloutResponse, ContextId, ContextRef, Contexts, Owner, UpstreamId};
use portcullis_core::exchange::{ExchangeId, Exchanges};
use portcullis_core::filter::{Callback, ChainFilter, Failed, FilterIndex, Filters, NotOpened, Speaks, VmIndex};
use portcullis_core::host::Host;

use crate::scene::Scene;
use crate::script::{Action, Script, describe};

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

/// One life of a VM.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) contexts: Contexts,
    known: BTreeMap<ContextId, Known>,
    /// Which context waits for which callout, by token.
    pub(crate) waiting: HashMap<u32, (String, ContextId)>,
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

    /// Every VM has a root for each filter, so that a script's place is its root's index.
    fn start(&mut self, vm: u32, life: u32) {
        let mut contexts = Contexts::new(VmIndex(vm), life, self.upstreams.clone(), Bytes::from_static(b"vm config"));
        for script in self.scripts.iter() {
            contexts.vm_id = format!("vm of {}", script.name).into();
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
        let actions = self.script(owner.root).actions(when, nth).unwrap_or(&[Action::Resume]).to_vec();
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
        let name = self.script(owner.root).name.clone();
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
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        let script = self.script(owner.root).clone();
        if script.is_crowded_out {
            return Err(NotOpened::NoRoom);
        }
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
                return Err(NotOpened::Failed);
            }
        }
        Ok(ContextRef { vm: filter.vm, life, id })
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        let is_tcp = self.scripts.iter().any(|script| script.speaks == Speaks::Tcp);
        let vm = self.vm(context.vm.0);
        if vm.contexts.life != context.life {
            return Err(Failed);
        }
        let known = vm.known.get_mut(&context.id).expect("contexts are created before they are called");
        let (life, name) = (known.life, describe(callback).0);
        known.life = match callback {
            Callback::Headers(..) | Callback::Body(..) | Callback::Trailers(..) => Life::Created,
            Callback::NewConnection | Callback::Data(..) | Callback::Closed(..) => Life::Created,
            // For TCP it comes after done, as the ABI's text has it.
            Callback::Log if is_tcp => Life::Done,
            Callback::Log => Life::Logged,
            Callback::Done => Life::Done,
            Callback::Delete => Life::Deleted,
        };
        assert!(life <= known.life && life != Life::Deleted, "{name} after {life:?}");
        let owner = known.owner;
        let nth = count(known, name);
        vm.contexts.enter(context.id);
        let actions = self.script(owner.root).actions(name, nth).unwrap_or_default().to_vec();
        let args = describe(callback).1;
        let answer = self.play(exchanges, context.vm.0, context.id, owner, (name, &args), &actions);
        self.vm(context.vm.0).contexts.leave();
        if answer.is_err() {
            self.die(context.vm.0, exchanges);
        }
        answer
    }

    fn close(&mut self, _: &mut Exchanges, context: ContextRef) {
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
        "response_headers" | "resume_response" | "upstream_data" => MapType::HttpResponseHeaders,
        _ => MapType::HttpRequestHeaders,
    }
}
