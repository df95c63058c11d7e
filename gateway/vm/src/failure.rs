//! How a VM's life ends, and why one does not begin.

use std::fmt;
use std::sync::Arc;

use portcullis_core::filter::NotOpened;
use wasmtime::{Trap, WasmBacktrace};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a life ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// All of them, for metrics.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word for it, as metrics and logs say it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

causes! {
    /// The guest gave up: a panic, an abort, `exit`.
    Panic = "panic",
    /// It used up its processor time.
    Deadline = "deadline",
    /// It gave up when it was refused more memory than it may have.
    OutOfMemory = "oom",
    /// It reached outside the memory it has.
    Memory = "memory",
    /// It recursed too deeply.
    Stack = "stack",
    /// Anything else: a division by zero, a bad indirect call.
    Other = "other",
}

/// The guest called `proc_exit`.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the guest exited with code {0}")]
pub(crate) struct Exited(pub(crate) u32);

/// A trap, told for people.
#[derive(Debug)]
pub struct Fault {
    /// What kind it is.
    pub cause: Cause,
    /// What happened.
    pub message: String,
    /// The guest's functions that were running, innermost first, as far as the module names them.
    pub backtrace: Vec<String>,
}

/// How many of a guest's functions a fault names.
const FRAMES: usize = 10;
/// The most characters of a function's name; generic Rust has longer ones.
const NAME_CHARS: usize = 120;

impl Fault {
    /// Reads it off what wasmtime reports. `refused` tells that the guest was refused memory in the same callback: most
    /// allocators then give up, which looks like a panic.
    pub(crate) fn of(error: &wasmtime::Error, refused: bool) -> Self {
        let trap = error.downcast_ref::<Trap>().copied();
        let exited = error.downcast_ref::<Exited>();
        let cause = match trap {
            Some(Trap::Interrupt) => Cause::Deadline,
            Some(Trap::StackOverflow) => Cause::Stack,
            Some(Trap::MemoryOutOfBounds | Trap::HeapMisaligned) => Cause::Memory,
            Some(Trap::UnreachableCodeReached) if refused => Cause::OutOfMemory,
            Some(Trap::UnreachableCodeReached) => Cause::Panic,
            _ if exited.is_some() => Cause::Panic,
            _ => Cause::Other,
        };
        let message = match (trap, exited) {
            (Some(Trap::Interrupt), _) => "it used up its processor time".to_owned(),
            (Some(Trap::UnreachableCodeReached), _) if refused => "it gave up when it was refused memory".to_owned(),
            (Some(trap), _) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            (None, Some(exited)) => exited.to_string(),
            (None, None) => error.root_cause().to_string(),
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(names).unwrap_or_default();
        Self { cause, message, backtrace }
    }
}

/// Names as wasmtime shows them, which is the only way to have them demangled. A line of its text ends in `module!name`.
fn names(backtrace: &WasmBacktrace) -> Vec<String> {
    let text = backtrace.to_string();
    text.lines().filter_map(|line| line.split_once('!')).take(FRAMES).map(|(_, name)| tidied(name)).collect()
}

/// A name comes from the guest: what could upset a log is left out, and so is the hash that Rust ends names with.
fn tidied(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((front, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => front,
        _ => name,
    };
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.backtrace.is_empty() {
            write!(f, " in {}", self.backtrace.join(" < "))?;
        }
        Ok(())
    }
}

/// Why a VM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// The pool is full.
    #[error("all {slots} VMs this gateway has room for are running; raise the limit on VMs")]
    NoRoom {
        /// How many there are.
        slots: u32,
    },
    /// The module declares more memory than it may have.
    #[error("its module starts with {needs} bytes of memory and may have {allowed}; raise its memory limit")]
    TooMuchMemory {
        /// What it declares.
        needs: u64,
        /// Its limit.
        allowed: u64,
    },
    /// Its tenant has no memory left.
    #[error("its tenant's VMs have as much memory as they may have together; raise the tenant's limit on memory")]
    TenantMemory,
    /// wasmtime refused to make an instance.
    #[error("it could not be instantiated: {0}")]
    Instantiate(String),
    /// The guest trapped.
    #[error("{function} failed: {fault}")]
    Trapped {
        /// In which export.
        function: &'static str,
        /// How.
        fault: Fault,
    },
    /// The guest said that it cannot work.
    #[error("{function} returned false: the plugin refuses its configuration")]
    Refused {
        /// In which callback.
        function: &'static str,
    },
}

impl StartFailure {
    /// What an exchange is told that needs it.
    pub(crate) fn met_by_exchanges(&self) -> NotOpened {
        match self {
            Self::NoRoom { .. } | Self::TenantMemory => NotOpened::NoRoom,
            Self::TooMuchMemory { .. } | Self::Instantiate(_) | Self::Trapped { .. } | Self::Refused { .. } => {
                NotOpened::Failed
            }
        }
    }

    /// A word or a few for it, of which none is the guest's.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::NoRoom { .. } => "no room to start it".to_owned(),
            Self::TooMuchMemory { .. } => "more memory at its start than it may have".to_owned(),
            Self::TenantMemory => "no memory of its tenant's left to start it".to_owned(),
            Self::Instantiate(_) => "no instance of its module could be made".to_owned(),
            Self::Trapped { function, fault } => format!("{} in {function}", fault.cause.as_str()),
            Self::Refused { function } => format!("{function} returned false"),
        }
    }
}

/// Why which VM could not be started.
#[derive(Debug)]
pub struct StartError {
    /// Whose VM it is.
    pub tenant: Option<Arc<str>>,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// What failed.
    pub failure: StartFailure,
    /// The errors the guest logged meanwhile: usually the reason.
    pub said: Option<Box<str>>,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}`", self.plugin)?;
        if let Some(tenant) = &self.tenant {
            write!(f, " of tenant `{tenant}`")?;
        }
        write!(f, " did not start: {}", self.failure)?;
        match &self.said {
            Some(said) => write!(f, "; it said: {said}"),
            None => Ok(()),
        }
    }
}

/// Without a source: what failed is part of the sentence.
impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_hash_and_nothing_else() {
        for (name, want) in [
            ("core::fmt::write::h0123456789abcdef", "core::fmt::write"),
            ("core::fmt::write::help", "core::fmt::write::help"),
            ("plain\n", "plain"),
        ] {
            assert_eq!(tidied(name), want);
        }
    }

    #[test]
    fn a_start_error_says_who_what_and_why() {
        let error = StartError {
            tenant: Some("acme".into()),
            plugin: "auth".into(),
            failure: StartFailure::Refused { function: "proxy_on_configure" },
            said: Some("no issuer".into()),
        };
        assert_eq!(
            error.to_string(),
            "plugin `auth` of tenant `acme` did not start: proxy_on_configure returned false: the plugin refuses its \
             configuration; it said: no issuer"
        );
    }
}
