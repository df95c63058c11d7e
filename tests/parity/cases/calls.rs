//! §9.2: HTTP calls.

use crate::case::Part::{After, Break, Data, Trailers};
use crate::case::{Case, case, plain, post, reply};

const SECTION: &str = "§9.2";

const HEADERS: &str = "{:method=GET :path=/call :authority=call.test}";
const BACK: &str = "set_effective_context $ctx; continue_stream 0";

/// Reads all that came of a call.
const READ: &str = "get_header_map_pairs 6 %pairs; get_header_map_value 6 :status; get_header_map_size 6 %none; \
     get_buffer_bytes 4 0 999; \
    get_buffer_status 4; get_header_map_pairs 7 %pairs; get_status";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = checks();
    cases.extend(answered());
    cases.extend(failed());
    cases.extend(made());
    cases
}

fn checks() -> Vec<Case> {
    plain(
        SECTION,
        &[
            ("a-call-to-nobody", "request_headers: http_call no_such {:method=GET :path=/ :authority=a} '' '' 1000"),
            ("a-call-to-no-name", "request_headers: http_call '' {:method=GET :path=/ :authority=a} '' '' 1000"),
            ("a-call-without-a-path", "request_headers: http_call origin {:method=GET :authority=a} '' '' 1000"),
            ("a-call-without-a-method", "request_headers: http_call origin {:path=/ :authority=a} '' '' 1000"),
            ("a-call-without-an-authority", "request_headers: http_call origin {:method=GET :path=/} '' '' 1000"),
            ("a-call-without-headers", "request_headers: http_call origin '' '' '' 1000"),
            (
                "a-call-with-a-time-too-long",
                "request_headers: http_call origin {:method=GET :path=/ :authority=a} '' '' 0x80000000; \
                     http_call no_such '' '' '' -1",
            ),
        ],
    )
}

fn answered() -> Vec<Case> {
    let call = |name: &'static str, what: &str| {
        let script =
            format!("request_headers: http_call {what} 5000 =t; return 1 | http_call_response: {READ}; {BACK}");
        case(SECTION, name, script).answer("/call", reply(201, "called").field("x-a", "1").field("X-A", "2"))
    };
    vec![
        call("a-call-is-answered", &format!("origin {HEADERS} '' ''")),
        call("a-call-with-a-body", "origin {:method=POST :path=/call :authority=call.test X-Up=1 x-up=2} body ''"),
        call("a-call-with-a-host", "origin {:method=GET :path=/call host=call.test} '' ''"),
        call("a-call-with-a-scheme", "origin {:method=GET :path=/call :authority=call.test :scheme=https} '' ''"),
        call("a-call-with-trailers", "h2 {:method=POST :path=/call :authority=call.test} body {x-t=1}"),
        call("a-call-over-http2", &format!("h2 {HEADERS} '' ''")),
        case(
            SECTION,
            "a-call-without-a-limit",
            format!("request_headers: http_call origin {HEADERS} '' '' 0 =t; return 1 | http_call_response: {BACK}"),
        ),
        case(
            SECTION,
            "a-call-answered-with-trailers",
            format!(
                "request_headers: http_call h2 {HEADERS} '' '' 5000 =t; \
             return 1 | http_call_response: {READ}; {BACK}"
            ),
        )
        .answer("/call", reply(200, "").parts(&[Data("ok"), Trailers(&[("x-t", "1")])])),
        case(
            SECTION,
            "a-call-answered-with-nothing",
            format!(
                "request_headers: http_call origin {HEADERS} '' '' 5000 =t; \
             return 1 | http_call_response: {READ}; {BACK}"
            ),
        )
        .answer("/call", reply(204, "")),
        case(
            SECTION,
            "a-call-says-how-much-came",
            format!(
                "request_headers: http_call h2 {HEADERS} '' '' 5000 =t; \
             return 1 | http_call_response: args; {BACK}"
            ),
        )
        .alone()
        .answer("/call", reply(200, "").parts(&[Data("ok"), Trailers(&[("x-t", "1")])])),
        case(
            SECTION,
            "a-calls-answer-cannot-be-changed",
            format!(
                "request_headers: http_call origin {HEADERS} '' '' 5000 =t; \
             return 1 | http_call_response: add_header_map_value 6 a 1; set_buffer_bytes 4 0 0 x; {BACK}"
            ),
        ),
        case(
            SECTION,
            "a-calls-answer-is-gone-afterwards",
            format!(
                "request_headers: http_call origin {HEADERS} '' '' 5000 =t; \
             return 1 | http_call_response: {BACK} | response_headers: get_header_map_pairs 6 %pairs; \
             get_buffer_bytes 4 0 9; get_status"
            ),
        ),
        case(
            SECTION,
            "a-call-is-answered-by-the-root",
            format!(
                "request_headers: http_call origin {HEADERS} '' '' 5000 =t; \
             return 1 | http_call_response: get_header_map_pairs 0 %pairs; get_property request.path; {BACK}; \
             get_header_map_value 6 :status"
            ),
        ),
    ]
}

fn failed() -> Vec<Case> {
    let wait = |name: &'static str, upstream: &str, time: &str| {
        let script = format!(
            "request_headers: http_call {upstream} {HEADERS} '' '' {time} =t; return 1 | \
                 http_call_response: get_header_map_pairs 6 %pairs; get_buffer_bytes 4 0 30; get_status; {BACK}"
        );
        case(SECTION, name, script)
    };
    vec![
        wait("a-call-that-is-refused", "refuses", "5000"),
        wait("a-call-that-takes-too-long", "origin", "50")
            .answer("/call", reply(200, "late").after("http_call_response")),
        wait("a-call-whose-answer-breaks-off", "origin", "5000")
            .answer("/call", reply(200, "").parts(&[Data("ab"), Break])),
        case(
            SECTION,
            "what-a-refused-call-says",
            format!(
                "request_headers: http_call refuses {HEADERS} '' '' 5000 =t; return 1 | \
                     http_call_response: get_buffer_bytes 4 0 999; {BACK}"
            ),
        ),
    ]
}

fn made() -> Vec<Case> {
    let call = format!("http_call origin {HEADERS} '' '' 5000 =t");
    vec![
        case(
            SECTION,
            "a-call-from-a-body",
            format!(
                "request_body(end): {call}; return 1 | \
             http_call_response: get_header_map_value 6 :status; {BACK}"
            ),
        )
        .ask(post("body"))
        // The head is on its way before the body is looked at: whoever answers that at once is faster than the call, or not.
        .answer("/call", reply(200, "ok"))
        .origin(reply(200, "ok").after("continue_stream")),
        case(
            SECTION,
            "a-call-from-a-response",
            format!(
                "response_headers: {call}; return 1 | \
             http_call_response: get_header_map_value 6 :status; set_effective_context $ctx; continue_stream 1"
            ),
        )
        .answer("/call", reply(200, "called")),
        case(
            SECTION,
            "a-call-from-a-call",
            format!(
                "request_headers: {call}; return 1 | \
             http_call_response#1: {call} | http_call_response#2: get_header_map_value 6 :status; {BACK}"
            ),
        ),
        case(
            SECTION,
            "a-call-from-log",
            format!(
                "log: {call} | \
             http_call_response: get_header_map_value 6 :status; \
             set_effective_context $ctx"
            ),
        )
        .until("set_effective_context")
        .answer("/call", reply(200, "called")),
        case(
            SECTION,
            "a-call-nobody-waits-for",
            format!(
                "request_headers: {call} | \
             http_call_response: get_header_map_value 6 :status"
            ),
        )
        .answer("/call", reply(200, "called"))
        .origin(reply(200, "ok").after("http_call_response")),
        case(
            SECTION,
            "tokens-count-up",
            format!(
                "request_headers: http_call origin {HEADERS} '' '' 5000; \
             http_call origin {HEADERS} '' '' 5000; return 1 | http_call_response#2: {BACK}"
            ),
        )
        .alone(),
        case(
            SECTION,
            "a-call-from-a-root",
            format!(
                "request_headers: set_effective_context $root; {call}; \
             return 1 | http_call_response: get_header_map_value 6 :status; {BACK}"
            ),
        ),
        case(
            SECTION,
            "an-answer-takes-its-time",
            format!(
                "request_headers: {call}; return 1 | \
             http_call_response: get_buffer_bytes 4 0 99; {BACK}"
            ),
        )
        .answer("/call", reply(200, "").parts(&[Data("ab"), After("request_headers"), Data("cd")])),
    ]
}
