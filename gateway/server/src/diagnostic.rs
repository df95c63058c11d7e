//! What the operator reads when a configuration is wrong: what, where, why, and what to do.
//!
//! A diagnostic carries the sources it points into, so it can be printed, logged or kept without them. Finding problems is
//! left to `config`.
//! **Invariant:** text that reaches a diagnostic is text as written; resolved secrets never do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Inputs;

/// A file of configuration as it was read.
#[derive(Debug)]
pub struct Source {
    /// The name it is shown under: its path as given.
    pub name: String,
    /// The directory that paths written in it start from.
    pub folder: PathBuf,
    /// The directory that paths written in it may not leave; a tenant's own files have one.
    pub fence: Option<PathBuf>,
    /// Whose own file it is, if it is a tenant's.
    pub tenant: Option<Arc<str>>,
    /// Its text.
    pub text: String,
    /// Where the files are noted that it names.
    pub inputs: Inputs,
}

impl Source {
    /// The file that `written` means in this source: relative to the source's own directory.
    ///
    /// # Errors
    /// A reason, when the source is fenced and the path leads out of its fence.
    pub fn resolve(&self, written: &str) -> Result<PathBuf, String> {
        let path = self.inputs.locate(&self.folder, written);
        self.inputs.note_of(&path, self.tenant.as_ref());
        match &self.fence {
            Some(fence) if !is_within(fence, &path) => {
                Err(format!("a tenant's own files may only name files below {}", fence.display()))
            }
            Some(_) | None => Ok(path),
        }
    }

    /// A source without text: the one that a path names, before it is read.
    pub(crate) fn named(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let (name, text) = (path.display().to_string(), String::new());
        Self { name, folder, fence: None, tenant: None, text, inputs: Inputs::default() }
    }
}

/// Whether a path stays in a directory, wherever symbolic links lead. One at which there is nothing does.
pub(crate) fn is_within(fence: &Path, path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return true };
    fence.canonicalize().is_ok_and(|fence| path.starts_with(fence))
}

/// A line and a column, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A stretch of a source; `end` is exclusive.
#[derive(Clone, Debug)]
pub struct Span {
    /// The source it lies in.
    pub source: Arc<Source>,
    /// Its first character.
    pub start: Position,
    /// The character after its last.
    pub end: Position,
}

impl Span {
    /// The very beginning of a source.
    #[must_use]
    pub fn beginning(source: &Arc<Source>) -> Self {
        let start = Position { line: 1, column: 1 };
        Self { source: Arc::clone(source), start, end: start }
    }

    fn order(&self) -> (&str, Position) {
        (&self.source.name, self.start)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.name, self.start.line, self.start.column)
    }
}

/// Whether a diagnostic stops the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but does not do what it seems to say either.
    Warning,
}

/// A place with what is to be said about it.
#[derive(Clone, Debug)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The remark beside the underline; may be empty.
    pub text: String,
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Whether it stops the configuration from being used.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where; the first is the place to look at.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Vec<String>,
    /// The tenant whose own files it is about, where none of its places lies in them.
    tenant: Option<Arc<str>>,
}

impl Diagnostic {
    /// An error that stops the configuration from being used.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), labels: Vec::new(), help: Vec::new(), tenant: None }
    }

    /// A remark on a configuration that can be used.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Adds a place and a remark about it.
    #[must_use]
    pub fn at(mut self, span: &Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span: span.clone(), text: text.into() });
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Lays it on a tenant's own files.
    #[must_use]
    pub fn of_tenant(self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.into()), ..self }
    }

    /// The tenants who can mend it, if that is not the gateway's operator: places of it are in their own files.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        let places = self.labels.iter().filter_map(|label| label.span.source.tenant.as_ref());
        self.tenant.iter().chain(places)
    }

    /// Whether one of its places is in this tenant's own files, or it is this tenant's without one.
    #[must_use]
    pub fn concerns(&self, tenant: &str) -> bool {
        self.tenants().any(|of| **of == *tenant)
    }

    /// Adds advice if there is any.
    #[must_use]
    pub fn maybe_help(self, text: Option<String>) -> Self {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }
}

/// How many are told in one text. A generated file may have one on each of its lines, and telling of each takes as long as the file is.
const TOLD: usize = 100;

/// All of them as one text, for logs; of very many the first.
pub(crate) fn text(diagnostics: &[Diagnostic]) -> String {
    let told = diagnostics.iter().take(TOLD).map(|diagnostic| format!("{diagnostic}\n"));
    let more = diagnostics.len().saturating_sub(TOLD);
    told.chain((more > 0).then(|| format!("and {more} more like these\n"))).collect()
}

/// Puts diagnostics in the order of their places: by file, then by line.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    let place = |diagnostic: &Diagnostic| {
        diagnostic.labels.first().map(|label| {
            let (name, position) = label.span.order();
            (name.to_owned(), position)
        })
    };
    diagnostics.sort_by_key(place);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        let last = self.labels.iter().map(|label| label.span.start.line).max().unwrap_or(1);
        let gutter = last.to_string().len();
        for label in &self.labels {
            show(f, label, gutter)?;
        }
        for help in &self.help {
            writeln!(f, "{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// How much of a line is shown: keys, certificates and key sets are sometimes written on lines of thousands of characters.
const SHOWN_CHARACTERS: usize = 160;

fn show(f: &mut fmt::Formatter<'_>, label: &Label, gutter: usize) -> fmt::Result {
    let Span { source, start, end } = &label.span;
    writeln!(f, "{:gutter$} ┌ {}", "", label.span)?;
    let Some(line) = start.line.checked_sub(1).and_then(|index| source.text.lines().nth(index)) else {
        return if label.text.is_empty() { Ok(()) } else { writeln!(f, "{:gutter$} │ {}", "", label.text) };
    };
    let length = line.chars().count();
    let from = (start.column - 1).min(length);
    let to = if end.line > start.line { length } else { (end.column - 1).min(length) };
    // The parser counts the spaces behind some values in.
    let to =
        from + line.chars().skip(from).take(to.saturating_sub(from)).collect::<String>().trim_end().chars().count();
    let cut = if length > SHOWN_CHARACTERS { from.saturating_sub(SHOWN_CHARACTERS / 4) } else { 0 };
    let shown: String = line.chars().skip(cut).take(SHOWN_CHARACTERS).collect();
    let head = if cut > 0 { "…" } else { "" };
    let tail = if length > cut + SHOWN_CHARACTERS { "…" } else { "" };
    // A tab stays a tab, so that the underline begins where the text does, whatever the terminal's tab width.
    let indent: String = line.chars().skip(cut).take(from - cut).map(|c| if c == '\t' { c } else { ' ' }).collect();
    let underline = "^".repeat((to - from).clamp(1, SHOWN_CHARACTERS - (from - cut).min(SHOWN_CHARACTERS - 1)));
    let pad = if cut > 0 { " " } else { "" };
    writeln!(f, "{:>gutter$} │ {head}{shown}{tail}", start.line)?;
    writeln!(f, "{}", format!("{:gutter$} │ {pad}{indent}{underline} {}", "", label.text).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, columns: (usize, usize), want: &Expect) {
        let source = Arc::new(Source { text: text.to_owned(), ..Source::named(Path::new("a.yaml")) });
        let position = |column| Position { line: 1, column };
        let span = Span { source, start: position(columns.0), end: position(columns.1) };
        want.assert_eq(&Diagnostic::error("no").at(&span, "why").help("do").to_string());
    }

    #[test]
    fn the_underline_lies_under_the_text() {
        check(
            "upstream: payments",
            (11, 19),
            &expect![[r#"
                error: no
                  ┌ a.yaml:1:11
                1 │ upstream: payments
                  │           ^^^^^^^^ why
                  = help: do
            "#]],
        );
    }

    #[test]
    fn a_place_at_the_end_of_a_line_still_gets_one_caret() {
        check(
            "upstream:",
            (10, 10),
            &expect![[r#"
                error: no
                  ┌ a.yaml:1:10
                1 │ upstream:
                  │          ^ why
                  = help: do
            "#]],
        );
    }

    #[test]
    fn a_file_without_text_has_no_line_to_show() {
        check(
            "",
            (1, 1),
            &expect![[r#"
                error: no
                  ┌ a.yaml:1:1
                  │ why
                  = help: do
            "#]],
        );
    }

    #[test]
    fn of_very_many_the_first_are_told() {
        let many = vec![Diagnostic::error("no"); TOLD + 5];
        let text = text(&many);
        assert_eq!(text.matches("error: no").count(), TOLD);
        assert!(text.ends_with("and 5 more like these\n"), "{text}");
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let line = format!("{}BAD{}", "x".repeat(1000), "y".repeat(1000));
        let source = Arc::new(Source { text: line, ..Source::named(Path::new("a.yaml")) });
        let position = |column| Position { line: 1, column };
        let span = Span { source, start: position(1001), end: position(1004) };
        let text = Diagnostic::error("no").at(&span, "").to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.lines().all(|line| line.chars().count() < 180), "{text}");
        let at = lines[3].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[2].chars().skip(at).take(3).collect::<String>(), "BAD");
    }
}
