//! A compiled module, checked to be a Proxy-Wasm guest this gateway can run.

use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::{MARKER_PREFIX, Version};
use portcullis_core::filter::Exports;
use wasmtime::{ExternType, InstancePre, Linker, ModuleExport};

use crate::bounds::{MODULE_BYTES, MODULE_FUNCTIONS};
use crate::capabilities::Capabilities;
use crate::guest::Guest;
use crate::hostcalls::{self, Row};
use crate::plugin::Isolation;
use crate::{callbacks, exposed, signature, wasi};

/// Why a module cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It does not begin as wasm does.
    #[error("it is not a WebAssembly module; give the .wasm file that the plugin's build makes")]
    NotWasm,
    /// It is a component.
    #[error("it is a WebAssembly component, and Proxy-Wasm plugins are core modules; build it for `wasm32-wasip1`")]
    Component,
    /// It is malformed, or uses what this gateway does not run.
    #[error("it cannot be compiled: {reason}; plugins are 32-bit, single-threaded and have one memory")]
    Invalid {
        /// What the compiler says.
        reason: String,
    },
    /// It has no marker export.
    #[error(
        "it exports no `{MARKER_PREFIX}…` and so is no Proxy-Wasm plugin; build it with a Proxy-Wasm SDK, as a `cdylib` in \
         Rust"
    )]
    NoMarker,
    /// Its marker export is not one of those that are known.
    #[error("it speaks a Proxy-Wasm ABI that is not known: `{0}`; 0.1.0, 0.2.0 and 0.2.1 are")]
    UnknownMarker(String),
    /// It has several marker exports.
    #[error("it exports several ABI markers: {0}; a plugin speaks one version")]
    SeveralMarkers(String),
    /// It is larger than modules may be.
    #[error("it is {bytes} bytes large, and modules may have {MODULE_BYTES}; leave debugging information out")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// It has more functions than modules may have.
    #[error("it has {0} functions, and modules may have {MODULE_FUNCTIONS}; let the linker remove what is not used")]
    TooManyFunctions(u32),
    /// Compiling it took too long.
    #[error("compiling it took more than {} seconds of processor time, which no ordinary plugin does", .0.as_secs())]
    CompileTime(Duration),
    /// Compiling it took too much memory.
    #[error("compiling it took more than {0} bytes of memory, which no ordinary plugin does")]
    CompileMemory(u64),
    /// The process that was to compile it did not.
    #[error("the compiler did not run as it should: {reason}")]
    Compiler {
        /// Why.
        reason: String,
    },
    /// Its VMs could not be copied.
    #[error("no copy of it can be made for each request: {what}; use `isolation: vm`")]
    Uncopyable {
        /// What stands in the way.
        what: &'static str,
    },
    /// It exports no memory.
    #[error("it exports no `memory`; Proxy-Wasm SDKs export it, unless the linker was told not to")]
    NoMemory,
    /// It exports no allocator.
    #[error("it exports neither `proxy_on_memory_allocate` nor `malloc`, through which it is handed values")]
    NoAllocator,
    /// It imports what there is not.
    #[error("it imports what this gateway does not offer: {}", .0.join(", "))]
    Imports(Vec<String>),
    /// It exports a callback of another type than the ABI's.
    #[error("its export `{name}` is {found}, and should be {wanted}")]
    Export {
        /// The export.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
}

impl LoadError {
    pub(crate) fn invalid(error: &wasmtime::Error) -> Self {
        Self::Invalid { reason: error.root_cause().to_string() }
    }
}

/// A compiled module. Make one with [`crate::Engine::load`].
pub struct Module {
    name: Arc<str>,
    digest: [u8; 32],
    version: Version,
    exports: Exports,
    capabilities: Capabilities,
    pre: InstancePre<Guest>,
    /// Its mutable globals, and its start function, where it was made ready to be copied.
    globals: Arc<[ModuleExport]>,
    start: Option<ModuleExport>,
}

impl Module {
    pub(crate) fn new(
        name: &str,
        digest: [u8; 32],
        module: wasmtime::Module,
        linker: &Linker<Guest>,
        isolation: Isolation,
    ) -> Result<Self, LoadError> {
        let version = check_marker(&module)?;
        check_memory(&module)?;
        check_imports(&module)?;
        check_exports(&module)?;
        // Or the first worker to start a VM of it would do it.
        module.initialize_copy_on_write_image().map_err(|error| LoadError::invalid(&error))?;
        let capabilities = Capabilities::All;
        let exports = callbacks::exports(&module, &capabilities);
        let pre = linker.instantiate_pre(&module).map_err(|error| LoadError::invalid(&error))?;
        let (globals, start) = match isolation {
            Isolation::Vm => (Arc::default(), None),
            Isolation::Request => {
                let globals = module.exports().filter(|export| export.name().starts_with(exposed::GLOBAL));
                let globals = globals.filter_map(|export| module.get_export_index(export.name())).collect();
                (globals, module.get_export_index(exposed::START))
            }
        };
        Ok(Self { name: name.into(), digest, version, exports, capabilities, pre, globals, start })
    }

    /// The same, linked to what is granted of what `linker` offers.
    pub(crate) fn restricted(&self, granted: &Capabilities, linker: &Linker<Guest>) -> wasmtime::Result<Self> {
        let (module, capabilities) = (self.pre.module(), self.capabilities.and(granted));
        Ok(Self {
            name: self.name.clone(),
            digest: self.digest,
            version: self.version,
            exports: callbacks::exports(module, &capabilities),
            pre: capabilities.restrict(linker)?.instantiate_pre(module)?,
            capabilities,
            globals: self.globals.clone(),
            start: self.start,
        })
    }

    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The ABI version it speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The functions of the ABI that it may use.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The callbacks it exports and may be called by.
    #[must_use]
    pub fn exports(&self) -> Exports {
        self.exports
    }

    /// The bytes of memory it begins with.
    #[must_use]
    pub fn initial_memory(&self) -> u64 {
        match self.pre.module().get_export("memory") {
            Some(ExternType::Memory(memory)) => memory.minimum().saturating_mul(memory.page_size()),
            _ => 0,
        }
    }

    /// Its mutable globals, where it was made ready to be copied.
    pub(crate) fn globals(&self) -> &[ModuleExport] {
        &self.globals
    }

    /// Its start function, where an instance is made without running it.
    pub(crate) fn start(&self) -> Option<&ModuleExport> {
        self.start.as_ref()
    }

    pub(crate) fn pre(&self) -> &InstancePre<Guest> {
        &self.pre
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Refuses early what is not a core module: the compiler's own words for that help nobody.
pub(crate) fn check_header(wasm: &[u8]) -> Result<(), LoadError> {
    match wasm.split_first_chunk::<8>() {
        Some((b"\0asm\x01\0\0\0", _)) => Ok(()),
        // The fields after the magic number are a version and a layer; components are layer 1.
        Some(([0, b'a', b's', b'm', _, _, 1, 0], _)) => Err(LoadError::Component),
        _ => Err(LoadError::NotWasm),
    }
}

fn check_marker(module: &wasmtime::Module) -> Result<Version, LoadError> {
    let markers: Vec<&str> =
        module.exports().map(|e| e.name()).filter(|name| name.starts_with(MARKER_PREFIX)).collect();
    match markers.as_slice() {
        [] => Err(LoadError::NoMarker),
        [marker] => match Version::from_marker(marker) {
            Some(version) => Ok(version),
            None => Err(LoadError::UnknownMarker(marker.escape_debug().to_string())),
        },
        several => Err(LoadError::SeveralMarkers(several.join(", ").escape_debug().to_string())),
    }
}

fn check_memory(module: &wasmtime::Module) -> Result<(), LoadError> {
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err(LoadError::NoMemory);
    }
    let allocates = ["proxy_on_memory_allocate", "malloc"].iter().any(|name| module.get_export(name).is_some());
    if allocates { Ok(()) } else { Err(LoadError::NoAllocator) }
}

fn row(module: &str, name: &str) -> Option<&'static Row> {
    let rows = match module {
        "env" => hostcalls::ROWS,
        _ if wasi::MODULES.contains(&module) => wasi::ROWS,
        _ => &[],
    };
    rows.iter().find(|row| row.name == name)
}

/// Every import must be offered, by name and type; all that are not are named at once.
fn check_imports(module: &wasmtime::Module) -> Result<(), LoadError> {
    let unknown = module.imports().filter_map(|import| {
        let name = format!("`{}.{}`", import.module().escape_debug(), import.name().escape_debug());
        match (import.ty(), row(import.module(), import.name())) {
            (ExternType::Func(found), Some(row)) if row.signature.is(&found) => None,
            (ExternType::Func(found), Some(row)) => {
                Some(format!("{name} as {}, which is {}", signature::shown(&found), row.signature))
            }
            (ExternType::Func(found), None) => Some(format!("{name} {}", signature::shown(&found))),
            (ExternType::Memory(_), _) => Some(format!("{name}, a memory")),
            (_, _) => Some(format!("{name}, which is no function")),
        }
    });
    let unknown: Vec<String> = unknown.collect();
    if unknown.is_empty() { Ok(()) } else { Err(LoadError::Imports(unknown)) }
}

fn check_exports(module: &wasmtime::Module) -> Result<(), LoadError> {
    for export in module.exports() {
        let mut wanted = callbacks::signatures(export.name()).peekable();
        let Some(first) = wanted.peek().copied() else { continue };
        let found = match export.ty() {
            ExternType::Func(found) if wanted.any(|wanted| wanted.is(&found)) => continue,
            ExternType::Func(found) => signature::shown(&found),
            ExternType::Global(_) | ExternType::Table(_) | ExternType::Memory(_) | ExternType::Tag(_) => {
                "no function".to_owned()
            }
        };
        return Err(LoadError::Export { name: export.name().to_owned(), found, wanted: first.to_string() });
    }
    Ok(())
}
