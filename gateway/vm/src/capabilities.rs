//! Which of the ABI's functions a module may use: Envoy's capability restriction, by the same names.
//!
//! What is not granted is decided when a module is linked, so that nothing is asked at a call. A hostcall that is not granted
//! answers `InternalFailure`, or WASI's "not capable", and a callback that is not granted is never called, as on Envoy. What a
//! module cannot run without is granted to all: its start functions, its allocator, `proc_exit` and what Emscripten imports.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_abi::Status;
use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use crate::guest::Guest;
use crate::hostcalls::{self, Row};
use crate::signature::Kind;
use crate::{callbacks, wasi};

/// WASI's error number for "capabilities insufficient".
pub(crate) const NOT_CAPABLE: u32 = 76;

/// Which functions of the ABI a module may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Capabilities {
    /// All there are.
    #[default]
    All,
    /// These alone, and those that every module may use.
    Only(Arc<BTreeSet<Box<str>>>),
}

impl Capabilities {
    /// These alone.
    #[must_use]
    pub fn only<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self::Only(Arc::new(names.into_iter().map(Box::from).collect()))
    }

    /// Every name that can be granted: of hostcalls, of WASI's functions and of callbacks.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let rows = hostcalls::ROWS.iter().chain(wasi::ROWS).filter(|row| row.refusal.is_some()).map(|row| row.name);
        rows.chain(callbacks::names().filter(|name| is_callback(name)))
    }

    /// What both allow.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, rest) | (rest, Self::All) => rest.clone(),
            (Self::Only(one), Self::Only(two)) => Self::Only(Arc::new(one.intersection(two).cloned().collect())),
        }
    }

    /// Whether the function of this name may be used.
    #[must_use]
    pub fn allow(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    /// Whether the gateway may call the export of this name.
    pub(crate) fn allow_callback(&self, name: &str) -> bool {
        !is_callback(name) || self.allow(name)
    }

    /// The linker that offers what is granted, and in the place of the rest what refuses.
    pub(crate) fn restrict(&self, linker: &Linker<Guest>) -> wasmtime::Result<Linker<Guest>> {
        let mut restricted = linker.clone();
        restricted.allow_shadowing(true);
        for (module, rows) in std::iter::once(("env", hostcalls::ROWS)).chain(wasi::MODULES.map(|it| (it, wasi::ROWS)))
        {
            for row in rows.iter().filter(|row| !self.allow(row.name)) {
                refuse(&mut restricted, module, row)?;
            }
        }
        Ok(restricted)
    }
}

/// Whether an export is a callback of the ABI, and not what starts a module or hands it memory.
fn is_callback(name: &str) -> bool {
    name.starts_with("proxy_on_") && name != "proxy_on_memory_allocate"
}

/// Puts what refuses in the place of an import, unless every module may call it.
fn refuse(linker: &mut Linker<Guest>, module: &str, row: &Row) -> wasmtime::Result<()> {
    let Row { name, signature, refusal: Some(refusal) } = *row else { return Ok(()) };
    let kind = |kind: &Kind| match kind {
        Kind::I32 => ValType::I32,
        Kind::I64 => ValType::I64,
    };
    let (params, result) = (signature.params.iter().map(kind), signature.result.as_ref().map(kind));
    let as_type = FuncType::new(linker.engine(), params, result);
    linker.func_new(module, name, as_type, move |caller: Caller<'_, Guest>, _, results| {
        caller.data().voice.note(name, format_args!("this plugin is not granted the call"));
        if let Some(result) = results.first_mut() {
            *result = Val::I32(refusal.cast_signed());
        }
        Ok(())
    })?;
    Ok(())
}

/// What a hostcall answers that is not granted.
pub(crate) const REFUSED: u32 = Status::InternalFailure as u32;
