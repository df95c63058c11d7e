//! A new plugin: a crate that builds and passes at once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

/// The template's files, and where they go.
const FILES: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("cases.yaml", include_str!("template/cases.yaml")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", "/target\n*.wasm\n"),
    // A lock of its own, so that what is built is what the SDK was tested with; and so that it needs no network.
    ("Cargo.lock", include_str!("../../../../plugins/Cargo.lock")),
];

/// Makes the crate, and returns its name.
pub(crate) fn create(directory: &Path, sdk: Option<&Path>) -> anyhow::Result<String> {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    ensure!(
        name.starts_with(|first: char| first.is_ascii_lowercase()) && name.chars().all(fits),
        "`{name}` is no name for a plugin; use lower-case letters, digits and hyphens, a letter first"
    );
    let is_taken = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!is_taken, "{} is there already and not empty", directory.display());
    let sdk = find_sdk(sdk)?;
    for (path, text) in FILES {
        let path = directory.join(path);
        let folder = path.parent().unwrap_or(directory);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let text = text.replace("@NAME@", name).replace("@SDK@", &sdk.display().to_string());
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(name.to_owned())
}

/// The SDK's sources: where they were said to be, or where this binary was built.
fn find_sdk(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    let sdk = asked.map_or(built, Path::to_owned);
    match sdk.canonicalize() {
        Ok(sdk) if sdk.join("guest/Cargo.toml").is_file() => Ok(sdk),
        _ => bail!(
            "the SDK is not at {}; say where the `sdk` directory of Portcullis' sources is, by --sdk DIR or PORTCULLIS_SDK",
            sdk.display()
        ),
    }
}
