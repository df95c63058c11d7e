//! What stands in a module, for people.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use portcullis_module::{Outline, needed, upstreams};
use portcullis_vm::{Engine, EngineOptions};
use sha2::{Digest as _, Sha256};

use crate::builtin::{self, Builtin};
use crate::config::{Digest, Written as _};

/// Functions of Portcullis' own, which Envoy does not have.
const WASI: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// Describes a module: a file, or `builtin:NAME`.
pub(crate) fn inspect(module: &Path) -> anyhow::Result<String> {
    let shown = module.display();
    let wasm = bytes(module)?;
    let outline = Outline::of(&wasm).with_context(|| shown.to_string())?;
    let mut out = String::new();
    let kib = |bytes: usize| bytes.div_ceil(1024);
    writeln!(out, "{shown}: {} KiB", kib(wasm.len()))?;
    // As `sha256` of a plugin and lock files have it.
    writeln!(out, "  sha256 {}", Digest(Sha256::digest(&wasm).into()).write())?;
    writeln!(
        out,
        "  code {} KiB, data {} KiB, names and manifest {} KiB; begins with {} KiB of memory",
        kib(outline.code_bytes),
        kib(outline.data_bytes),
        kib(outline.custom_bytes),
        outline.memory_pages.0 * 64
    )?;
    let abi = outline.abi.map_or("none: it exports no `proxy_abi_version_…`", |version| version.as_str());
    writeln!(out, "  ABI {abi}")?;
    describe_manifest(&outline, &mut out)?;
    let callbacks = outline.exports.iter().filter(|name| name.starts_with("proxy_on_"));
    writeln!(out, "  callbacks: {}", joined(callbacks.map(String::as_str)))?;
    for module in ["env"].into_iter().chain(WASI) {
        let imports: Vec<&str> = outline
            .imports
            .iter()
            .filter(|import| import.module == module)
            .map(|import| import.name.as_str())
            .collect();
        if !imports.is_empty() {
            writeln!(out, "  imports from {module}: {}", joined(imports))?;
        }
    }
    describe_hosts(&wasm, &outline, &mut out)?;
    Ok(out)
}

fn bytes(module: &Path) -> anyhow::Result<Cow<'static, [u8]>> {
    let shown = module.display();
    let Some(name) = module.to_str().and_then(|text| text.strip_prefix("builtin:")) else {
        return Ok(std::fs::read(module).with_context(|| format!("cannot read {shown}"))?.into());
    };
    match builtin::find(name) {
        Some(Builtin::Present(wasm)) => Ok(wasm.into()),
        Some(Builtin::Absent) => bail!("this binary was built without `{shown}`"),
        None => bail!("`{shown}` is no plugin of this binary; there are {}", builtin::names().join(", ")),
    }
}

fn describe_manifest(outline: &Outline, out: &mut String) -> anyhow::Result<()> {
    let Some(manifest) = &outline.manifest else {
        writeln!(out, "  no manifest: it was not built with portcullis-sdk")?;
        return Ok(());
    };
    writeln!(out, "  {} {}: {} (SDK {})", manifest.name, manifest.version, manifest.description, manifest.sdk)?;
    let bodies = if manifest.bodies.is_empty() { "none".to_owned() } else { manifest.bodies.join(", ") };
    writeln!(out, "  bodies: {bodies}; heads held while they are read: {}", yes(manifest.holds_headers))?;
    writeln!(out, "  provides: {}; requires: {}", listed(&manifest.provides), listed(&manifest.requires))?;
    writeln!(out, "  settings that name upstreams: {}", listed(&upstreams(&manifest.schema)))?;
    writeln!(out, "  schema: {}", manifest.schema)?;
    let idle: Vec<&str> =
        outline.exports.iter().map(String::as_str).filter(|export| !needed(manifest, export)).collect();
    if !idle.is_empty() {
        writeln!(
            out,
            "  exports {} that its filter has no use for, and that cost time; `portcullis plugin build` takes them out",
            joined(idle)
        )?;
    }
    Ok(())
}

fn describe_hosts(wasm: &[u8], outline: &Outline, out: &mut String) -> anyhow::Result<()> {
    let engine = Engine::new(EngineOptions { max_vms: 1, ..EngineOptions::default() })?;
    match engine.load("inspected", wasm) {
        Ok(_) => writeln!(out, "  runs on Portcullis")?,
        Err(why) => writeln!(out, "  does not run on Portcullis: {why}")?,
    }
    let unknown =
        outline.imports.iter().filter(|import| import.module != "env" && !WASI.contains(&import.module.as_str()));
    let unknown: Vec<String> = unknown.map(|import| format!("{}.{}", import.module, import.name)).collect();
    let holds = outline.manifest.as_ref().is_some_and(|manifest| manifest.holds_headers);
    match outline.abi {
        None => writeln!(out, "  does not run on Envoy: it speaks no Proxy-Wasm ABI")?,
        Some(_) if !unknown.is_empty() => writeln!(out, "  does not run on Envoy: it imports {}", unknown.join(", "))?,
        Some(_) if holds => writeln!(
            out,
            "  runs on Envoy; heads are held there with `allow_on_headers_stop_iteration: true` and the VM configuration \
             `{{\"holds_headers\": true}}`"
        )?,
        Some(_) => {
            writeln!(out, "  runs on Envoy, by its imports; `portcullis plugin test FILE --host envoy` tries it there")?
        }
    }
    Ok(())
}

fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
