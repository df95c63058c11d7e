//! The wasm engine: one per process. It compiles modules, keeps room for VMs, and ticks.
//!
//! This file holds the crate's only `unsafe`: loading machine code that the cache has kept, and two questions to the system
//! that the standard library does not ask.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, Linker, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::cache::Cache;
use crate::capabilities::Capabilities;
use crate::compiler::{CompileLimits, Compiler};
use crate::guest::{Guest, TABLE_ELEMENTS};
use crate::module::{LoadError, Module};
use crate::plugin::Isolation;
use crate::ticker::Ticker;
use crate::{exposed, hostcalls, wasi};

/// How deep a guest may recurse, in bytes. A worker's stack must be larger.
const STACK_BYTES: usize = 512 << 10;
/// The largest memory a 32-bit guest can have.
const ADDRESSABLE: u64 = 4 << 30;
/// What is done to modules whose VMs are copied: a new number for every change of [`exposed::expose`].
const COPYABLE: &[u8] = b"copyable 1";
/// What a VM costs of the system's memory mappings, about.
const MAPPINGS_PER_VM: u64 = 4;
/// How many VMs' address space fits the 47 bits a process has, with room for everything else.
const VMS_BY_ADDRESS_SPACE: u32 = 16 << 10;

/// How much of what a copy of a VM has written stays with its place in the pool, put back as it was, for the next one: what the system is
/// given back has to be faulted in again.
const KEPT_BYTES: usize = 256 << 10;

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where compiled modules are kept; nowhere if absent.
    pub cache: Option<PathBuf>,
    /// The most VMs that run at once, all workers together.
    pub max_vms: u32,
    /// The largest memory, in bytes, that any VM may be given.
    pub max_memory: u64,
    /// Where modules are compiled; in this process if absent.
    pub compiler: Option<Compiler>,
    /// Whether instructions that guests execute are counted, which makes them slower ([`crate::Vms::instructions`]). Only for
    /// modules that are compiled in this process.
    pub count_instructions: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { cache: None, max_vms: 1024, max_memory: 256 << 20, compiler: None, count_instructions: false }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A memory limit no guest can reach, or none at all.
    #[error("the largest memory of a VM must be between 64 KiB and 4 GiB, not {0} bytes")]
    Memory(u64),
    /// No VMs, or more than a process has addresses for.
    #[error("the number of VMs must be between 1 and {VMS_BY_ADDRESS_SPACE}, not {0}")]
    Vms(u32),
    /// More VMs than the system has memory mappings for.
    #[error(
        "{vms} VMs need about {needs} memory mappings, and this system allows {allowed}; allow more with \
         `sysctl vm.max_map_count={needs}`, or fewer VMs"
    )]
    Mappings {
        /// How many VMs.
        vms: u32,
        /// What they need.
        needs: u64,
        /// What there is.
        allowed: u64,
    },
    /// The address space could not be reserved, or the thread that ticks not started.
    #[error("room for {vms} VMs could not be reserved: {reason}; allow fewer VMs, or raise `ulimit -v`")]
    Reserve {
        /// How many VMs.
        vms: u32,
        /// What the system says.
        reason: String,
    },
}

/// Compiles modules and gives VMs their place. Share one among all workers.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
    cache: Option<Cache>,
    max_vms: u32,
    max_memory: u64,
    compiler: Option<Compiler>,
    counts_instructions: bool,
    ticker: Arc<Ticker>,
    /// How many copies of VMs there are.
    copies: Arc<AtomicU32>,
}

/// A copy's part of the pool, until it is dropped.
pub(crate) struct CopyRoom {
    copies: Arc<AtomicU32>,
}

impl Drop for CopyRoom {
    fn drop(&mut self) {
        self.copies.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Makes the engine, and starts the thread that ticks; it ends with the engine.
    ///
    /// A cache that cannot be used is a warning in the log.
    ///
    /// # Errors
    /// When the options ask for more than the system has.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        let EngineOptions { cache, max_vms, max_memory, compiler, count_instructions: counts_instructions } = options;
        if !(64 << 10..=ADDRESSABLE).contains(&max_memory) {
            return Err(EngineError::Memory(max_memory));
        }
        check_vms(max_vms)?;
        let refused = |error: &dyn std::fmt::Display| EngineError::Reserve { vms: max_vms, reason: error.to_string() };
        let mut config = config(max_vms, max_memory);
        config.consume_fuel(counts_instructions);
        let engine = wasmtime::Engine::new(&config).map_err(|error| refused(&error.root_cause()))?;
        let linker = linker(&engine).map_err(|error| refused(&error))?;
        let ticker = Ticker::start(&engine).map_err(|error| refused(&error))?;
        let cache = cache.and_then(|directory| {
            let opened = Cache::open(&directory, engine.precompile_compatibility_hash());
            opened
                .inspect_err(|error| {
                    tracing::warn!(path = %directory.display(), %error, "the cache of compiled modules is not used");
                })
                .ok()
        });
        let copies = Arc::default();
        Ok(Arc::new(Self { engine, linker, cache, max_vms, max_memory, compiler, counts_instructions, ticker, copies }))
    }

    /// Whether instructions that guests execute are counted.
    pub(crate) fn counts_instructions(&self) -> bool {
        self.counts_instructions
    }

    pub(crate) fn ticker(&self) -> Arc<Ticker> {
        self.ticker.clone()
    }

    /// [`Self::load_within`] the usual limits.
    ///
    /// # Errors
    /// When this gateway cannot run it.
    pub fn load(&self, name: &str, wasm: &[u8]) -> Result<Arc<Module>, LoadError> {
        self.load_within(name, wasm, &CompileLimits::default())
    }

    /// Takes a module in: checks that it is a Proxy-Wasm guest, and compiles it unless the cache has it; within these limits, where
    /// it is compiled elsewhere.
    ///
    /// It takes its time and must not run on a worker. `name` is for logs.
    ///
    /// # Errors
    /// When this gateway cannot run it; the message says why and what to do.
    pub fn load_within(&self, name: &str, wasm: &[u8], limits: &CompileLimits) -> Result<Arc<Module>, LoadError> {
        crate::module::check_header(wasm)?;
        crate::bounds::check(wasm)?;
        let digest: [u8; 32] = Sha256::digest(wasm).into();
        let module = match self.known(name, &digest) {
            Some(module) => module,
            None => self.compile(&digest, wasm, limits)?,
        };
        Module::new(name, digest, module, &self.linker, Isolation::Vm).map(Arc::new)
    }

    /// [`Self::load_within`], for VMs of which every exchange gets a copy ([`Isolation::Request`]). It is another module than the one
    /// that is loaded for VMs that exchanges share, and is compiled anew.
    ///
    /// # Errors
    /// When this gateway cannot run it, or could make no copies.
    pub fn load_copyable(&self, name: &str, wasm: &[u8], limits: &CompileLimits) -> Result<Arc<Module>, LoadError> {
        crate::module::check_header(wasm)?;
        crate::bounds::check(wasm)?;
        let digest: [u8; 32] = Sha256::digest(wasm).into();
        // What is done to it is part of what its code depends on.
        let key: [u8; 32] = Sha256::new().chain_update(COPYABLE).chain_update(digest).finalize().into();
        let module = match self.known(name, &key) {
            Some(module) => module,
            None => self.compile(&key, &exposed::expose(wasm)?, limits)?,
        };
        Module::new(name, digest, module, &self.linker, Isolation::Request).map(Arc::new)
    }

    /// What the cache has under this key.
    fn known(&self, name: &str, key: &[u8; 32]) -> Option<wasmtime::Module> {
        let code = self.cache.as_ref()?.read(key)?;
        revive(&self.engine, &code)
            .inspect_err(|error| tracing::warn!(module = name, %error, "a compiled module does not load; compiling it"))
            .ok()
    }

    fn compile(&self, key: &[u8; 32], wasm: &[u8], limits: &CompileLimits) -> Result<wasmtime::Module, LoadError> {
        if let Some(compiler) = &self.compiler {
            let code = compiler.compile(wasm, limits)?;
            let module = revive(&self.engine, &code).map_err(|error| LoadError::invalid(&error))?;
            if let Some(cache) = &self.cache {
                cache.write(key, &code);
            }
            return Ok(module);
        }
        let module = wasmtime::Module::new(&self.engine, wasm).map_err(|error| LoadError::invalid(&error))?;
        if let Some(cache) = &self.cache {
            match module.serialize() {
                Ok(code) => cache.write(key, &code),
                Err(error) => tracing::warn!(%error, "a compiled module cannot be kept"),
            }
        }
        Ok(module)
    }

    /// The same module with no more than what is granted to it.
    ///
    /// # Errors
    /// When it cannot be linked, which a module that was loaded can.
    pub fn restrict(&self, module: &Arc<Module>, granted: &Capabilities) -> Result<Arc<Module>, LoadError> {
        match granted {
            Capabilities::All => Ok(module.clone()),
            Capabilities::Only(_) => {
                let restricted = module.restricted(granted, &self.linker);
                restricted.map(Arc::new).map_err(|error| LoadError::invalid(&error))
            }
        }
    }

    /// Room for one more copy of a VM, if there is any: half of the pool is for those that stay, whatever exchanges there are.
    pub(crate) fn room_for_copy(&self) -> Option<CopyRoom> {
        let taken = CopyRoom { copies: self.copies.clone() };
        // Given back when `taken` is dropped, whatever comes of it.
        let before = self.copies.fetch_add(1, Ordering::Relaxed);
        (before < (self.max_vms / 2).max(1)).then_some(taken)
    }

    /// The most VMs that run at once.
    #[must_use]
    pub fn max_vms(&self) -> u32 {
        self.max_vms
    }

    /// The largest memory any VM may be given.
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        self.max_memory
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("max_vms", &self.max_vms).field("max_memory", &self.max_memory).finish()
    }
}

fn check_vms(vms: u32) -> Result<(), EngineError> {
    if !(1..=VMS_BY_ADDRESS_SPACE).contains(&vms) {
        return Err(EngineError::Vms(vms));
    }
    let needs = u64::from(vms) * MAPPINGS_PER_VM;
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
    match allowed {
        Some(allowed) if allowed < needs => Err(EngineError::Mappings { vms, needs, allowed }),
        _ => Ok(()),
    }
}

/// Compiles a module for engines like this, without being one.
pub(crate) fn compile_only(wasm: &[u8]) -> Result<Vec<u8>, wasmtime::Error> {
    wasmtime::Engine::new(&code_config())?.precompile_module(wasm)
}

fn config(max_vms: u32, max_memory: u64) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(max_vms).total_memories(max_vms).total_tables(max_vms);
    pool.max_memory_size(usize::try_from(max_memory.next_multiple_of(64 << 10)).unwrap_or(usize::MAX));
    pool.table_elements(TABLE_ELEMENTS);
    // Without it nobody knows what was written, and all of that would be written anew.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(KEPT_BYTES).table_keep_resident(KEPT_BYTES);
    }
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// All that machine code depends on.
fn code_config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).max_wasm_stack(STACK_BYTES).memory_init_cow(true);
    // A guest's 32-bit addresses then need no bounds checks: what is outside its memory is inside the reservation.
    config.memory_reservation(ADDRESSABLE);
    config.wasm_memory64(false).wasm_multi_memory(false);
    // Or an environment variable could switch them on.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    hostcalls::link(&mut linker, "env")?;
    wasi::MODULES.iter().try_for_each(|module| wasi::link(&mut linker, module))?;
    Ok(linker)
}

/// Makes a module of machine code that the cache has kept or the compiler made. That fails, too, where it needs more than a VM has room
/// for, such as a larger table.
fn revive(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<wasmtime::Module> {
    // SAFETY: `deserialize` requires bytes that `Module::serialize` made for this very environment. The cache has just found
    // their checksum intact, in a directory nobody else can write to; wasmtime itself checks engine version and settings.
    #[allow(unsafe_code, reason = "there is no safe way to load machine code")]
    unsafe {
        wasmtime::Module::deserialize(engine, code)
    }
}

/// How much processor time this thread has used.
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live `timespec`, which is all that `clock_gettime` writes to.
    #[allow(unsafe_code, reason = "the standard library does not read this clock")]
    unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time)
    };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Fills `bytes` with randomness fit for keys.
pub(crate) fn fill_random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is `rest.len()` bytes that may be written.
        #[allow(unsafe_code, reason = "the standard library offers no randomness")]
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
