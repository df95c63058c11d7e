//! What the documentation prints, taken from its pages to be run.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
///
/// # Panics
/// Never: this crate lies one level below it.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent")
}

/// A page, by its path from the root of the repository.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The fenced blocks of a language, in order.
#[must_use]
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let block = |rest: &str| rest.split_once("\n```").map_or(rest, |(block, _)| block).to_owned() + "\n";
    page.split(&start).skip(1).map(block).collect()
}

/// The whole configurations on a page: its YAML blocks that begin with `version: 1`.
#[must_use]
pub fn configurations(page: &str) -> Vec<String> {
    blocks(page, "yaml").into_iter().filter(|block| block.starts_with("version: 1\n")).collect()
}

/// A printed configuration for a test: what is at a printed place is here, every listener takes a free port, and secrets that
/// would come from the environment or from files are some text, which will do as a digest too.
///
/// # Panics
/// When a place is not in it.
#[must_use]
pub fn here(configuration: &str, places: &[(&str, &str)]) -> String {
    let mut text = configuration.to_owned();
    for (printed, here) in places {
        assert!(text.contains(printed), "{printed} is not in\n{text}");
        text = text.replace(printed, here);
    }
    text = replaced(&text, "bind: ", |address| {
        let quote = if address.starts_with('"') { "\"" } else { "" };
        let end = address.trim_start_matches('"').find(['"', ' ', ',', '\n', '}']).unwrap_or(address.len());
        (format!("{quote}127.0.0.1:0"), end + quote.len())
    });
    for secret in ["${env:", "${file:"] {
        text = replaced(&text, secret, |rest| (String::new(), rest.find('}').unwrap_or(0)));
        text = text
            .replace(&format!("{secret}}}"), "sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e");
    }
    text
}

/// The text with something else after each `mark`: what, and how many bytes of the old it stands for.
fn replaced(text: &str, mark: &str, new: impl Fn(&str) -> (String, usize)) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        let (new, old) = new(after);
        out.push_str(before);
        out.push_str(mark);
        out.push_str(&new);
        rest = after.get(old..).unwrap_or_default();
    }
    out + rest
}

/// Every page, below `docs` and the README.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of documentation") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}
