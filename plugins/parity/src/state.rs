//! What the guest remembers: its roots with their scripts, and which exchange is of which root.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use crate::script::{Part, Script, Step};

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
    /// How many more times the allocator has nothing to give.
    static BARREN: Cell<u32> = const { Cell::new(0) };
}

#[derive(Default)]
struct State {
    roots: BTreeMap<u32, Root>,
    contexts: HashMap<u32, Context>,
}

#[derive(Default)]
struct Root {
    label: String,
    script: Script,
    known: BTreeMap<String, Vec<u8>>,
    turns: HashMap<&'static str, u32>,
}

struct Context {
    root: u32,
    turns: HashMap<&'static str, u32>,
}

/// What is to be done in a callback.
pub(crate) struct Told {
    pub(crate) root: u32,
    pub(crate) label: String,
    pub(crate) steps: Vec<Step>,
}

/// Begins a context; one without a parent is a root.
pub(crate) fn create(id: u32, parent: u32) {
    STATE.with_borrow_mut(|state| {
        if parent == 0 {
            state.roots.insert(id, Root::default());
            return;
        }
        state.contexts.insert(id, Context { root: parent, turns: HashMap::new() });
        if let Some(root) = state.roots.get_mut(&parent) {
            root.known.insert("ctx".to_owned(), id.to_le_bytes().to_vec());
            root.known.insert("root".to_owned(), parent.to_le_bytes().to_vec());
        }
    });
}

/// Gives a root its label and script.
pub(crate) fn configure(id: u32, configuration: &str) {
    let (label, script) = configuration.split_once('\n').unwrap_or((configuration, ""));
    STATE.with_borrow_mut(|state| {
        if let Some(root) = state.roots.get_mut(&id) {
            root.known.insert("label".to_owned(), format!("{label}|said").into_bytes());
            (root.label, root.script) = (label.to_owned(), Script::parse(script));
        }
    });
}

/// What a callback of a context is to do, now that it has come once more. A root's clock is heard only while there are exchanges:
/// a host may have other VMs with the same configuration, in which it runs too.
pub(crate) fn enter(id: u32, callback: &'static str, part: Part) -> Option<Told> {
    STATE.with_borrow_mut(|state| {
        let root_id = state.contexts.get(&id).map_or(id, |context| context.root);
        if callback == "tick" && !state.contexts.values().any(|context| context.root == root_id) {
            return None;
        }
        let root = state.roots.get_mut(&root_id)?;
        let turns = state.contexts.get_mut(&id).map_or(&mut root.turns, |context| &mut context.turns);
        let turn = turns.entry(callback).or_default();
        *turn += 1;
        let mut steps = root.script.steps(callback, part, *turn);
        if root.script.names("trace") {
            steps.splice(0..0, root.script.steps("trace", part, *turn));
        }
        Some(Told { root: root_id, label: root.label.clone(), steps })
    })
}

/// Ends a context; the label of the root it was an exchange of.
pub(crate) fn delete(id: u32) -> Option<String> {
    STATE.with_borrow_mut(|state| {
        let context = state.contexts.remove(&id)?;
        state.roots.get(&context.root).map(|root| root.label.clone())
    })
}

/// What a root has given a name.
pub(crate) fn known(root: u32, name: &str) -> Vec<u8> {
    STATE.with_borrow(|state| state.roots.get(&root).and_then(|root| root.known.get(name).cloned()).unwrap_or_default())
}

/// Gives something a name.
pub(crate) fn learn(root: u32, name: &str, value: Vec<u8>) {
    STATE.with_borrow_mut(|state| {
        if let Some(root) = state.roots.get_mut(&root) {
            root.known.insert(name.to_owned(), value);
        }
    });
}

/// From now on, the allocator has nothing to give that many times.
pub(crate) fn starve(times: u32) {
    BARREN.set(times);
}

/// Whether the allocator has nothing to give this time.
pub(crate) fn is_barren() -> bool {
    let left = BARREN.get();
    BARREN.set(left.saturating_sub(1));
    left > 0
}
