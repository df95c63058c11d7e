//! The ABI document's lists of functions, read from `tests/abi/lists.md`.

use std::fmt::Write as _;

/// A function as the document has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The section that describes it: `6.1`.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// Whether it returns a number.
    pub returns: bool,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Where something begins that the host reads.
    Address,
    /// How long it is.
    Length,
    /// Where the host writes.
    Out,
    /// A number of 32 bits.
    Number,
    /// A number of 64 bits.
    Long,
}

/// Every function of the sections that are listed, in the document's order.
///
/// # Panics
/// When the file is not as it should be.
#[must_use]
pub fn document() -> Vec<Function> {
    let (mut section, mut all) = ("", Vec::new());
    for line in include_str!("../abi/lists.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.split(' ').next().unwrap();
        }
        let Some((name, signature)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) else { continue };
        // What a foreign function takes is bytes.
        let signature = if section == "10" { "()" } else { signature.trim_end_matches(" |") };
        let (parameters, returned) = signature.split_once(" → ").unwrap_or((signature, "i32"));
        let parameters = parameters.trim_matches(['(', ')']).split(", ").filter(|parameter| !parameter.is_empty());
        all.push(Function {
            section,
            name,
            parameters: parameters.flat_map(parsed).collect(),
            returns: returned != "()",
        });
    }
    assert!(all.len() > 100, "{}", all.len());
    all
}

fn parsed(text: &str) -> Vec<Parameter> {
    match text {
        "n[, eos]" => vec![Parameter::Number; 2],
        "buf" | "ptrs" => vec![Parameter::Out],
        // A list of addresses with lengths.
        "iovs" | "in" | "p" => vec![Parameter::Address],
        _ if text.ends_with("ptr/len") => vec![Parameter::Address, Parameter::Length],
        _ if text.starts_with("out") => vec![Parameter::Out],
        _ if text.contains("i64") => vec![Parameter::Long],
        _ => vec![Parameter::Number],
    }
}

impl Function {
    /// Whether a guest imports it, rather than exports it or calls it by name.
    #[must_use]
    pub fn is_imported(&self) -> bool {
        !matches!(self.section, "7.1" | "10")
    }

    /// The module it is imported from.
    #[must_use]
    pub fn module(&self) -> &'static str {
        if self.section == "5" { "wasi_snapshot_preview1" } else { "env" }
    }

    /// Its import in text format, as `$name`.
    #[must_use]
    pub fn import(&self) -> String {
        let mut text = format!("(import \"{}\" \"{}\" (func ${} (param", self.module(), self.name, self.name);
        for parameter in &self.parameters {
            text.push_str(if *parameter == Parameter::Long { " i64" } else { " i32" });
        }
        write!(text, "){}))", if self.returns { " (result i32)" } else { "" }).unwrap();
        text
    }
}
