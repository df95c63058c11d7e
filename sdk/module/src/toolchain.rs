//! Finds a compiler for `wasm32-wasip1`.
//!
//! In this order: the target is installed; `rustup` can add it; a system toolchain can build the standard library for it
//! from source (Debian's `rustc-web` family). With none, it stops and says which commands would help.
//! `PORTCULLIS_WASM_TOOLCHAIN=rustup` or `=debian` forces one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// There is no compiler for plugins, or it cannot be run: what would help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoToolchain(String);

type Result<T> = std::result::Result<T, NoToolchain>;

/// What plugins are built for.
pub const TARGET: &str = "wasm32-wasip1";

const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src rust-web-llvm wasi-libc";
const WASI_LIBC: &str = "/usr/lib/wasm32-wasi";

/// A compiler that can build plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that runs us, with the target's standard library installed.
    Installed,
    /// `/usr/bin/rustc`, which builds the target's standard library from source.
    Debian,
}

impl Toolchain {
    /// The first that works, or the one the environment asks for.
    ///
    /// # Errors
    /// When none works.
    pub fn find() -> Result<Self> {
        match std::env::var("PORTCULLIS_WASM_TOOLCHAIN").ok().as_deref() {
            None | Some("") => Self::search(),
            Some("rustup") if installed() || add_by_rustup() => Ok(Self::Installed),
            Some("rustup") => no(format!("{TARGET} is not installed; try: rustup target add {TARGET}")),
            Some("debian") if debian() => Ok(Self::Debian),
            Some("debian") => no(format!(
                "the packages, or a rust-lld in the lib/rustlib/HOST/bin of rustup's toolchain, are missing; \
                 try: apt-get install {DEBIAN_PACKAGES}"
            )),
            Some(other) => no(format!("PORTCULLIS_WASM_TOOLCHAIN is `{other}`; it may be `rustup` or `debian`")),
        }
    }

    fn search() -> Result<Self> {
        if installed() || add_by_rustup() {
            return Ok(Self::Installed);
        }
        if debian() {
            return Ok(Self::Debian);
        }
        no(format!(
            "no compiler for {TARGET} was found; one of these helps:\n  \
             rustup target add {TARGET}\n  \
             apt-get install {DEBIAN_PACKAGES}"
        ))
    }

    /// One word, also the name of its build directory: two compilers must not share one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed => "rustup",
            Self::Debian => "debian",
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Installed => "the installed target",
            Self::Debian => "/usr/bin/rustc and a standard library built from source",
        }
    }

    /// `cargo build`, ready for more arguments.
    ///
    /// # Errors
    /// When a part of it is missing.
    pub fn cargo_build(self) -> Result<Command> {
        let mut command = match self {
            Self::Installed => cargo(),
            Self::Debian => debian_cargo()?,
        };
        command.arg("build");
        if self == Self::Debian {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        Ok(command)
    }
}

/// Debian's cargo, told to build the standard library, to take libc from `wasi-libc`, and where `rust-lld` is.
fn debian_cargo() -> Result<Command> {
    let nowhere = || NoToolchain("rust-lld is nowhere; rustup's toolchain has it in lib/rustlib/HOST/bin".to_owned());
    let mut path = vec![linker_dir().ok_or_else(nowhere)?];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new("/usr/bin/cargo");
    command
        .env("RUSTC", "/usr/bin/rustc")
        // `-Z` on a release compiler; the very thing this toolchain is packaged for.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("-C link-self-contained=no -L native={WASI_LIBC}"))
        .env("PATH", std::env::join_paths(path).map_err(|error| NoToolchain(error.to_string()))?)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(command)
}

/// The cargo that runs us, or the one on the path.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn no<T>(why: String) -> Result<T> {
    Err(NoToolchain(why))
}

fn installed() -> bool {
    let target_libs = printed(Command::new(rustc()).args(["--print", "target-libdir", "--target", TARGET]));
    target_libs.is_some_and(|dir| Path::new(&dir).is_dir())
}

/// Asks rustup for the target, for the toolchain that runs us. Not to have rustup is no error.
fn add_by_rustup() -> bool {
    if printed(Command::new("rustup").arg("--version")).is_none() {
        return false;
    }
    println!("adding the target: rustup target add {TARGET}");
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    added.is_ok_and(|status| status.success()) && installed()
}

fn debian() -> bool {
    let sources = printed(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))
        .map(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml"));
    sources.is_some_and(|manifest| manifest.is_file())
        && Path::new("/usr/bin/cargo").is_file()
        && Path::new(WASI_LIBC).join("libc.a").is_file()
        && linker_dir().is_some()
}

/// The folder of a `rust-lld`: the running toolchain's, or Debian's own.
fn linker_dir() -> Option<PathBuf> {
    [rustc(), "/usr/bin/rustc".into()].into_iter().find_map(|rustc| {
        let libs = printed(Command::new(rustc).args(["--print", "target-libdir"]))?;
        let bin = Path::new(&libs).parent()?.join("bin");
        bin.join("rust-lld").is_file().then_some(bin)
    })
}

fn rustc() -> PathBuf {
    std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)
}

/// What a command prints, if it can be run and succeeds.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
