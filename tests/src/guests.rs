//! Guests: the plugins of this repository as `cargo xtask plugins` left them, small ones in text format, and crates built as a
//! stranger would build them.

use std::collections::HashMap;
use std::env;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Generous: tests run on busy machines. A test of the limit itself names its own.
const LIMITS: &str = "{ cpu: 5s }";

/// The target directory: the nearest above this program that cargo has marked as one, or, since cargo does not mark one that it
/// did not make itself, the one above the profile's directory.
///
/// # Panics
/// When this program is not in one.
#[must_use]
pub fn target() -> PathBuf {
    let program = env::current_exe().unwrap();
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let profile = || program.ancestors().find(|folder| folder.join("deps").is_dir());
    let target = marked.or_else(|| profile()?.parent());
    target.expect("the tests run from cargo's target directory").to_owned()
}

/// The module of a plugin.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn module(name: &str) -> PathBuf {
    let path = target().join("plugins").join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugins`", path.display());
    path
}

/// The entry of a plugin's module in a configuration.
#[must_use]
pub fn entry(path: &Path) -> String {
    format!("{{ module: \"file:{}\", limits: {LIMITS} }}", path.display())
}

/// Builds a crate of its own with plain cargo, for the target plugins are built for; `None`, and loudly, where the toolchain or
/// the crates it needs are missing.
///
/// # Panics
/// When it does not compile.
#[must_use]
pub fn built(manifest: &Path, name: &str) -> Option<PathBuf> {
    let output = target().join("tmp").join(format!("{name}-guest"));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--target", "wasm32-wasip1", "--manifest-path"]).arg(manifest);
    // From Rust 1.96 on, the linker no longer takes it for granted that the host has what a guest imports.
    command.env("CARGO_TARGET_DIR", &output).env("RUSTFLAGS", "-C link-arg=--allow-undefined");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built = command.output().unwrap();
    if built.status.success() {
        return Some(output.join("wasm32-wasip1/release").join(format!("{name}.wasm")));
    }
    let said = String::from_utf8_lossy(&built.stderr);
    let absent = [
        "target may not be installed",
        "can't find crate for `core`",
        "can't find crate for `std`",
        "failed to download",
        "failed to get",
    ];
    assert!(absent.iter().any(|reason| said.contains(reason)), "{said}");
    eprintln!("SKIPPED: the guest `{name}` cannot be built here: {said}");
    None
}

/// A guest in text format with the strings between single quotes put into memory, from 1024 on; equal ones once.
///
/// `'abc'` stands for the address and the length of that string, `out` for two addresses where a hostcall may put an address and
/// a length.
///
/// # Panics
/// When there is no room for them below 8192.
#[must_use]
pub fn with_strings(text: &str) -> String {
    let text = text.replace(" out", " (i32.const 16) (i32.const 20)");
    let (mut out, mut data, mut at) = (String::new(), String::new(), 1024);
    let mut places = HashMap::new();
    for (index, piece) in text.split('\'').enumerate() {
        if index % 2 == 0 {
            out.push_str(piece);
            continue;
        }
        let len = piece.len() - 2 * piece.matches('\\').count();
        let place = *places.entry(piece).or_insert_with(|| {
            write!(data, "(data (i32.const {at}) \"{piece}\")").unwrap();
            at += len;
            at - len
        });
        write!(out, "(i32.const {place}) (i32.const {len})").unwrap();
    }
    assert!(at < 8192, "there are too many strings");
    let end = out.rfind(')').unwrap();
    out.insert_str(end, &data);
    out
}

/// A guest in a file of its own, for as long as this lives. Shown, it is its entry in a configuration.
#[derive(Debug)]
pub struct Guest {
    folder: tempfile::TempDir,
}

impl Guest {
    /// Out of text format.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::of_bytes(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Out of a module's bytes, or of anything else.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let guest = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(guest.path(), bytes).unwrap();
        guest
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("guest.wasm")
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&entry(&self.path()))
    }
}
