//! Whether the documents tell the truth as far as a program can see: commands exist, links lead somewhere.
//!
//! That a command does what the text promises is for people to try.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{COMMANDS, cargo, root};

/// Everything wrong in the README, the map and the user guide.
pub(super) fn check() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for path in documents()? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let commands = commands(&text);
        wrong.extend(commands.iter().filter_map(|command| unknown(command)).map(|what| format!("{name}: {what}")));
        let home = path.parent().unwrap_or(&path);
        let broken = links(&text).into_iter().filter(|link| !home.join(link).exists());
        wrong.extend(broken.map(|link| format!("{name}: the link to `{link}` leads nowhere")));
    }
    Ok(wrong)
}

fn documents() -> Result<Vec<PathBuf>> {
    let root = root();
    let mut documents = vec![root.join("README.md"), root.join("gateway/ARCHITECTURE.md"), root.join("sdk/README.md")];
    let guide = root.join("docs");
    if guide.is_dir() {
        for entry in fs::read_dir(guide)? {
            documents.push(entry?.path());
        }
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    Ok(documents)
}

/// Why a command cannot be run as it stands; `None` for those that are not ours.
fn unknown(command: &[&str]) -> Option<String> {
    let line = command.join(" ");
    match command {
        ["cargo", "xtask", name, ..] => {
            let known = COMMANDS.iter().any(|(known, ..)| known == name);
            (!known).then(|| format!("`{line}`: there is no such command"))
        }
        [program, args @ ..] if Path::new(program).file_name().is_some_and(|name| name == "portcullis") => {
            refused_by_portcullis(args).map(|why| format!("`{line}`: {why}"))
        }
        _ => None,
    }
}

/// Asks the gateway itself about a subcommand and its flags.
fn refused_by_portcullis(args: &[&str]) -> Option<String> {
    let mut words: Vec<&str> = args.iter().take(1).copied().filter(|first| !first.starts_with('-')).collect();
    let mut shown = match help(&words) {
        Ok(shown) => shown,
        Err(why) => return Some(why),
    };
    if let Some(word) = args.get(1).filter(|word| has_command(&shown, word)) {
        words.push(word);
        shown = match help(&words) {
            Ok(shown) => shown,
            Err(why) => return Some(why),
        };
    }
    let flags = args.iter().filter(|arg| arg.starts_with("--")).map(|arg| arg.split('=').next().unwrap_or(arg));
    flags.filter(|flag| !shown.contains(flag)).map(|flag| format!("there is no flag `{flag}`")).next()
}

/// What the gateway says of a subcommand.
fn help(words: &[&str]) -> Result<String, String> {
    let mut help = cargo();
    help.current_dir(root()).args(["run", "--quiet", "--package", "portcullis", "--"]).args(words).arg("--help");
    match help.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a subcommand has this one of its own.
fn has_command(help: &str, word: &str) -> bool {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    listed.filter_map(|line| line.split_whitespace().next()).any(|command| command == word)
}

/// The commands in the document's shell blocks, as words; prompts, comments, assignments and continuations resolved.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let mut commands = Vec::new();
    let mut continued = false;
    for line in fenced(text) {
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let mut words: Vec<&str> = words.skip_while(|word| *word == "$" || is_assignment(word)).collect();
        let continues = words.pop_if(|last| *last == "\\").is_some();
        match commands.last_mut() {
            Some(command) if continued => Vec::extend(command, words),
            _ => commands.push(words),
        }
        continued = continues;
    }
    // A command in the background, in a pipe or after another ends at the operator.
    let ends = |word: &&str| !matches!(*word, "&" | "|" | "&&" | ";");
    commands.into_iter().map(|words| words.into_iter().take_while(ends).collect()).collect()
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
}

/// The lines inside shell blocks.
fn fenced(text: &str) -> Vec<&str> {
    let mut inside = Fence::Outside;
    let mut lines = Vec::new();
    for line in text.lines() {
        inside = match (inside, line.trim_start().strip_prefix("```")) {
            (Fence::Outside, Some("sh" | "bash" | "console")) => Fence::Shell,
            (Fence::Outside, Some(_)) => Fence::Other,
            (_, Some(_)) => Fence::Outside,
            (inside, None) => {
                if inside == Fence::Shell {
                    lines.push(line);
                }
                inside
            }
        };
    }
    lines
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fence {
    Outside,
    Shell,
    Other,
}

/// Relative link targets outside code blocks, without their fragments.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|prose| prose.split("](").skip(1)).filter_map(|rest| rest.split([')', ' ']).next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    files.map(|target| target.split('#').next().unwrap_or(target)).filter(|file| !file.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
See [the map](gateway/ARCHITECTURE.md#rooms), [above](#top) and [elsewhere](https://example.com/a).
```sh
$ cargo xtask demo          # starts everything
RUST_LOG=debug portcullis run \\
    portcullis.yaml &
```
```yaml
portcullis: no command
link: [x](missing.md)
```
";

    #[test]
    fn commands_are_read_from_shell_blocks_only() {
        let want = [vec!["cargo", "xtask", "demo"], vec!["portcullis", "run", "portcullis.yaml"]];
        assert_eq!(commands(TEXT), want);
    }

    #[test]
    fn only_relative_links_in_prose_are_followed() {
        assert_eq!(links(TEXT), ["gateway/ARCHITECTURE.md"]);
    }

    #[test]
    fn a_command_of_ours_that_does_not_exist_is_named() {
        let what = unknown(&["cargo", "xtask", "fly"]).expect("no such command");
        assert!(what.contains("cargo xtask fly"), "{what}");
        assert_eq!(unknown(&["curl", "localhost"]), None);
    }
}
