//! A plugin's module, compiled and trimmed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use portcullis_module::{TARGET, Toolchain};

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) bytes: usize,
    /// What it was compiled from.
    pub(crate) sources: Vec<PathBuf>,
}

/// Compiles the crate in `directory`, and puts its module beside its manifest.
pub(crate) fn build(directory: &Path) -> anyhow::Result<Built> {
    let name = package_name(directory)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| directory.join("target"), PathBuf::from).join("plugin");
    let toolchain = Toolchain::find()?;
    let mut cargo = toolchain.cargo_build()?;
    cargo.current_dir(directory).args(["--release", "--target", TARGET, "--target-dir"]);
    cargo.arg(std::path::absolute(&target)?);
    let from = target.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
    // Or a crate that makes none any more would seem to have made the last one again. Cargo puts it back if it is as it should be.
    let _there_was_none = fs::remove_file(&from);
    let status = cargo.status().context("cargo cannot be run")?;
    ensure!(status.success(), "cargo did not build the crate ({status}); what is wrong with it stands above");
    let wasm = fs::read(&from).with_context(|| {
        format!("cargo left no {}; the crate needs `crate-type = [\"cdylib\"]` under [lib]", from.display())
    })?;
    let trimmed = portcullis_module::trim(&wasm).with_context(|| from.display().to_string())?;
    let path = directory.join(format!("{name}.wasm"));
    replace(&path, &trimmed).with_context(|| format!("cannot write {}", path.display()))?;
    let mut sources = sources(&from.with_extension("d"));
    sources.extend(["Cargo.toml", "Cargo.lock"].map(|name| directory.join(name)));
    Ok(Built { path, bytes: trimmed.len(), sources })
}

/// Puts a file into the place of another at once: a gateway that runs may be reading it.
fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("wasm.new");
    fs::write(&beside, contents)?;
    fs::rename(&beside, path)
}

/// The files that cargo says it has read: `OUTPUT: FILE FILE…`, with spaces in names escaped.
fn sources(list: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(list).unwrap_or_default();
    let Some((_, files)) = text.lines().next().and_then(|line| line.split_once(": ")) else { return Vec::new() };
    let files = files.replace("\\ ", "\0");
    files.split(' ').filter(|file| !file.is_empty()).map(|file| file.replace('\0', " ").into()).collect()
}

/// The first `name` of a `Cargo.toml`, which is its package's.
fn package_name(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join("Cargo.toml");
    let manifest = fs::read_to_string(&path).with_context(|| {
        format!("{} is no crate: there is no Cargo.toml; see `portcullis plugin new`", directory.display())
    })?;
    let package = manifest.split("[package]").nth(1).unwrap_or_default();
    let name = package.lines().find_map(|line| line.trim().strip_prefix("name")?.trim_start().strip_prefix('='));
    let name = name.map(|name| name.trim().trim_matches('"').to_owned());
    name.with_context(|| format!("{} names no package", path.display()))
}
