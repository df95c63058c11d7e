//! The code of plugins: found, read and compared with its digest.
//!
//! Whether it is a module that can run is left to the engine, before the snapshot is used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_module::{Manifest, Outline, Unreadable};
use sha2::{Digest as _, Sha256};

use super::remote::{Orders, Trust};
use super::rollout::module_place;
use super::{Check, Section};
use crate::builtin::{self, Builtin};
use crate::config::file;
use crate::config::names::close_or_all;
use crate::config::secrets::reason;
use crate::config::snapshot::Module;
use crate::config::tree::{Key, Node};
use crate::config::written::{Digest, Written};
use crate::diagnostic::{Diagnostic, Span};
use crate::modules::Fetcher;
use crate::modules::fetch::MAX_MODULE;
use crate::modules::signature::Signature;

/// A signature is shorter.
const MAX_SIGNATURE: u64 = 4 << 10;

/// A module and its SHA-256 digest.
pub(crate) type Code = (Bytes, [u8; 32]);

/// Code that is known already.
#[derive(Default)]
pub(crate) struct Modules {
    /// By the file it was read from, so that many plugins of one file share it.
    files: HashMap<PathBuf, Code>,
    /// That of tenants whose files are not looked at, by the tenant's name and the plugin's.
    held: HashMap<(Arc<str>, Arc<str>), Code>,
    /// Where that of other machines comes from.
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) remote: Orders,
}

impl Check<'_> {
    /// A plugin's code with its digest.
    pub(super) fn module(
        &mut self,
        plugin: &file::Plugin,
        key: &Key,
        node: &Node,
        section: &Section<'_>,
    ) -> Option<Code> {
        let place = module_place(node)?;
        let found = match (self.modules.held(section.name, &key.name), &plugin.module.0) {
            // What is in use has been found good.
            (Some(code), _) => return Some(code),
            (None, Module::Builtin(name)) => builtin_code(name, &place.span).map(|code| (code, None)),
            (None, Module::File(path)) => self.file(&path.to_string_lossy(), key, place, section.trust),
            (None, Module::Remote(_)) => {
                let fetched = self.fetched(section.name, key, place)?;
                Ok(((fetched.module, fetched.digest.0), fetched.signature))
            }
        };
        let ((code, digest), signature) = match found {
            Ok(found) => found,
            Err(problem) => {
                self.report(problem);
                return None;
            }
        };
        // What comes in the binary is as good as the binary.
        let is_builtin = matches!(plugin.module.0, Module::Builtin(_));
        if !is_builtin && !self.is_trusted(&code, signature.as_ref(), section.trust, (key, place)) {
            return None;
        }
        if let (Some(want), Some(place)) = (&plugin.sha256, node.get("sha256"))
            && want.0.0 != digest
        {
            let problem = Diagnostic::error(format!("the module of plugin `{}` has another digest", key.name))
                .at(&place.span, "this is not the digest of the module")
                .help(format!("the module that is there has {}", Digest(digest).write()))
                .help("if it was replaced on purpose, write its digest here");
            self.report(problem);
        }
        Some((code, digest))
    }

    /// A file's code, with the signature that lies beside it where that matters.
    fn file(
        &mut self,
        path: &str,
        key: &Key,
        place: &Node,
        trust: Trust<'_>,
    ) -> Result<(Code, Option<Signature>), Diagnostic> {
        let code = self.modules.read(path, &key.name, place)?;
        if !trust.wants_signature() {
            return Ok((code, None));
        }
        let source = &place.span.source;
        let beside = source.resolve(&format!("{path}.sig")).ok();
        let signature = beside.and_then(|path| source.inputs.read(&path, MAX_SIGNATURE).ok());
        Ok((code, signature.and_then(|signature| Signature::of_file(&signature))))
    }
}

impl Check<'_> {
    /// What a module says of itself. What is no module at all is for the engine to say.
    pub(super) fn manifest(&mut self, code: &[u8], key: &Key, node: &Node) -> Option<Manifest> {
        match Outline::of(code) {
            Ok(outline) => outline.manifest,
            Err(Unreadable::NotWasm | Unreadable::Malformed(_)) => None,
            Err(why @ Unreadable::Manifest(_)) => {
                let problem = Diagnostic::error(format!("the module of plugin `{}` cannot be used", key.name));
                self.report(problem.at(&node.get("module").unwrap_or(node).span, why.to_string()));
                None
            }
        }
    }
}

impl From<&Arc<Fetcher>> for Modules {
    fn from(fetcher: &Arc<Fetcher>) -> Self {
        Self { fetcher: fetcher.clone(), ..Self::default() }
    }
}

impl Modules {
    /// With code that stands for what is in the files of some tenants now.
    pub(crate) fn holding(held: HashMap<(Arc<str>, Arc<str>), Code>, fetcher: &Arc<Fetcher>) -> Self {
        Self { held, ..Self::from(fetcher) }
    }

    pub(super) fn held(&self, tenant: &str, plugin: &str) -> Option<Code> {
        self.held.get(&(tenant.into(), plugin.into())).cloned()
    }

    fn read(&mut self, written: &str, plugin: &str, place: &Node) -> Result<Code, Diagnostic> {
        let refuse = |why: String| {
            let written = place.written().trim_start_matches("file:");
            Diagnostic::error(format!("the module `{written}` of plugin `{plugin}` cannot be read"))
                .at(&place.span, why)
        };
        let path = place.span.source.resolve(written).map_err(&refuse)?;
        if let Some(code) = self.files.get(&path) {
            return Ok(code.clone());
        }
        let missing = |why: String| {
            let folder = place.span.source.folder.display().to_string();
            let folder = if folder.is_empty() { ".".to_owned() } else { folder };
            refuse(why).help(format!("paths start from the directory of the file they are written in: `{folder}`"))
        };
        let code = place.span.source.inputs.read(&path, MAX_MODULE as u64).map_err(|error| missing(reason(&error)))?;
        let digest = Sha256::digest(&code).into();
        self.files.insert(path, (code.clone(), digest));
        Ok((code, digest))
    }
}

fn builtin_code(name: &str, place: &Span) -> Result<Code, Diagnostic> {
    match builtin::find(name) {
        Some(Builtin::Present(code)) => Ok((Bytes::from_static(code), Sha256::digest(code).into())),
        Some(Builtin::Absent) => Err(Diagnostic::error(format!("this binary was built without `builtin:{name}`"))
            .at(place, "its module is not in the binary")
            .help("run `cargo xtask plugins`, then build again")),
        None => Err(Diagnostic::error(format!("no plugin `{name}` comes with the gateway"))
            .at(place, "not a builtin")
            .maybe_help(close_or_all(name, &builtin::names(), "there are"))),
    }
}
