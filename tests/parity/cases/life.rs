//! §7.1 and §7.2: which callbacks come, in which order; §11: what becomes of an exchange whose guest fails.

use crate::case::Part::{After, Data};
use crate::case::{Case, Version, case, get, post, reply};

const SECTION: &str = "§7.2";
const TRACE: &str = "trace: end";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(SECTION, "callbacks-of-a-request", TRACE),
        case(SECTION, "callbacks-of-a-request-with-a-body", TRACE).ask(post("body")),
        case(SECTION, "callbacks-of-a-request-with-trailers", TRACE)
            .ask(super::headers::trailers())
            .origin(super::headers::trailing()),
        case(SECTION, "callbacks-of-a-request-over-http2", TRACE).ask(get("/").version(Version::Http2)),
        case(SECTION, "callbacks-of-a-request-with-a-body-over-http2", TRACE)
            .ask(post("body").path("/h2/").version(Version::Http2)),
        case(SECTION, "callbacks-of-two-filters", TRACE).then(TRACE).ask(post("body")),
        case(SECTION, "callbacks-of-a-response-without-content", TRACE).origin(reply(204, "")),
        case(SECTION, "callbacks-of-head", TRACE).ask(get("/").method("HEAD")),
        case(
            SECTION,
            "callbacks-when-a-client-leaves",
            "trace: end | \
             request_headers: return 1",
        )
        .ask(get("/").leaves("request_headers: end")),
        case(SECTION, "callbacks-when-a-client-leaves-a-response", TRACE)
            .ask(get("/").leaves("response_body: more"))
            .origin(reply(200, "").parts(&[Data("ab"), After("gone"), Data("cd")])),
        case(
            SECTION,
            "callbacks-when-an-upstream-refuses",
            "request_headers: end | response_headers: end | \
             response_body#1: end | log: end | done: end",
        )
        .ask(get("/refuses/")),
        case(
            SECTION,
            "ids-count-up",
            "context_create: args | request_headers: set_effective_context 1; \
             set_effective_context 2; set_effective_context 3",
        )
        .alone(),
        case(SECTION, "on-done-may-ask-for-time-in-vain", "done: return 1 | log: get_property response.code"),
        case(
            SECTION,
            "what-log-can-read",
            "log: get_header_map_value 0 :path; get_header_map_value 2 :status; \
             get_header_map_value 0 x-none; get_header_map_value 2 x-none; get_property request.path; \
             get_property response.code; get_buffer_bytes 0 0 9; get_buffer_bytes 1 0 9",
        )
        .ask(get("/told")),
        case(
            SECTION,
            "what-done-can-read",
            "done: get_header_map_pairs 0 %none; get_header_map_pairs 2 %none; \
             get_buffer_bytes 0 0 9; get_property plugin_name %none",
        ),
        case(SECTION, "done-reads-no-map", "done: get_header_map_value 0 :path; get_property request.path"),
        case(
            SECTION,
            "a-context-that-is-created-has-no-maps",
            "context_create: get_header_map_pairs 0 %pairs; \
             get_buffer_bytes 0 0 9",
        ),
        case(
            SECTION,
            "a-context-that-is-deleted-has-no-maps",
            "delete: get_header_map_pairs 0 %pairs; \
             get_header_map_pairs 2 %pairs; add_header_map_value 0 a 1",
        ),
    ];
    cases.extend(failures());
    cases
}

fn failures() -> Vec<Case> {
    let failing = |name: &'static str, script: &'static str| case("§11", name, script).alone().ends(0);
    vec![
        failing("a-trap-in-request-headers", "request_headers: trap"),
        failing("a-trap-in-a-request-body", "request_body: trap").ask(post("body")).breaks_off(),
        failing("a-trap-in-response-headers", "response_headers: trap"),
        failing("a-trap-in-a-response-body", "response_body: trap")
            .origin(reply(200, "").parts(&[Data("ab"), After("never")])),
        failing("a-trap-in-log", "log: trap"),
        failing("a-trap-in-done", "done: trap"),
        failing("an-exit-in-request-headers", "request_headers: exit"),
        failing(
            "a-trap-in-the-second-of-two",
            "request_headers: end | response_headers: get_header_map_value 2 :status | log: end",
        )
        .then("request_headers: trap")
        .ends(0),
    ]
}
