//! §7.3: bodies in pieces, what their callbacks answer, and the lengths that were announced for them.

use crate::case::Part::{After, Break, Data, Trailers};
use crate::case::{Case, Version, case, get, post, reply};

const SECTION: &str = "§7.3";

/// A body callback's note of what it was shown.
const NOTE: &str = "args; end";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, action) in [("go-on", 0), ("are-held", 1), ("wait", 2), ("are-dropped", 3), ("do-what-is-unknown", 7)] {
        cases.push(in_pieces(
            format!("pieces-of-a-response-{name}"),
            format!("response_body(more): {NOTE}; return {action} | response_body(end): {NOTE}"),
        ));
        cases.push(
            case(
                SECTION,
                format!("pieces-of-a-request-{name}"),
                format!(
                    "request_body(more): {NOTE}; get_buffer_bytes 0 0 99; return {action} | \
                     request_body(end): get_buffer_bytes 0 0 99"
                ),
            )
            .ask(post("").version(Version::Chunked).body(&[
                Data("ab"),
                After("request_body: [2, 0]"),
                Data("cd"),
            ])),
        );
    }
    cases.extend([
        in_pieces(
            "what-is-held-is-shown-whole".to_owned(),
            "response_body(more): get_buffer_bytes 1 0 99; args; return 1 | \
                 response_body(end): get_buffer_bytes 1 0 99; set_buffer_bytes 1 0 99 whole"
                .to_owned(),
        ),
        in_pieces(
            "each-piece-is-replaced".to_owned(),
            "response_body(more): args; set_buffer_bytes 1 0 99 '[]'".to_owned(),
        ),
        in_pieces(
            "pieces-go-from-filter-to-filter".to_owned(),
            "response_body(more): args; set_buffer_bytes 1 0 0 '<'".to_owned(),
        )
        .then("response_body(more): args; set_buffer_bytes 1 -1 0 '>'"),
        case(SECTION, "a-request-without-a-body-ends-at-once", "request_headers: end | request_body: args; end"),
        case(
            SECTION,
            "a-request-with-a-body-ends-later",
            "request_headers: end | request_body: args; \
             end",
        )
        .ask(post("body")),
        case(SECTION, "a-request-with-an-empty-body", "request_headers: end | request_body: args; end").ask(post("")),
        case(
            SECTION,
            "a-response-to-head-ends-at-once",
            "response_headers: end | \
             response_body: args",
        )
        .ask(get("/").method("HEAD")),
        case(
            SECTION,
            "a-response-without-content-ends-at-once",
            "response_headers: end | \
             response_body: args",
        )
        .origin(reply(204, "")),
        case(
            SECTION,
            "a-response-that-is-not-modified-ends-at-once",
            "response_headers: end | \
             response_body: args",
        )
        .origin(reply(304, "")),
        case(SECTION, "a-response-with-a-body-ends-later", "response_headers: end | response_body: args; end"),
        case(
            SECTION,
            "an-empty-response-ends",
            "response_headers: end | response_body: args; \
             end",
        )
        .origin(reply(200, "")),
        case(
            SECTION,
            "trailers-are-the-end",
            "request_headers: end | request_body: end | \
             request_trailers: get_header_map_pairs 1 %pairs | response_headers: end | response_body: end | \
             response_trailers: get_header_map_pairs 3 %pairs",
        )
        .ask(super::headers::trailers())
        .origin(super::headers::trailing()),
        case(
            SECTION,
            "trailers-are-made-at-the-end",
            "request_body(end): add_header_map_value 1 x-made 1; \
             get_header_map_pairs 1 %pairs | response_body(end): add_header_map_value 3 x-made 2; \
             get_header_map_pairs 3 %pairs",
        )
        .ask(post("body").path("/h2/").version(Version::Http2)),
        case(
            SECTION,
            "trailers-are-held",
            "request_trailers: http_call origin {:method=GET :path=/call :authority=a} '' '' 5000 =t; \
             return 1 | http_call_response: set_effective_context $ctx; add_header_map_value 1 x-t 2; \
             continue_stream 0",
        )
        .ask(super::headers::trailers()),
        case(
            SECTION,
            "a-held-body-is-released-by-trailers",
            "response_body: args; return 1 | \
             response_trailers: get_buffer_bytes 1 0 99; set_buffer_bytes 1 0 99 changed",
        )
        .ask(super::headers::trailers())
        .origin(super::headers::trailing()),
        case(
            SECTION,
            "an-answer-breaks-off",
            "response_body: end; \
             args",
        )
        .origin(reply(200, "").parts(&[Data("ab"), After("response_body: [2, 0]"), Break])),
    ]);
    cases.extend(lengths());
    cases
}

/// Three pieces of two bytes, each seen before the next is sent.
fn in_pieces(name: String, script: String) -> Case {
    let parts = [Data("ab"), After("response_body: [2, 0]"), Data("cd")];
    case(SECTION, name, script).origin(reply(200, "").parts(&parts))
}

/// §12.3: what becomes of a length that no longer fits.
fn lengths() -> Vec<Case> {
    vec![
        case("§12.3", "a-longer-request-with-its-old-length", "request_body#1: set_buffer_bytes 0 -1 0 ' and more'")
            .ask(post("body")),
        case("§12.3", "a-longer-response-with-its-old-length", "response_body#1: set_buffer_bytes 1 -1 0 ' and more'"),
        case(
            "§12.3",
            "a-length-that-is-removed",
            "request_headers: remove_header_map_value 0 content-length | \
             request_body#1: set_buffer_bytes 0 -1 0 ' and more'",
        )
        .ask(post("body")),
        case(
            "§12.3",
            "a-length-that-is-set-right",
            "request_headers: replace_header_map_value 0 content-length 6 | \
             request_body#1: set_buffer_bytes 0 -1 0 '++'",
        )
        .ask(post("body")),
        case(
            "§12.3",
            "a-response-length-that-is-set-right",
            "response_headers: replace_header_map_value 2 content-length 4 | \
             response_body#1: set_buffer_bytes 1 -1 0 '++'",
        ),
        case(
            "§12.3",
            "a-response-over-http2-with-its-old-length",
            "response_body#1: set_buffer_bytes 1 -1 0 ' and more'",
        )
        .ask(get("/").version(Version::Http2)),
        case("§12.3", "trailers-come-through", "request_headers: end")
            .ask(super::headers::trailers())
            .origin(reply(200, "").parts(&[Data("ok"), Trailers(&[("x-t", "1")])])),
    ]
}
