//! Guests in the languages that Proxy-Wasm has SDKs for, built with the compilers that `cargo xtask languages` installs, as does
//! `cargo xtask test`.
//!
//! Their sources are in `tests/guests`, a folder each; they all do the same. Where a compiler is missing there is no guest, and
//! a line that says so: in CI installing it is a step of its own, which fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guests::{self, target};

/// A language with its compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The `proxy-wasm` crate, an older release.
    Rust,
    /// Go's own compiler; the guest brings what an SDK would do.
    Go,
    /// The published SDK, unchanged.
    AssemblyScript,
    /// Clang without exceptions; the guest brings what an SDK would do, and offers memory by `malloc` alone.
    Cpp,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rust, Self::Go, Self::AssemblyScript, Self::Cpp];

    /// Builds the guest; `None`, and loudly, where the compiler or its libraries are missing.
    ///
    /// # Panics
    /// When it does not compile.
    #[must_use]
    pub fn guest(self) -> Option<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(self.folder());
        let output = target().join("tmp").join(format!("{}-guest.wasm", self.folder()));
        let mut compiler = match self {
            Self::Rust => return guests::built(&folder.join("Cargo.toml"), "foreign"),
            Self::Go => go(&output),
            Self::AssemblyScript => assembly_script(&output),
            Self::Cpp => cpp(&output),
        };
        let built = match compiler.current_dir(folder).output() {
            Ok(built) => built,
            Err(error) => return self.skipped(&error.to_string()),
        };
        let said = String::from_utf8_lossy(&built.stderr);
        if built.status.success() {
            return Some(output);
        }
        // Clang without the libraries of its target; Node without what it is to run.
        let absent = ["unable to find library", "cannot open", "file not found", "Cannot find module"];
        assert!(absent.iter().any(|reason| said.contains(reason)), "{self:?}: {said}");
        self.skipped(&said)
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Rust => "foreign",
            Self::Go => "go",
            Self::AssemblyScript => "assemblyscript",
            Self::Cpp => "cpp",
        }
    }

    fn skipped(self, why: &str) -> Option<PathBuf> {
        eprintln!(
            "SKIPPED: the guest in {self:?} cannot be built here ({why}); `cargo xtask languages` installs its compiler"
        );
        None
    }
}

fn go(output: &Path) -> Command {
    let mut go = Command::new(target().join("tools/go/bin/go"));
    go.args(["build", "-buildmode=c-shared", "-o"]).arg(output);
    go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", "")]);
    go.env("GOCACHE", target().join("tmp/go-cache")).env("GOPATH", target().join("tmp/go-path"));
    go
}

fn assembly_script(output: &Path) -> Command {
    let packages = target().join("tools/assemblyscript/node_modules");
    let mut compiler = Command::new("node");
    compiler.arg(packages.join("assemblyscript/bin/asc")).arg("assembly/index.ts").arg("--path").arg(packages);
    // As the SDK's own text says.
    compiler.args(["--optimize", "--use", "abort=abort_proc_exit", "--binaryFile"]).arg(output);
    compiler
}

fn cpp(output: &Path) -> Command {
    let mut clang = Command::new("clang++");
    clang.args(["--target=wasm32-wasi", "-std=c++17", "-O2", "-fno-exceptions", "-fno-rtti", "-mexec-model=reactor"]);
    clang.args(["-Wall", "-Werror", "-Wl,--strip-all", "-Wl,--export=malloc", "plugin.cc", "abi.cc", "-o"]).arg(output);
    clang
}
