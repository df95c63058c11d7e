//! Modules on other machines: who may fetch what, what lock files say of it, and the fetching, of all plugins at once.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rollout::{candidate, module_place};
use super::{Check, Section};
use crate::config::file::{self, File};
use crate::config::private::Configuration;
use crate::config::secrets::reason;
use crate::config::snapshot::Module;
use crate::config::tree::{Key, Node};
use crate::config::{Text, Written as _, lock};
use crate::diagnostic::Diagnostic;
use crate::modules::fetch::{FetchError, Host, Hosts, Remedy};
use crate::modules::lock::{LOCK_FILE, Lock, Locked, Update};
use crate::modules::reference::{Prefix, Remote, Version, authority};
use crate::modules::signature::{PublicKey, Signature};
use crate::modules::{Fetched, Settings, Wanted};
use crate::tls::trust;

/// No lock file, or file of authorities, is larger; a path to a device would never end.
const MAX_FILE: u64 = 16 << 20;

/// What the modules of a section's plugins must be like.
#[derive(Clone, Copy)]
pub(super) struct Trust<'t> {
    /// What references in a tenant's own files may begin with.
    from: &'t [Text<Prefix>],
    /// The keys, any of which they must be signed with; none if they need not be.
    signed_by: &'t [Text<PublicKey>],
}

impl Trust<'_> {
    /// Why a module is not one that may run, as a clause.
    fn distrusts(&self, module: &[u8], signature: Option<&Signature>) -> Option<String> {
        let keys = match self.signed_by.len() {
            1 => "the key".to_owned(),
            count => format!("one of the {count} keys"),
        };
        match signature {
            _ if self.signed_by.is_empty() => None,
            None => Some(format!("it has no signature, and needs one by {keys} in `signed_by`")),
            Some(signature) if self.signed_by.iter().any(|key| key.0.verifies(module, signature)) => None,
            Some(_) => Some(format!("its signature is not by {keys} in `signed_by`, or is of another module")),
        }
    }

    /// Whether it matters who has signed.
    pub(super) fn wants_signature(&self) -> bool {
        !self.signed_by.is_empty()
    }
}

impl<'t> Trust<'t> {
    /// Of the gateway's own.
    pub(super) fn of_gateway(modules: &'t file::Modules) -> Self {
        Self { from: &[], signed_by: &modules.signed_by }
    }

    /// Of a tenant's.
    pub(super) fn of_tenant(modules: &'t file::Modules, tenant: &'t file::TenantModules) -> Self {
        let file::TenantModules { from, signed_by } = &modules.tenants;
        Self {
            from: tenant.from.as_ref().or(from.as_ref()).map_or(&[], Vec::as_slice),
            signed_by: tenant.signed_by.as_ref().or(signed_by.as_ref()).map_or(&[], Vec::as_slice),
        }
    }
}

/// What a plugin's reference comes down to.
#[derive(Clone)]
pub(super) struct Order {
    wanted: Wanted,
    /// The lock file that its reference belongs in.
    lock: PathBuf,
}

/// What is known of the modules of other machines that one configuration names.
#[derive(Default)]
pub(super) struct Orders {
    /// By the section's name and the plugin's.
    orders: HashMap<(String, String), Order>,
    fetched: HashMap<Wanted, Result<Fetched, FetchError>>,
    locks: HashMap<PathBuf, Option<Arc<Lock>>>,
}

impl Check<'_> {
    /// Fetches the modules of all plugins that are on other machines.
    pub(super) fn fetch(&mut self, tree: &Node, file: &File, sections: &[Section<'_>]) {
        let hosts = self.registries(tree, file);
        let mut first = None;
        for section in sections {
            for (key, node) in section.node.get("plugins").into_iter().flat_map(Node::entries) {
                let Some(plugin) = section.plugins.get(&key.name) else { continue };
                first = first.or(self.order_of(plugin, (key, node), section));
                let written = node.get("rollout").and_then(|rollout| rollout.get("candidate"));
                if let (Some((next, key)), Some(written)) = (candidate(plugin, key), written) {
                    first = first.or(self.order_of(&next, (&key, written), section));
                }
            }
        }
        let Some(first) = first else { return };
        let fetcher = self.modules.fetcher.clone();
        if !fetcher.keeps() {
            let problem = Diagnostic::warning("modules from other machines are not kept when the gateway ends");
            let problem = problem.at(&first.span, "it cannot start again while this cannot be fetched");
            self.report(problem.help("give it a directory with `--cache`"));
        }
        let refresh = file.modules.refresh.as_ref().map(|refresh| refresh.0);
        let settings = Settings { hosts: Arc::new(hosts), refresh, timeout: file.modules.timeout.0 };
        let wanted: Vec<Wanted> = self.modules.remote.orders.values().map(|order| order.wanted.clone()).collect();
        self.modules.remote.fetched = fetcher.get(wanted, &settings);
    }

    /// Notes what is to be fetched for a plugin, if it is anything; where that is written.
    fn order_of<'n>(
        &mut self,
        plugin: &file::Plugin,
        (key, node): (&Key, &'n Node),
        section: &Section<'_>,
    ) -> Option<&'n Node> {
        let Module::Remote(remote) = &plugin.module.0 else { return None };
        let place = module_place(node).filter(|_| self.modules.held(section.name, &key.name).is_none())?;
        match self.order(remote, plugin, (key, place), section.trust) {
            Ok(order) => {
                _ = self.modules.remote.orders.insert((section.name.to_owned(), key.name.clone()), order);
                Some(place)
            }
            Err(problem) => {
                self.report(problem);
                None
            }
        }
    }

    /// What is to be fetched for a plugin, or why nothing is.
    fn order(
        &mut self,
        remote: &Remote,
        plugin: &file::Plugin,
        (key, place): (&Key, &Node),
        trust: Trust<'_>,
    ) -> Result<Order, Diagnostic> {
        let refuse = |why: &str| {
            Diagnostic::error(format!("the module `{}` of plugin `{}` cannot be fetched", place.written(), key.name))
                .at(&place.span, why)
        };
        if place.has_secret() {
            return Err(refuse("a reference is shown in logs, so it has no secrets in it")
                .help("write them as `username` and `password` under `modules.registries`"));
        }
        if let Some(tenant) = &place.span.source.tenant
            && !trust.from.iter().any(|prefix| prefix.0.covers(remote))
        {
            let help = match trust.from {
                [] => "this tenant may fetch nothing".to_owned(),
                some => format!("this tenant may fetch what begins with {}", listed(some)),
            };
            return Err(refuse("not granted to this tenant").help(help).help(format!(
                "operators grant it with `modules.from` under `tenants.{tenant}`, or `modules.tenants.from`"
            )));
        }
        let is_pinned = plugin.sha256.is_some()
            || matches!(remote, Remote::Oci(oci) if matches!(oci.version, Version::Pinned { .. }));
        let (lock, said) = self.locked(remote, place).map_err(|why| refuse(&why))?;
        let (manifest, module) = match said {
            Said::Locked(Locked { manifest, module, .. }) => (manifest, Some(module)),
            Said::Missing if !is_pinned => {
                return Err(refuse(&format!("it is not in `{}`", lock.display()))
                    .help("`portcullis plugin lock FILE…` adds it, given the files of the configuration")
                    .help("over the admin listener, `PUT /v1/tenants/NAME?lock=missing` does"));
            }
            Said::Missing | Said::Nothing => (None, None),
        };
        let module = plugin.sha256.as_ref().map(|digest| digest.0).or(module);
        let signed = trust.wants_signature();
        let anew = update_of(&lock, place) == Some(Update::All) && !is_pinned;
        Ok(Order { wanted: Wanted { remote: remote.pinned(manifest), module, signed, anew }, lock })
    }

    /// The lock file of a reference, and what it says of it.
    fn locked(&mut self, remote: &Remote, place: &Node) -> Result<(PathBuf, Said), String> {
        let path = place.span.source.resolve(LOCK_FILE)?;
        let locks = &mut self.modules.remote.locks;
        let lock = match locks.get(&path) {
            Some(known) => known.clone(),
            None => locks.entry(path.clone()).or_insert(read_lock(&path, place)?).clone(),
        };
        let said = match lock.map(|lock| lock.modules.get(&remote.text()).cloned()) {
            None => Said::Nothing,
            Some(None) => Said::Missing,
            Some(Some(locked)) => Said::Locked(locked),
        };
        let said = match (update_of(&path, place), said) {
            (Some(Update::All), _) | (Some(Update::Missing), Said::Missing) => Said::Nothing,
            (_, said) => said,
        };
        Ok((path, said))
    }

    /// What was fetched for a plugin; nothing if it was not, which has been reported.
    pub(super) fn fetched(&mut self, section: &str, key: &Key, place: &Node) -> Option<Fetched> {
        let order = self.modules.remote.orders.get(&(section.to_owned(), key.name.clone()))?.clone();
        let refuse = |problem: fn(String) -> Diagnostic| {
            problem(format!("the module `{}` of plugin `{}` cannot be fetched", place.written(), key.name))
        };
        match self.modules.remote.fetched.get(&order.wanted)?.clone() {
            Ok(fetched) => {
                if let Some(error) = &fetched.instead {
                    let problem = refuse(Diagnostic::warning).at(&place.span, error.to_string());
                    self.report(problem.help("what came the last time goes on being used").maybe_help(help(error)));
                }
                if let Module::Remote(remote) = Module::read(place.written()).ok()?
                    && let Some(locking) = place.span.source.inputs.locking()
                {
                    let Fetched { module, digest, manifest, .. } = &fetched;
                    let locked = Locked { manifest: *manifest, module: *digest, size: module.len() };
                    locking.note(&order.lock, remote.text(), locked);
                }
                Some(fetched)
            }
            Err(error) => {
                self.report(refuse(Diagnostic::error).at(&place.span, error.to_string()).maybe_help(help(&error)));
                None
            }
        }
    }

    /// Whether a module is signed as it has to be; reports it if not.
    pub(super) fn is_trusted(
        &mut self,
        module: &[u8],
        signature: Option<&Signature>,
        trust: Trust<'_>,
        (key, place): (&Key, &Node),
    ) -> bool {
        let Some(why) = trust.distrusts(module, signature) else { return true };
        let problem =
            Diagnostic::error(format!("the module `{}` of plugin `{}` is not trusted", place.written(), key.name));
        let where_ = match Module::read(place.written()) {
            Ok(Module::Remote(Remote::Oci(_))) => {
                "`portcullis plugin push --sign KEY` pushes a signature with the module"
            }
            _ => "its signature lies beside it, with `.sig` after its name: `portcullis plugin sign` makes it",
        };
        self.report(problem.at(&place.span, why).help(where_));
        false
    }

    /// What is known of the hosts that modules come from.
    fn registries(&mut self, tree: &Node, file: &File) -> Hosts {
        let nodes = tree.get("modules").and_then(|modules| modules.get("registries"));
        let mut hosts = Hosts::new();
        for (key, node) in nodes.into_iter().flat_map(Node::entries) {
            let Some(registry) = file.modules.registries.get(&key.name) else { continue };
            let host = match authority(&key.name) {
                Ok(host) => host,
                Err(why) => {
                    let problem = Diagnostic::error(format!("`{}` is no registry", key.name)).at(&key.span, why);
                    self.report(problem.help("write it as references have it, without `oci://` or `https://`"));
                    continue;
                }
            };
            if let Some(known) = self.registry(registry, node) {
                hosts.insert(host, known);
            }
        }
        hosts
    }

    fn registry(&mut self, registry: &file::Registry, node: &Node) -> Option<Host> {
        let login = match (&registry.username, &registry.password) {
            (Some(user), Some(password)) => Some((user.clone(), Configuration::of(password))),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let problem = Diagnostic::error("`username` and `password` go together");
                self.report(problem.at(&node.span, "one of them is missing"));
                return None;
            }
        };
        if let Some(place) = node.get("password")
            && !place.has_secret()
        {
            let problem = Diagnostic::error("the registry's password stands in the configuration itself")
                .at(&place.span, "whoever reads the configuration has it")
                .help("name where it is, as `${file:…}` or `${env:…}`");
            self.report(problem);
        }
        let roots = match node.get("ca") {
            Some(place) => Some(self.registry_roots(place)?),
            None => None,
        };
        Some(Host { login, roots, plain: registry.plain_http })
    }

    fn registry_roots(&mut self, place: &Node) -> Option<Arc<rustls::RootCertStore>> {
        let source = &place.span.source;
        let content = source.resolve(place.written());
        let content = content.and_then(|path| source.inputs.read(&path, MAX_FILE).map_err(|error| reason(&error)));
        match content.and_then(|content| trust::roots(&content)) {
            Ok(roots) => Some(roots),
            Err(why) => {
                self.report(Diagnostic::error(format!("`{}` cannot be used", place.written())).at(&place.span, why));
                None
            }
        }
    }
}

/// What lock files say of a reference.
enum Said {
    /// There is no lock file.
    Nothing,
    /// It is not in the lock file.
    Missing,
    /// What it stands for.
    Locked(Locked),
}

/// What is to be made anew of a lock file that a place belongs to; nothing where it holds.
fn update_of(lock: &Path, place: &Node) -> Option<Update> {
    place.span.source.inputs.locking()?.of(lock)
}

/// What a lock file says; nothing if there is none.
fn read_lock(path: &Path, place: &Node) -> Result<Option<Arc<Lock>>, String> {
    let unreadable = |why: String| format!("`{}` cannot be read: {why}", path.display());
    let text = match place.span.source.inputs.read(path, MAX_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(reason(&error))),
    };
    let text = std::str::from_utf8(&text).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    lock(text).map(|lock| Some(Arc::new(lock))).map_err(unreadable)
}

/// What to do about a failure, for who writes configurations.
fn help(error: &FetchError) -> Option<String> {
    Some(match error.remedy()? {
        Remedy::LogIn(host) => format!("set `username` and `password` for `{host}` under `modules.registries`"),
        Remedy::LogInAnew(host) => {
            format!("it refuses the `username` and `password` that `modules.registries` has for `{host}`")
        }
        Remedy::Authority(host) => {
            format!("if it should be trusted, name its authority as `ca` for `{host}` under `modules.registries`")
        }
        Remedy::Plain(host) => format!("allow that with `plain_http: true` for `{host}` under `modules.registries`"),
        Remedy::Time => "`modules.timeout` says how long fetching may take".to_owned(),
        Remedy::Words(words) => words.to_owned(),
    })
}

fn listed(prefixes: &[Text<Prefix>]) -> String {
    prefixes.iter().map(|prefix| format!("`{}`", prefix.0.write())).collect::<Vec<_>>().join(" or ")
}
