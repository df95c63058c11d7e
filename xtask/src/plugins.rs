//! `cargo xtask plugins`: builds every plugin to wasm and puts it where the gateway, the tests and the benches look.
//!
//! A crate under `plugins/` is a plugin when its manifest asks for a `cdylib`; its name is its folder's. So a new plugin is
//! named nowhere else. Build output stays in a target directory of its own, because compiler and flags may differ.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{cargo, root, run as run_command, target_dir};
use portcullis_module::{TARGET, Toolchain};

/// Builds, or with `--test` runs the native tests.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => build(),
        ["--test"] => test(),
        _ => bail!("usage: cargo xtask plugins [--test]"),
    }
}

/// Where the built plugins are: `plugins/NAME.wasm` under the target directory.
pub(crate) fn output_dir() -> PathBuf {
    target_dir().join("plugins")
}

/// Builds every plugin in release and copies it to [`output_dir`].
pub(crate) fn build() -> Result<()> {
    let names = names(&workspace())?;
    let toolchain = Toolchain::find()?;
    let build_dir = target_dir().join("plugins-build").join(toolchain.name());
    println!("building {} plugins for {TARGET} with {}", names.len(), toolchain.describe());
    run_command(
        toolchain
            .cargo_build()?
            .current_dir(workspace())
            .args(["--release", "--workspace", "--target", TARGET])
            .env("CARGO_TARGET_DIR", &build_dir),
    )?;
    let built = build_dir.join(TARGET).join("release");
    fs::create_dir_all(output_dir())?;
    for name in &names {
        let from = built.join(format!("{}.wasm", name.replace('-', "_")));
        let size = install(&from, &output_dir().join(format!("{name}.wasm")))?;
        println!("  {name:<12} {:>5} KiB", size.div_ceil(1024));
    }
    println!("in {}", output_dir().display());
    Ok(())
}

/// Runs the plugins' native tests; their build output stays out of the gateway's way too.
pub(crate) fn test() -> Result<()> {
    run_command(
        cargo()
            .current_dir(workspace())
            .args(["test", "--workspace"])
            .env("CARGO_TARGET_DIR", target_dir().join("plugins-native")),
    )
}

fn workspace() -> PathBuf {
    root().join("plugins")
}

/// The folders of all plugins, at most two levels down, sorted.
fn names(workspace: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in folders(workspace)? {
        for candidate in std::iter::once(folder.clone()).chain(folders(&folder)?) {
            let manifest = fs::read_to_string(candidate.join("Cargo.toml")).unwrap_or_default();
            if manifest.contains("\"cdylib\"") {
                names.extend(candidate.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
    }
    names.sort();
    Ok(names)
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(parent).with_context(|| format!("cannot list {}", parent.display()))?;
    Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_dir()).collect())
}

/// Copies a module, without the callbacks that its filter has no use for, unless the same bytes are there already: what embeds it is rebuilt only when it changed.
fn install(from: &Path, to: &Path) -> Result<usize> {
    let module = fs::read(from).with_context(|| format!("cargo left no {}", from.display()))?;
    let module = portcullis_module::trim(&module).with_context(|| format!("{} is no module", from.display()))?;
    if fs::read(to).ok().as_deref() != Some(module.as_slice()) {
        fs::write(to, &module).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(module.len())
}
