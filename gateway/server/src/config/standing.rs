//! One tenant's mistake is that tenant's alone: whose own files cannot be used goes on as it was, and everybody else gets what is new.
//!
//! A configuration is tried as a whole. When every problem there is lies with tenants, those are held: what their files last said
//! stands in their place, modules included, and the rest is tried again. A tenant whose files have never said anything good is
//! *unavailable*: its requests are refused. **Invariant:** what the gateway's own files say holds as a whole or not at all.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_core::route::HostPattern;

use super::check::{Code, Modules, Taken};
use super::gather::{self, Gathered, Out, Own, Unread};
use super::inputs::Inputs;
use super::snapshot::{Module, Plugin, Snapshot};
use super::{Node, Whole};
use crate::diagnostic::{self, Diagnostic, Severity};
use crate::modules::Fetcher;

/// The tenants whose files are not in use, by their names, and why.
pub type Held = BTreeMap<Arc<str>, String>;

/// What was last in use, and what it was read from.
#[derive(Debug, Default)]
pub struct Standing {
    /// What every tenant's own files said.
    own: Own,
    /// A digest of what the gateway's own files said.
    text: [u8; 32],
    inputs: Inputs,
    /// All of it; nothing as long as nothing is in use.
    snapshot: Option<Arc<Snapshot>>,
    /// Where to look for what tenants' own files said, as long as nothing is in use.
    copy: Option<(Vec<PathBuf>, Inputs)>,
    /// Where modules of other machines come from.
    fetcher: Arc<Fetcher>,
}

/// What may differ from what is in use.
#[derive(Clone, Copy, Debug)]
pub enum Looking<'a> {
    /// Anything: whatever has changed is read.
    Everywhere,
    /// This tenant, and what the gateway's own files say. Its problems are everybody's: it is not held for them.
    At(&'a str),
}

/// A configuration that was put into use.
#[derive(Debug)]
pub struct Used<T> {
    /// What that gave.
    pub made: T,
    /// The configuration as it is in use.
    pub snapshot: Arc<Snapshot>,
}

/// Why a configuration that had no problems could not be put into use.
#[derive(Debug)]
pub struct Unusable<E> {
    /// The tenant for whose sake, if it is one's.
    pub tenant: Option<Arc<str>>,
    /// What happened.
    pub why: Box<E>,
    /// The same where it was written; nothing if it was written nowhere.
    pub problems: Vec<Diagnostic>,
}

impl<E: std::fmt::Display> Unusable<E> {
    /// As operators read it.
    pub(crate) fn text(&self) -> String {
        if self.problems.is_empty() { self.why.to_string() } else { diagnostic::text(&self.problems) }
    }
}

/// Why nothing was put into use.
#[derive(Debug)]
pub enum Refused<E> {
    /// The configuration has these problems.
    Problems(Vec<Diagnostic>),
    /// It had none, and could not be used.
    Unusable(Unusable<E>),
}

impl<E: std::fmt::Display> Refused<E> {
    /// Why, as operators read it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Problems(problems) => diagnostic::text(problems),
            Self::Unusable(unusable) => unusable.text(),
        }
    }

    /// Whether all of it is about this tenant, so that a reading of the others would say no more.
    fn is_about(&self, tenant: &str) -> bool {
        match self {
            Self::Problems(problems) => is_about(problems, tenant),
            Self::Unusable(unusable) => unusable.tenant.as_deref() == Some(tenant),
        }
    }
}

/// What came of a configuration that was put into use.
#[derive(Debug)]
pub struct Settled<T> {
    /// What putting it into use gave.
    pub made: T,
    /// What now stands.
    pub standing: Standing,
    /// What operators should know of it.
    pub warnings: Vec<Diagnostic>,
    /// Whose files are not in use.
    pub held: Held,
    /// What all of it was read from.
    pub inputs: Inputs,
}

impl Standing {
    /// Nothing is in use yet; a copy of what once was is here.
    #[must_use]
    pub fn in_copy(copy: Option<(Vec<PathBuf>, Inputs)>, fetcher: &Arc<Fetcher>) -> Self {
        Self { copy, fetcher: fetcher.clone(), ..Self::default() }
    }

    /// What is in use; nothing as long as nothing is.
    pub(crate) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Reads the copy, if there is one.
    fn read_copy(&self) -> Self {
        let Some((paths, inputs)) = &self.copy else { return Self::default() };
        let mut gathered = gather::from_paths(paths, inputs, Unread::default());
        let own = std::mem::take(&mut gathered.own);
        let read = super::finish(gathered, Modules::from(&self.fetcher), None);
        read.map(|whole| Self { own, snapshot: Some(Arc::new(whole.snapshot)), ..Self::default() }).unwrap_or_default()
    }

    /// Reads a configuration and puts it into use, but for tenants with problems: `use_it` is also shown where it was written. Paths are
    /// noted in `inputs`, which is empty.
    ///
    /// # Errors
    /// When there are problems, or one in its use, that no tenant can be held for.
    pub(crate) fn settle<T, E: std::fmt::Display>(
        &self,
        paths: &[PathBuf],
        inputs: &Inputs,
        looking: Looking<'_>,
        mut use_it: impl FnMut(Snapshot, &Node) -> Result<Used<T>, Unusable<E>>,
    ) -> Result<Settled<T>, Refused<E>> {
        if let Some(unread) = self.unread(looking) {
            match (self.settle_with(paths, inputs, (looking, &unread), &mut use_it), looking) {
                (Ok(settled), _) => return Ok(settled),
                (Err(refused), Looking::At(tenant)) if refused.is_about(tenant) => return Err(refused),
                (Err(_), _) => inputs.clear(),
            }
            if let (Looking::At(tenant), Out::AllBut(read, before)) = (looking, unread) {
                let problems = self.problems_among_neighbours(paths, inputs, tenant, (read, before));
                if is_about(&problems, tenant) {
                    return Err(Refused::Problems(problems));
                }
                inputs.clear();
            }
        }
        self.settle_with(paths, inputs, (looking, &Out::Nobody), &mut use_it)
    }

    /// The same of a configuration from which tenants are left out: what there was of them is taken over. With thousands of tenants that
    /// is what makes a change of one quick. Whatever is then out of order, and not with that one alone, is left to a further reading.
    fn settle_with<T, E: std::fmt::Display>(
        &self,
        paths: &[PathBuf],
        inputs: &Inputs,
        (looking, out): (Looking<'_>, &Out),
        use_it: &mut impl FnMut(Snapshot, &Node) -> Result<Used<T>, Unusable<E>>,
    ) -> Result<Settled<T>, Refused<E>> {
        let firm = if let Looking::At(tenant) = looking { Some(tenant) } else { None };
        let mut held = Held::new();
        let copied = OnceCell::new();
        loop {
            let last =
                if held.is_empty() || self.copy.is_none() { self } else { copied.get_or_init(|| self.read_copy()) };
            let unread = Unread { held: last.in_place_of(&held), out: out.clone() };
            let mut gathered = gather::from_paths(paths, inputs, unread);
            let (own, text) = (std::mem::take(&mut gathered.own), gathered.text);
            let taken = last.taken(&gathered, &own, out)?;
            match last.read(gathered, &held, taken.as_ref()) {
                Ok(Whole { snapshot, tree, warnings }) => match use_it(snapshot, &tree) {
                    Ok(Used { made, snapshot }) => {
                        let (own, inputs) = match taken {
                            Some(taken) => (self.own_with(own, &taken), inputs.with(&self.inputs, &taken.gone)),
                            None => (own, inputs.clone()),
                        };
                        let (fetcher, snapshot) = (self.fetcher.clone(), Some(snapshot));
                        let standing = Self { own, text, inputs: inputs.clone(), snapshot, copy: None, fetcher };
                        return Ok(Settled { made, standing, warnings, held, inputs });
                    }
                    Err(unusable) => match unusable.tenant.clone() {
                        Some(tenant)
                            if own.contains_key(&tenant) && !held.contains_key(&tenant) && firm != Some(&*tenant) =>
                        {
                            held.insert(tenant, unusable.text());
                        }
                        _ => return Err(Refused::Unusable(unusable)),
                    },
                },
                Err(problems) => match self.blame(&problems, &held, firm).filter(|blamed| !blamed.is_empty()) {
                    Some(more) => held.extend(more),
                    None => return Err(Refused::Problems(problems)),
                },
            }
        }
    }

    /// What is out of order with a tenant where only those are read who have hosts at or around its own, besides those who are read
    /// anyhow: how its routes get on with each other, and its hosts with theirs, is seen when all of them are there.
    fn problems_among_neighbours(
        &self,
        paths: &[PathBuf],
        inputs: &Inputs,
        tenant: &str,
        (mut read, before): (BTreeSet<Arc<str>>, Inputs),
    ) -> Vec<Diagnostic> {
        let Some(earlier) = &self.snapshot else { return Vec::new() };
        let held = self.in_place_of(&earlier.held);
        let gather = |read: &BTreeSet<Arc<str>>| {
            let out = Out::AllBut(read.clone(), before.clone());
            gather::from_paths(paths, inputs, Unread { held: held.clone(), out })
        };
        let claimed: Vec<HostPattern> = gather(&read).own.get(tenant).map(|own| hosts(own)).unwrap_or_default();
        let is_near = |theirs: &HostPattern| {
            claimed.iter().any(|host| host == theirs || host.covers(theirs) || theirs.covers(host))
        };
        let near = earlier.tenants.iter().filter(|other| other.hosts.iter().any(is_near));
        read.extend(near.map(|other| other.name.clone()));
        inputs.clear();
        let gathered = gather(&read);
        if gathered.text != self.text {
            return Vec::new();
        }
        self.read(gathered, &earlier.held, None).err().unwrap_or_default()
    }

    /// Who need not be read; nothing where everybody is. Those who are held are tried again, and what belongs to a listener is made with
    /// it.
    fn unread(&self, looking: Looking<'_>) -> Option<Out> {
        let earlier = self.snapshot.as_ref().filter(|_| !self.own.is_empty())?;
        let listeners = earlier.tcp_routes.iter().filter_map(|route| Some(earlier.tenant(route.tenant?).name.clone()));
        let mut read: BTreeSet<Arc<str>> = earlier.held.keys().cloned().chain(listeners).collect();
        Some(match looking {
            Looking::At(changed) => {
                read.insert(changed.into());
                Out::AllBut(read, self.inputs.clone())
            }
            Looking::Everywhere => {
                read.extend(self.due(earlier));
                let is_as_before = |tenant: &Arc<str>| self.own.contains_key(tenant) && !read.contains(tenant);
                Out::These(self.inputs.unchanged().into_iter().filter(is_as_before).collect())
            }
        })
    }

    /// What is taken over where tenants were left out. No problem is told where the gateway's own files say something else than they did.
    fn taken<E>(&self, gathered: &Gathered, own: &Own, out: &Out) -> Result<Option<Taken>, Refused<E>> {
        let names: Vec<&Arc<str>> = match out {
            Out::Nobody => return Ok(None),
            Out::These(_) => self.own.keys().filter(|name| !gathered.left_out.contains(*name)).collect(),
            Out::AllBut(read, _) => read.iter().collect(),
        };
        let earlier = self.snapshot.clone().filter(|_| gathered.text == self.text);
        let Some(earlier) = earlier else { return Err(Refused::Problems(Vec::new())) };
        let gone = names.into_iter().filter(|name| self.own.contains_key(*name) && !own.contains_key(*name));
        Ok(Some(Taken { gone: gone.cloned().collect(), earlier }))
    }

    /// What every tenant's own files said, after a change of some.
    fn own_with(&self, changed: Own, taken: &Taken) -> Own {
        let mut own = self.own.clone();
        taken.gone.iter().for_each(|name| _ = own.remove(name));
        own.extend(changed);
        own
    }

    /// The tenants with a module on another machine that is to be asked for again.
    fn due(&self, snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
        let Some(refresh) = snapshot.refresh else { return BTreeSet::new() };
        let due =
            snapshot.plugins().flat_map(|(_, plugin)| plugin.with_candidate()).filter(|plugin| match &plugin.module {
                Module::Remote(remote) => self.fetcher.is_due(remote, refresh),
                Module::Builtin(_) | Module::File(_) => false,
            });
        due.filter_map(|plugin| Some(snapshot.tenant(plugin.tenant?).name.clone())).collect()
    }

    fn read(&self, gathered: Gathered, held: &Held, taken: Option<&Taken>) -> Result<Whole, Vec<Diagnostic>> {
        let code = self.snapshot.as_ref().map(|snapshot| code_of(held, snapshot)).unwrap_or_default();
        let mut whole = super::finish(gathered, Modules::holding(code, &self.fetcher), taken)?;
        let never_good = held.keys().filter(|name| !self.own.contains_key(*name));
        never_good.for_each(|name| whole.snapshot.tenants.make_unavailable(name));
        whole.snapshot.held = Arc::new(held.clone());
        Ok(whole)
    }

    /// The tenants that all errors lie with, each with its own; nothing if one lies elsewhere, or holding them has not helped. Of two who
    /// are at odds it is the one whose files were not in use like this.
    fn blame(&self, problems: &[Diagnostic], held: &Held, firm: Option<&str>) -> Option<Held> {
        let in_use = OnceCell::new();
        let is_in_use = |tenant: &str| {
            let earlier = self.snapshot.as_ref().is_some_and(|earlier| !earlier.held.contains_key(tenant));
            earlier && in_use.get_or_init(|| self.inputs.unchanged()).contains(tenant)
        };
        let mut blamed: BTreeMap<Arc<str>, Vec<Diagnostic>> = BTreeMap::new();
        for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
            let of: Vec<_> =
                problem.tenants().filter(|tenant| !held.contains_key(*tenant) && firm != Some(&***tenant)).collect();
            let tenant = match of.as_slice() {
                [one] => one,
                several => several.iter().find(|tenant| !is_in_use(tenant)).or(several.first())?,
            };
            blamed.entry(Arc::clone(tenant)).or_default().push(problem.clone());
        }
        Some(blamed.into_iter().map(|(tenant, problems)| (tenant, diagnostic::text(&problems))).collect())
    }

    /// What stands in the place of held tenants' files.
    fn in_place_of(&self, held: &Held) -> HashMap<Arc<str>, Option<Arc<Node>>> {
        held.keys().map(|name| (name.clone(), self.own.get(name).cloned())).collect()
    }
}

/// Whether there are errors, and a place of each is in this tenant's own files.
fn is_about(problems: &[Diagnostic], tenant: &str) -> bool {
    let mut errors = problems.iter().filter(|problem| problem.severity == Severity::Error).peekable();
    errors.peek().is_some() && errors.all(|problem| problem.concerns(tenant))
}

/// The hosts that a tenant's own file names.
fn hosts(own: &Node) -> Vec<HostPattern> {
    let named = own.get("hosts").map_or(&[][..], Node::list);
    named.iter().filter_map(|host| HostPattern::parse(host.json().as_str()?).ok()).collect()
}

/// The code of plugins that these tenants have defined, by the tenant's name and the plugin's.
fn code_of(held: &Held, snapshot: &Snapshot) -> HashMap<(Arc<str>, Arc<str>), Code> {
    let tenants = held.keys().filter_map(|name| snapshot.tenants.named(name));
    let own = tenants.flat_map(|tenant| {
        let all = tenant.share.plugins.iter().flat_map(Plugin::with_candidate);
        all.map(|plugin| ((tenant.name.clone(), plugin.name.clone()), (plugin.code.clone(), plugin.digest)))
    });
    own.collect()
}
