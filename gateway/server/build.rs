//! Puts the modules of the first-party plugins into the binary.
//!
//! They are built by `cargo xtask plugins` into `plugins/` of the target directory; `PORTCULLIS_PLUGINS` names another
//! place. One that is not there is left out: the gateway then knows its name and says how to build it.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const NAMES: [&str; 6] = ["auth", "rate-limit", "transform", "aggregate", "grpc-json", "jq"];
/// The module that a tenant of `portcullis demo` brings along.
const DEMO: &str = "banner";

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-env-changed=PORTCULLIS_PLUGINS");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let folder = match env::var_os("PORTCULLIS_PLUGINS") {
        Some(folder) => PathBuf::from(folder),
        None => target(&out).join("plugins"),
    };
    // The directory must exist to be watched: cargo runs this again on every build while a watched path is missing.
    fs::create_dir_all(&folder)?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let code = |name: &str| {
        let path = folder.join(name).with_extension("wasm");
        if path.is_file() { format!("Some(include_bytes!({path:?}))") } else { "None".to_owned() }
    };
    let mut rows = String::new();
    for name in NAMES {
        writeln!(rows, "    ({name:?}, {}),", code(name)).expect("a string takes all that is written");
    }
    let table = format!(
        "pub(super) const BUILTINS: &[(&str, Option<&[u8]>)] = &[\n{rows}];\n\
         pub(super) const DEMO: Option<&[u8]> = {};\n",
        code(DEMO)
    );
    fs::write(out.join("builtin.rs"), table)
}

/// The target directory: the nearest above `OUT_DIR` that cargo has marked as one. `CARGO_TARGET_DIR` would not do, since
/// the directory can be set elsewhere too.
fn target(out: &Path) -> &Path {
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    let above = || out.ancestors().nth(4).unwrap_or(out);
    out.ancestors().find(marked).unwrap_or_else(above)
}
