//! What `docs/abi.md` says of the cases: which differ for which reason, and how many there are; and whether they leave anything out.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::{all, differences};

/// What guests of ABI 0.2.1 do not import.
const OLD: [&str; 6] = [
    "proxy_continue_request",
    "proxy_continue_response",
    "proxy_clear_route_cache",
    "proxy_get_configuration",
    "pthread_equal",
    "emscripten_notify_memory_growth",
];

/// Name and number of cases of each row of the table of differences.
fn rows(text: &str) -> BTreeMap<&str, usize> {
    let (_, section) = text.split_once("## Where Portcullis differs from Envoy, and why").unwrap();
    let named = section.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split(" | ").map(str::trim).collect();
        let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name, cells.last()?.parse().unwrap_or_else(|_| panic!("`{name}` ends with no number"))))
    });
    named.collect()
}

#[test]
fn the_documents_table_is_that_of_the_cases() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/abi.md");
    let text = std::fs::read_to_string(path).unwrap();
    let cases = all();
    let mut rows: BTreeMap<&str, usize> = rows(&text);
    let mut found: BTreeMap<&str, usize> = rows.keys().map(|name| (*name, 0)).collect();
    let differing: Vec<&str> =
        cases.iter().filter_map(|case| differences::of(&case.name)).map(|(why, _)| why).collect();
    for why in &differing {
        *found.entry(why).or_default() += 1;
    }
    rows.retain(|name, count| found.get(name) != Some(count));
    found.retain(|name, _| !text.contains(&format!("| `{name}` |")));
    assert!(rows.is_empty() && found.is_empty(), "wrong in the document: {rows:?}, missing there: {found:?}");
    let differ = differing.len();
    let want = format!("{} cases: {} are equal, {differ} differ", cases.len(), cases.len() - differ);
    assert!(text.contains(&want), "the document does not say `{want}`");
}

#[test]
fn only_cases_that_there_are_differ() {
    let cases = all();
    for name in differences::names() {
        assert!(cases.iter().any(|case| case.name == name), "there is no case {name}");
    }
}

#[test]
fn there_are_cases_for_every_section_and_every_hostcall() {
    let cases = all();
    assert!(cases.len() >= 150);
    let names: HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    for section in [
        "§2.2", "§4.1", "§4.2", "§6", "§6.1", "§6.2", "§6.3", "§6.4", "§7.2", "§7.3", "§7.4", "§7.5", "§8", "§9.1",
        "§9.2", "§9.3", "§9.4", "§9.5", "§9.6", "§10", "§11", "§12.3", "§12.5",
    ] {
        assert!(cases.iter().any(|case| case.section == section), "{section} has no case");
    }
    let scripts: String = cases.iter().flat_map(|case| &case.filters).map(|script| format!(" {script} ")).collect();
    for hostcall in portcullis_vm::hostcalls().filter(|name| !OLD.contains(name)) {
        let name = hostcall.strip_prefix("proxy_").unwrap_or(hostcall);
        assert!(scripts.contains(&format!(" {name}")), "no case calls {name}");
    }
    for function in portcullis_vm::foreign_functions() {
        assert!(scripts.contains(&format!("call_foreign_function {function} ")), "no case calls {function}");
    }
}
