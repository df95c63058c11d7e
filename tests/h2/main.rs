//! HTTP/2 as RFC 9113 and RFC 7541 have it, frame by frame: what a server must answer, ignore, reset or end.
//!
//! Covers the cases that the `h2spec` tool checks, written anew from the RFCs, against a gateway before a plain origin. Each case
//! has a connection of its own. A reaction that ends more than it must (a connection for a stream's sake) is allowed, as the RFC
//! allows it; silence where a reaction is due is not. What does not hold is listed in [`WRONG`] or [`GENERAL_CODE`] with its reason, and a case
//! that holds again must leave that list.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "what cannot go on in a test panics, and a test is as long as its table; the lints exempt only test functions"
)]

mod case;
mod exchanges;
mod frames;
mod hpack;
mod messages;
mod opening;
mod streams;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

use case::{Case, Miss};

const ALL: &[&[Case]] =
    &[exchanges::CASES, opening::CASES, streams::CASES, frames::CASES, messages::CASES, hpack::CASES];

/// Cases that do not hold.
const WRONG: &[&str] = &[
    // The HTTP library takes any padding that is not a whole symbol. Nothing can be hidden there.
    "7541-5.2 a string padded with zeros",
];

/// Cases where the connection ends as it must, with PROTOCOL_ERROR, the general code, in place of the particular one: the HTTP
/// library does not tell them apart. `h2spec` counts these as passed.
const GENERAL_CODE: &[&str] = &[
    "9113-4.3 a header block that cannot be decoded",
    "9113-5.1 DATA on a half-closed stream",
    "9113-5.1 HEADERS on a half-closed stream",
    "9113-5.1 HEADERS on a stream that was reset by their sender",
    "9113-5.1 HEADERS on a closed stream",
    "9113-6.3 PRIORITY of the wrong length",
    "9113-6.4 RST_STREAM of the wrong length",
    "9113-6.5 an acknowledgement with a payload",
    "9113-6.5 SETTINGS of a length that is no multiple of six",
    "9113-6.5.2 INITIAL_WINDOW_SIZE too large",
    "9113-6.7 PING of the wrong length",
    "9113-6.9 WINDOW_UPDATE of the wrong length",
    "7541-2.3.3 an index beyond the tables",
    "7541-2.3.3 a literal with a name beyond the tables",
    "7541-4.2 a new size of the table at the end of a block",
    "7541-5.2 padding of a string longer than seven bits",
    "7541-5.2 a string with the end-of-string symbol",
    "7541-6.1 index 0",
    "7541-6.3 a size of the table beyond what was allowed",
];

/// All in one test, so that the number that hold is known at its end.
#[test]
fn at_least_140_cases_hold() {
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/large" => Answer::ok(vec![b'x'; 200_000]),
        _ => Answer::ok("hello").header("x-seen", &seen.body.len().to_string()),
    });
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let (mut held, mut general, mut wrong, mut all) = (0, Vec::new(), Vec::new(), Vec::new());
    for case in ALL.iter().copied().flatten() {
        let name = case.to_string();
        match case.run(gateway.address()) {
            Ok(()) => held += 1,
            Err(Miss::Code(Some(1), _)) => general.push(name),
            Err(miss) => {
                all.push(format!("{name}: {miss}"));
                wrong.push(name);
            }
        }
    }
    println!("{held} cases hold, {} with the general code, {} do not", general.len(), wrong.len());
    assert_eq!(wrong, WRONG, "{}", all.join("\n"));
    assert_eq!(general, GENERAL_CODE);
    assert!(held + general.len() >= 140, "{held} and {}", general.len());
    assert_eq!(gateway.get("/").status(), 200, "after all that");
}
