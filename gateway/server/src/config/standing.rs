//! One tenant's mistake is that tenant's alone: whose own files cannot be used goes on as it was, and everybody else gets what is new.
//!
//! A configuration is tried as a whole. When every problem there is lies with tenants, those are held: what their files last said
//! stands in their place, modules included, and the rest is tried again. A tenant whose files have never said anything good is
//! *unavailable*: its requests are refused. **Invariant:** what the gateway's own files say holds as a whole or not at all.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::check::{Code, Modules};
use super::gather::{self, Gathered, Own};
use super::inputs::Inputs;
use super::snapshot::Snapshot;
use crate::diagnostic::{self, Diagnostic, Severity};

/// The tenants whose files are not in use, by their names, and why.
pub type Held = BTreeMap<Arc<str>, String>;

/// What was last in use of every tenant's own files.
#[derive(Debug, Default)]
pub struct Standing {
    own: Own,
    /// By the tenant's name and the plugin's.
    code: HashMap<(Arc<str>, Arc<str>), Code>,
    /// Where to look for it, as long as nothing is in use.
    copy: Option<(Vec<PathBuf>, Inputs)>,
}

/// Why a configuration that had no problems could not be put into use.
#[derive(Debug)]
pub struct Unusable<E> {
    /// The tenant for whose sake, if it is one's.
    pub tenant: Option<Arc<str>>,
    /// What happened.
    pub why: Box<E>,
}

/// Why nothing was put into use.
#[derive(Debug)]
pub enum Refused<E> {
    /// The configuration has these problems.
    Problems(Vec<Diagnostic>),
    /// It had none, and could not be used.
    Unusable(E),
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
}

impl Standing {
    /// Nothing is in use yet; a copy of what once was is here.
    #[must_use]
    pub fn in_copy(copy: Option<(Vec<PathBuf>, Inputs)>) -> Self {
        Self { copy, ..Self::default() }
    }

    /// Reads the copy, if there is one.
    fn read_copy(&self) -> Self {
        let Some((paths, inputs)) = &self.copy else { return Self::default() };
        let mut gathered = gather::from_paths(paths, inputs, &HashMap::new());
        let own = std::mem::take(&mut gathered.own);
        let code = super::finish(gathered, Modules::default()).map(|(snapshot, _)| own_code(&snapshot));
        code.map(|code| Self { own, code, copy: None }).unwrap_or_default()
    }

    /// Reads a configuration and puts it into use, but for tenants with problems. One that is `firm` is not held: its problems are
    /// everybody's.
    ///
    /// # Errors
    /// When there are problems, or one in its use, that no tenant can be held for.
    pub fn settle<T, E: std::fmt::Display>(
        &self,
        paths: &[PathBuf],
        inputs: &Inputs,
        firm: Option<&str>,
        mut use_it: impl FnMut(Snapshot) -> Result<T, Unusable<E>>,
    ) -> Result<Settled<T>, Refused<E>> {
        let mut held = Held::new();
        let copied = OnceCell::new();
        loop {
            let last =
                if held.is_empty() || self.copy.is_none() { self } else { copied.get_or_init(|| self.read_copy()) };
            let mut gathered = gather::from_paths(paths, inputs, &last.in_place_of(&held));
            let own = std::mem::take(&mut gathered.own);
            match last.read(gathered, &held) {
                Ok((snapshot, warnings)) => {
                    let code = own_code(&snapshot);
                    match use_it(snapshot) {
                        Ok(made) => {
                            return Ok(Settled { made, standing: Self { own, code, copy: None }, warnings, held });
                        }
                        Err(Unusable { tenant: Some(tenant), why })
                            if own.contains_key(&tenant) && !held.contains_key(&tenant) && firm != Some(&*tenant) =>
                        {
                            held.insert(tenant, why.to_string());
                        }
                        Err(Unusable { why, .. }) => return Err(Refused::Unusable(*why)),
                    }
                }
                Err(problems) => match blame(&problems, &held, firm) {
                    Some(more) => held.extend(more),
                    None => return Err(Refused::Problems(problems)),
                },
            }
        }
    }

    fn read(&self, gathered: Gathered, held: &Held) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
        let code = self.code.iter().filter(|((tenant, _), _)| held.contains_key(tenant));
        let code = code.map(|(name, code)| (name.clone(), code.clone())).collect();
        let (mut snapshot, warnings) = super::finish(gathered, Modules::holding(code))?;
        for tenant in &mut snapshot.tenants {
            tenant.unavailable = held.contains_key(&tenant.name) && !self.own.contains_key(&tenant.name);
        }
        snapshot.held = Arc::new(held.clone());
        Ok((snapshot, warnings))
    }

    /// What stands in the place of held tenants' files.
    fn in_place_of(&self, held: &Held) -> HashMap<Arc<str>, Option<super::Node>> {
        held.keys().map(|name| (name.clone(), self.own.get(name).cloned())).collect()
    }
}

/// The tenants that all errors lie with, each with its own; nothing if one lies elsewhere, or holding one has not helped.
fn blame(problems: &[Diagnostic], held: &Held, firm: Option<&str>) -> Option<Held> {
    let mut blamed: BTreeMap<Arc<str>, Vec<Diagnostic>> = BTreeMap::new();
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
        let tenant = problem.tenant().filter(|tenant| !held.contains_key(*tenant) && firm != Some(&***tenant))?;
        blamed.entry(tenant.clone()).or_default().push(problem.clone());
    }
    Some(blamed.into_iter().map(|(tenant, problems)| (tenant, diagnostic::text(&problems))).collect())
}

/// The code of plugins that tenants have defined.
fn own_code(snapshot: &Snapshot) -> HashMap<(Arc<str>, Arc<str>), Code> {
    let own = snapshot.plugins.iter().filter_map(|plugin| {
        let tenant = snapshot.tenant(plugin.tenant?).name.clone();
        Some(((tenant, plugin.name.clone()), (plugin.code.clone(), plugin.digest)))
    });
    own.collect()
}
