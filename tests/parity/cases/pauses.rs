//! §7.3: what headers callbacks answer, pausing and going on; §6.4: streams.

use crate::case::Part::{After, Data};
use crate::case::{Case, Version, case, get, plain, post, reply};

const SECTION: &str = "§7.3";

/// A callout whose answer resumes.
const CALL: &str = "http_call origin {:method=GET :path=/call :authority=call.test} '' '' 5000 =t";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = actions();
    cases.extend(held());
    cases.extend(resumed());
    cases.extend(streams());
    cases
}

fn actions() -> Vec<Case> {
    let resume = "http_call_response: set_effective_context $ctx; continue_stream";
    // Whatever the action, the exchange lasts until the callout has been answered.
    let slow = [Data("ab"), After("continue_stream"), Data("cd")];
    let each = |action: u32| {
        let request = format!(
            "request_headers: {CALL}; return {action} | request_body#1: get_buffer_bytes 0 0 99 | \
                 {resume} 0"
        );
        let response = format!(
            "response_headers: {CALL}; return {action} | response_body#1: get_buffer_bytes 1 0 99 | {resume} 1"
        );
        [
            case(SECTION, format!("request-headers-answer-{action}"), request)
                .ask(post("body"))
                .answer("/call", reply(200, "called"))
                .origin(reply(200, "ok").after("continue_stream")),
            case(SECTION, format!("response-headers-answer-{action}"), response)
                .answer("/call", reply(200, "called"))
                .origin(reply(200, "").parts(&slow)),
        ]
    };
    [0, 1, 2, 3, 4, 9].into_iter().flat_map(each).collect()
}

fn held() -> Vec<Case> {
    let resume = "http_call_response: set_effective_context $ctx";
    vec![
        case(
            SECTION,
            "held-request-headers-stay-writable",
            format!(
                "request_headers: {CALL}; return 1 | {resume}; get_header_map_value 0 :path; \
                 add_header_map_value 0 x-late 1; continue_stream 0"
            ),
        ),
        case(
            SECTION,
            "held-response-headers-stay-writable",
            format!(
                "response_headers: {CALL}; return 1 | {resume}; get_header_map_value 2 :status; \
                 add_header_map_value 2 x-late 1; continue_stream 1"
            ),
        )
        .answer("/call", reply(200, "called")),
        case(
            SECTION,
            "a-held-body-is-replaced-by-a-callout",
            format!(
                "request_headers: remove_header_map_value 0 content-length | request_body(more): return 1 | \
                 request_body(end): {CALL}; return 1 | \
             {resume}; get_buffer_bytes 0 0 99; set_buffer_bytes 0 0 99 replaced; continue_stream 0"
            ),
        )
        .ask(post("body")),
        case(
            SECTION,
            "a-held-response-body-is-replaced-by-a-callout",
            format!(
                "response_headers: remove_header_map_value 2 content-length | response_body(more): return 1 | \
                 response_body(end): {CALL}; return 1 | \
             {resume}; get_buffer_bytes 1 0 99; set_buffer_bytes 1 0 99 replaced; continue_stream 1"
            ),
        )
        .answer("/call", reply(200, "called")),
        case(
            SECTION,
            "what-arrives-behind-held-headers-comes-at-once",
            format!(
                "request_headers: {CALL}; return 1 | request_body#1: get_buffer_bytes 0 0 99 | {resume}; \
                 continue_stream 0"
            ),
        )
        .ask(post("body")),
        case(
            SECTION,
            "a-pause-holds-the-filters-behind-it",
            format!("request_headers: {CALL}; return 1 | {resume}; add_header_map_value 0 x-a 1; continue_stream 0"),
        )
        .then("request_headers: get_header_map_value 0 x-a"),
        case(SECTION, "the-first-filter-has-seen-what-the-second-holds", "request_headers: get_header_map_value 0 x-a")
            .then(
                "request_headers: http_call origin {:method=GET :path=/call :authority=a} '' '' 5000 =t; \
                 return 1 | http_call_response: set_effective_context $ctx; add_header_map_value 0 x-a 1; \
                 continue_stream 0",
            ),
        case(
            SECTION,
            "headers-alone-are-held-back",
            "request_headers: return 1 | request_body(more): args; \
             return 1 | request_body(end): add_header_map_value 0 x-late 1; get_buffer_bytes 0 0 99",
        )
        .holds_headers()
        .ask(post("body")),
        case(
            SECTION,
            "response-headers-alone-are-held-back",
            "response_headers: return 1 | \
             response_body(more): args; return 1 | response_body(end): replace_header_map_value 2 :status 202; \
             get_buffer_bytes 1 0 99",
        )
        .holds_headers(),
        case(
            SECTION,
            "headers-alone-are-released-by-a-callout",
            format!(
                "request_headers: {CALL}; return 1 | \
             request_body: return 1 | request_body#1: get_buffer_bytes 0 0 9; get_header_map_value 0 :method | \
             {resume}; add_header_map_value 0 x-late 1; continue_stream 0"
            ),
        )
        .holds_headers()
        .ask(post("body")),
    ]
}

fn resumed() -> Vec<Case> {
    let mut cases = plain(
        SECTION,
        &[
            ("going-on-in-the-callback-that-pauses", "request_headers: continue_stream 0; return 1"),
            ("going-on-in-the-callback-that-goes-on", "request_headers: continue_stream 0; return 0"),
            ("going-on-twice", "request_headers: continue_stream 0; continue_stream 0; return 1"),
            ("going-on-in-the-response", "response_headers: continue_stream 1; return 1"),
            (
                "going-on-with-a-request-that-has-gone",
                "response_headers: continue_stream 0; get_header_map_value 2 :status",
            ),
            ("going-on-when-all-is-said", "log: continue_stream 0; continue_stream 1"),
            (
                "headers-after-going-on",
                "request_headers: continue_stream 0; get_header_map_pairs 0 %none; \
                     add_header_map_value 0 x-late 1; return 1",
            ),
            (
                "response-headers-after-going-on",
                "response_headers: continue_stream 1; add_header_map_value 2 x-late 1; return 1",
            ),
        ],
    );
    cases.push(
        case(
            SECTION,
            "going-on-twice-from-two-callouts",
            format!(
                "request_headers: {CALL}; {CALL}; return 1 | http_call_response: set_effective_context $ctx; \
                 continue_stream 0"
            ),
        )
        .origin(reply(200, "ok")),
    );
    cases.push(
        case(
            SECTION,
            "a-body-goes-on-in-the-callback-that-pauses",
            "request_body(more): return 1 | request_body(end): continue_stream 0; return 1",
        )
        .ask(post("body")),
    );
    cases
}

fn streams() -> Vec<Case> {
    let mut cases = plain(
        "§6.4",
        &[
            (
                "there-are-four-streams",
                "request_headers: continue_stream 2; continue_stream 3; continue_stream 4; continue_stream -1",
            ),
            (
                "there-are-four-streams-to-close",
                "request_headers: close_stream 2; close_stream 3; close_stream 4; close_stream -1",
            ),
        ],
    );
    cases.extend(plain(
        "§7.5",
        &[
            (
                "a-request-is-closed",
                "request_headers: close_stream 0; return 1 | log: get_property response.code_details",
            ),
            ("a-request-is-closed-by-its-response", "request_headers: close_stream 1; return 1"),
            ("a-request-is-closed-and-goes-on", "request_headers: close_stream 0; return 0"),
            ("a-response-is-closed", "response_headers: close_stream 1; return 1"),
            ("a-connection-of-an-exchange-is-not-closed", "request_headers: close_stream 2; close_stream 3"),
        ],
    ));
    cases.push(
        case("§7.5", "a-body-is-closed", "request_body: close_stream 0; return 1").ask(post("body")).breaks_off(),
    );
    cases.push(
        case("§7.5", "a-request-is-closed-over-http2", "request_headers: close_stream 0; return 1")
            .ask(get("/").version(Version::Http2)),
    );
    cases.push(
        case("§7.5", "a-response-body-is-closed", "response_body: end; close_stream 1; return 1")
            .origin(reply(200, "").parts(&[Data("ab"), After("response_body: more"), Data("cd")])),
    );
    cases
}
