//! What must not be left lying about in the sources, and no compiler minds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::root;

/// In two halves each, or this file would find itself.
const FORBIDDEN: [&str; 4] =
    [concat!("#[ign", "ore"), concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];

/// Above this a file is two ideas; said, not enforced.
const MANY_LINES: usize = 500;

/// Every place in a Rust file of either workspace that is forbidden.
pub(super) fn check() -> Result<Vec<String>> {
    let root = root();
    let mut wrong = Vec::new();
    for path in rust_files(&root)? {
        let text = fs::read_to_string(&path)?;
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        wrong.extend(findings(&text).into_iter().map(|(line, what)| format!("{name}:{line}: `{what}`")));
        let lines = text.lines().count();
        if lines > MANY_LINES {
            println!("warning: {name} has {lines} lines; above {MANY_LINES} a file is two ideas");
        }
    }
    Ok(wrong)
}

fn findings(text: &str) -> Vec<(usize, &'static str)> {
    let found = |(index, line): (usize, &str)| {
        let what = FORBIDDEN.into_iter().find(|forbidden| line.contains(forbidden))?;
        Some((index + 1, what))
    };
    text.lines().enumerate().filter_map(found).collect()
}

/// All Rust files below, sorted; build output and hidden directories are not ours.
fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(rust_files(&path)?);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_is_found_with_its_line() {
        let text = format!("#[test]\n{}]\nfn flaky() {{}}\n", concat!("#[ign", "ore"));
        assert_eq!(findings(&text), [(2, concat!("#[ign", "ore"))]);
    }

    #[test]
    fn words_that_only_look_alike_are_left_alone() {
        assert_eq!(findings("let todo = ignore(mine); // unimplemented, for a reason\n"), []);
    }
}
