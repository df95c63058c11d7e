//! §7.4: local responses.

use crate::case::Part::{After, Data};
use crate::case::{Case, Version, case, get, post, reply};

const SECTION: &str = "§7.4";

/// How a local response is composed: status, details, body, fields, gRPC status.
const COMPOSED: [(&str, &str); 22] = [
    ("with-nothing", "200 '' '' '' -1"),
    ("with-a-body", "403 'not now' no '' -1"),
    ("with-fields", "200 '' body {x-a=1 X-B=2 x-a=3} -1"),
    ("with-a-type", "200 '' {} {content-type=application/json} -1"),
    ("with-a-type-and-no-body", "200 '' '' {content-type=application/json} -1"),
    ("with-a-wrong-length", "200 '' body {content-length=99} -1"),
    ("with-a-status-among-its-fields", "201 '' '' {:status=500} -1"),
    ("with-a-pseudo-header", "200 '' '' {:path=/a} -1"),
    ("of-no-content", "204 '' '' '' -1"),
    ("of-no-content-with-a-body", "204 '' body '' -1"),
    ("of-nothing-new", "304 '' '' {etag='\"a\"'} -1"),
    ("of-nothing-new-with-a-body", "304 '' body '' -1"),
    ("that-redirects", "302 '' '' {location=/there} -1"),
    ("with-status-299", "299 '' '' '' -1"),
    ("with-status-599", "599 '' '' '' -1"),
    ("with-status-600", "600 '' '' '' -1"),
    ("with-status-999", "999 '' '' '' -1"),
    ("with-status-0", "0 '' '' '' -1"),
    ("with-status-99", "99 '' '' '' -1"),
    ("with-status-100", "100 '' '' '' -1"),
    ("with-status-1000", "1000 '' '' '' -1"),
    ("with-a-grpc-status-nobody-asked-for", "500 '' body '' 5"),
];

/// The same for a gRPC request.
const GRPC: [(&str, &str); 11] = [
    ("with-its-status", "200 '' 'said so' {x-a=1} 5"),
    ("with-status-16", "401 '' '' '' 16"),
    ("with-status-17", "200 '' '' '' 17"),
    ("of-400", "400 '' bad '' -1"),
    ("of-401", "401 '' '' '' -1"),
    ("of-403", "403 '' '' '' -1"),
    ("of-404", "404 '' '' '' -1"),
    ("of-429", "429 '' '' '' -1"),
    ("of-503", "503 '' '' '' -1"),
    ("of-500", "500 '' '' '' -1"),
    ("of-200", "200 '' body '' -1"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = COMPOSED
        .iter()
        .map(|(name, what)| {
            case(
                SECTION,
                format!("a-response-{name}"),
                format!("request_headers: send_local_response {what}; return 1"),
            )
        })
        .collect();
    let grpc = || {
        post("\0\0\0\0\0")
            .path("/svc/Method")
            .version(Version::Http2)
            .field("content-type", "application/grpc")
            .field("te", "trailers")
    };
    cases.extend(GRPC.iter().map(|(name, what)| {
        case(
            SECTION,
            format!("a-grpc-response-{name}"),
            format!("request_headers: send_local_response {what}; return 1"),
        )
        .ask(grpc())
    }));
    cases.extend(from_requests());
    cases.extend(from_responses());
    cases.extend(in_chains());
    cases
}

fn from_requests() -> Vec<Case> {
    vec![
        case(SECTION, "a-response-and-going-on", "request_headers: send_local_response 401 '' '' '' -1; return 0"),
        case(
            SECTION,
            "the-first-of-two-responses",
            "request_headers: send_local_response 401 '' one '' -1; send_local_response 402 '' two '' -1; return 1",
        ),
        case(
            SECTION,
            "a-response-before-going-on",
            "request_headers: send_local_response 401 '' '' '' -1; continue_stream 0; return 1",
        ),
        case(
            SECTION,
            "going-on-before-a-response",
            "request_headers: continue_stream 0; send_local_response 401 '' '' '' -1; return 1",
        ),
        case(
            SECTION,
            "maps-after-a-response",
            "request_headers: send_local_response 401 '' '' '' -1; get_header_map_value 0 :method; \
                 add_header_map_value 0 a 1; get_header_map_pairs 2 %pairs; return 1",
        ),
        case(SECTION, "a-response-to-head", "request_headers: send_local_response 200 '' body '' -1; return 1")
            .ask(get("/").method("HEAD")),
        case(SECTION, "a-response-to-a-body", "request_body: send_local_response 401 '' no '' -1; return 1")
            .ask(post("body"))
            .breaks_off(),
        case(SECTION, "a-response-before-a-body", "request_headers: send_local_response 401 '' no '' -1; return 1")
            .ask(post("body")),
        case(SECTION, "a-response-to-trailers", "request_trailers: send_local_response 401 '' no '' -1; return 1")
            .ask(super::headers::trailers())
            .breaks_off(),
        case(
            SECTION,
            "a-response-over-http2",
            "request_headers: send_local_response 403 'not now' no {x-a=1} -1; return 1",
        )
        .ask(get("/").version(Version::Http2)),
        case(
            SECTION,
            "a-response-after-a-callout",
            "request_headers: http_call origin {:method=GET :path=/call :authority=a} '' '' 5000 =t; return 1 | \
                 http_call_response: set_effective_context $ctx; send_local_response 401 '' no '' -1",
        ),
        case(
            SECTION,
            "a-response-passes-its-own-filter",
            "trace: end | request_headers: send_local_response 401 '' no '' -1; return 1 | \
                 response_headers: add_header_map_value 2 x-own 1; get_header_map_pairs 2 %pairs | \
                 response_body: get_buffer_bytes 1 0 99",
        ),
        case(
            SECTION,
            "a-response-to-its-own-response",
            "request_headers: send_local_response 401 '' one '' -1; return 1 | \
                 response_headers: send_local_response 402 '' two '' -1; return 1",
        ),
        case(
            SECTION,
            "the-details-of-a-response",
            "request_headers: send_local_response 401 'not  now' '' '' -1; return 1 | \
                 log: get_property response.code_details; get_property response.code; \
                 get_header_map_pairs 2 %pairs",
        ),
        case(
            SECTION,
            "a-response-without-details",
            "request_headers: send_local_response 401 '' '' '' -1; return 1 | \
                 log: get_property response.code_details",
        ),
    ]
}

fn from_responses() -> Vec<Case> {
    let call = "http_call origin {:method=GET :path=/call :authority=a} '' '' 5000 =t";
    vec![
        case(
            SECTION,
            "a-response-in-place-of-a-response",
            "response_headers: send_local_response 502 '' instead {x-a=1} -1; \
             return 1",
        ),
        case(
            SECTION,
            "a-response-in-place-of-a-held-response",
            format!(
                "response_headers: {call}; return 1 | \
             http_call_response: set_effective_context $ctx; send_local_response 502 '' instead '' -1"
            ),
        )
        .answer("/call", reply(200, "called")),
        case(
            SECTION,
            "a-response-in-a-body-that-was-begun",
            "response_body: send_local_response 502 '' instead '' -1; \
             return 1",
        )
        .origin(reply(200, "").parts(&[Data("ab"), After("response_body"), Data("cd")])),
        case(
            SECTION,
            "a-response-in-a-body-whose-headers-are-held",
            "response_headers: return 1 | \
             response_body: send_local_response 502 '' instead '' -1; return 1",
        )
        .holds_headers(),
        case(
            SECTION,
            "a-response-to-the-trailers-of-a-response",
            "response_trailers: send_local_response 502 '' instead '' -1; \
             return 1",
        )
        .ask(super::headers::trailers())
        .origin(super::headers::trailing()),
    ]
}

/// Three filters, of which one replies: which callbacks run.
fn in_chains() -> Vec<Case> {
    let quiet = "trace: end";
    let chain = |name: &'static str, replies: &str| {
        case(SECTION, name, quiet)
            .then(&format!("trace: end | {replies}: send_local_response 418 '' no '' -1; return 1"))
            .then(quiet)
    };
    vec![
        chain("the-second-of-three-replies-to-headers", "request_headers"),
        chain("the-second-of-three-replies-to-a-body", "request_body#1").ask(post("body")).breaks_off(),
        chain("the-second-of-three-replies-to-a-response", "response_headers"),
        case(SECTION, "nobody-replies", quiet).then(quiet).then(quiet),
        case(
            SECTION,
            "an-upstream-refuses",
            "trace: end | response_headers: get_header_map_value 2 :status; get_property response.code_details %none",
        )
        .then(quiet)
        .ask(get("/refuses/")),
    ]
}
