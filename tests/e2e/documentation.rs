//! Every whole configuration that the documentation prints, started; and the keys that it lists, beside those that there are.

use std::collections::BTreeSet;

use portcullis_core::reply::Failure;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::{docs, guests};

/// Modules that readers have and this repository has not. The one here takes any settings, and does nothing.
const READERS_OWN: &[&str] = &["file:hello.wasm", "file:plugins/guard.wasm", "oci://registry.example/plugins/geo:1.4"];

/// Files that readers have, whose contents count.
const READERS_FILES: &[(&str, &str)] =
    &[("${file:notes.base64}", include_str!("../../plugins/grpc-json/proto/notes.base64"))];

#[test]
fn every_configuration_in_the_documentation_starts() {
    let noop = format!("file:{}", guests::module("noop").display());
    let mut started = 0;
    for path in docs::pages() {
        let page = docs::page(&path.to_string_lossy());
        for printed in docs::configurations(&page) {
            let own = READERS_OWN.iter().filter(|own| printed.contains(*own));
            let files = READERS_FILES.iter().filter(|(file, _)| printed.contains(file));
            let places: Vec<_> = own.map(|own| (*own, noop.as_str())).chain(files.copied()).collect();
            if let Err(why) = Gateway::try_start(&docs::here(&printed, &places), &[]) {
                panic!("{}:\n{printed}\n{why}", path.display());
            }
            started += 1;
        }
    }
    assert!(started >= 2, "{started} configurations were found");
}

/// The tables of the page about the configuration, and what the schema calls the same; the file itself has no name there.
const TABLES: [(&str, Option<&str>); 6] = [
    ("The file", None),
    ("A plugin", Some("Plugin")),
    ("A filter", Some("Filter")),
    ("A route", Some("Route")),
    ("A match", Some("Match")),
    ("A tenant", Some("Tenant")),
];

#[test]
fn the_page_about_the_configuration_lists_every_key_and_no_other() {
    let page = docs::page("docs/configuration.md");
    let schema = portcullis::config::schema();
    for (heading, name) in TABLES {
        let section =
            page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section `{heading}`"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let listed: BTreeSet<&str> = rows.flat_map(|keys| keys.split('`').skip(1).step_by(2)).collect();
        let described = name.map_or(&schema, |name| &schema["$defs"][name]);
        let known = described["properties"].as_object().unwrap_or_else(|| panic!("no `{name:?}` in the schema"));
        assert_eq!(listed, known.keys().map(String::as_str).collect(), "{heading}");
    }
}

#[test]
fn the_page_about_failures_has_every_code_with_its_status() {
    let page = docs::page("docs/failures.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows = rows.filter(|(statuses, _)| statuses.starts_with(|first: char| first.is_ascii_digit()));
    let listed = rows.flat_map(|(statuses, rest)| {
        let codes = rest.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2);
        // One status for all codes of a row, or one for each.
        let statuses: Vec<u16> = statuses.split(", ").map(|status| status.parse().unwrap()).collect();
        codes.enumerate().map(move |(at, code)| (statuses.get(at).copied().unwrap_or(statuses[0]), code))
    });
    let known = Failure::ALL.iter().map(|failure| (failure.status().as_u16(), failure.code()));
    assert_eq!(listed.collect::<BTreeSet<_>>(), known.collect());
}

/// The pages beside those of `docs::pages`.
const OTHERS: [&str; 3] = ["sdk/README.md", "plugins/README.md", "gateway/ARCHITECTURE.md"];

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut followed = 0;
    for page in docs::pages().into_iter().chain(OTHERS.map(|page| docs::root().join(page))) {
        let text = docs::page(&page.to_string_lossy());
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("http")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let there = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            assert!(there.exists(), "{}: {link}", page.display());
            let has =
                || docs::page(&there.to_string_lossy()).lines().any(|line| anchor(line) == Some(heading.to_owned()));
            assert!(heading.is_empty() || has(), "{}: {link}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed} links were found");
}

/// What GitHub calls a heading in an address: small letters, digits, `-` and `_` of it, and `-` for blanks.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let letters = heading.chars().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(letters.map(|c| if c == ' ' { '-' } else { c }).collect())
}
