//! Regular expressions for CEL's `matches`: RE2's syntax, as a table with an entry for each state and byte.
//!
//! A table makes a match cost a few steps for each byte of the text, whatever the expression is. An expression whose table would be
//! larger than [`TABLE_BYTES`] is refused; as Envoy refuses one that is longer than 100 instructions of RE2's.

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

/// The largest table.
const TABLE_BYTES: usize = 64 << 10;
/// The most bytes that making a table may take beyond it.
const WORK_BYTES: usize = 256 << 10;
/// The longest expression.
const TEXT_BYTES: usize = 1 << 10;

/// A regular expression.
#[derive(Debug)]
pub(super) struct Pattern(dense::DFA<Vec<u32>>);

impl Pattern {
    /// Nothing for what is no expression, or too large a one.
    pub(super) fn new(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES {
            return None;
        }
        let dfa = dense::Config::new()
            .dfa_size_limit(Some(TABLE_BYTES))
            .determinize_size_limit(Some(WORK_BYTES))
            .start_kind(StartKind::Unanchored);
        let table = dense::Builder::new()
            .configure(dfa)
            .thompson(thompson::Config::new().nfa_size_limit(Some(TABLE_BYTES)))
            .syntax(syntax::Config::new().utf8(false).nest_limit(32))
            .build(&as_re2_means(text));
        table.ok().map(Self)
    }

    /// Whether some part of a text is as it says.
    pub(super) fn is_found_in(&self, text: &str) -> bool {
        let input = Input::new(text).anchored(Anchored::No).earliest(true);
        matches!(self.0.try_search_fwd(&input), Ok(Some(_)))
    }

    /// How much memory its table takes.
    pub(super) fn size(&self) -> usize {
        self.0.memory_usage()
    }
}

/// Where in an expression a character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// Behind the bracket that opens a class, where a closing one means itself.
    ClassBegins,
    Class,
}

/// An expression of RE2's in the parser's words: where the two differ, `\d`, `\s`, `\w` and `\b` mean ASCII, and in a class `[`,
/// `&` and `~` mean themselves.
fn as_re2_means(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut place = Place::Outside;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let begins = place == Place::ClassBegins;
        if begins && letter != '^' {
            place = Place::Class;
        }
        match (letter, place) {
            ('\\', _) => escaped(&mut out, letters.next(), place),
            ('[', Place::Outside) => {
                place = Place::ClassBegins;
                out.push('[');
            }
            ('[', _) if letters.peek() == Some(&':') => {
                // A class by its name, up to its own bracket.
                out.push('[');
                for letter in letters.by_ref() {
                    out.push(letter);
                    if letter == ']' {
                        break;
                    }
                }
            }
            (']', Place::Class) if !begins => {
                place = Place::Outside;
                out.push(']');
            }
            ('[' | ']' | '&' | '~', Place::Class) => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
    }
    out
}

fn escaped(out: &mut String, letter: Option<char>, place: Place) {
    match (letter, place) {
        (Some('d'), _) => out.push_str("[0-9]"),
        (Some('D'), _) => out.push_str("[^0-9]"),
        (Some('s'), _) => out.push_str("[\\t\\n\\f\\r ]"),
        (Some('S'), _) => out.push_str("[^\\t\\n\\f\\r ]"),
        (Some('w'), _) => out.push_str("[0-9A-Za-z_]"),
        (Some('W'), _) => out.push_str("[^0-9A-Za-z_]"),
        (Some('b'), Place::Outside) => out.push_str("(?-u:\\b)"),
        (Some('B'), Place::Outside) => out.push_str("(?-u:\\B)"),
        (letter, _) => {
            out.push('\\');
            out.extend(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_means_what_it_means_to_re2() {
        for (pattern, yes, no) in [
            ("b", "abc", "ac"),
            ("^/v[0-9]+/orders/[^/]+$", "/v12/orders/7", "/v12/orders/7/items"),
            ("^(GET|PUT)$", "PUT", "PUTS"),
            ("^a.c$", "aéc", "a\nc"),
            ("(?i)^É$", "é", "e"),
            (r"^\d+$", "123", "١٢٣"),
            (r"^[\d.]+$", "1.2", "1,2"),
            (r"^\w+\s\W$", "a_1 é", "é 1 !"),
            (r"\bgo\b", "let go, now", "lingo"),
            (r"^[^\D5]$", "4", "5"),
            ("^[]a]+$", "]a]", "[a]"),
            ("^[^]a]+$", "bc", "b]"),
            ("^[[a&&b~]+$", "[&~ab", "c"),
            ("^[[:alpha:]_]+$", "ab_c", "ab1"),
            (r"^\.\\\[x\]$", r".\[x]", "a"),
            ("^a{2,3}$", "aaa", "aaaa"),
            ("^(?:a|b)*?c$", "abac", "abad"),
        ] {
            let made = Pattern::new(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert!(made.is_found_in(yes), "{pattern} {yes}");
            assert!(!made.is_found_in(no), "{pattern} {no}");
        }
        assert!(Pattern::new("").unwrap().is_found_in(""));
    }

    #[test]
    fn what_is_no_expression_or_a_large_one_is_refused() {
        let long = "a".repeat(TEXT_BYTES + 1);
        let deep = format!("{}a{}", "(".repeat(200), ")".repeat(200));
        for pattern in [
            "(a",
            "a)",
            "[a",
            "a{2",
            "*",
            r"a\",
            r"(a)\1",
            "(?=a)",
            &long,
            &deep,
            "a{1001}{1001}",
            ".{500}",
            "(a|b)*a(a|b){20}",
            r"\pL{40}",
        ] {
            let made = Pattern::new(pattern).map(|pattern| pattern.size());
            assert!(made.is_none(), "{pattern} {made:?}");
        }
    }
}
