//! §6.3: reading and writing buffers.

use crate::case::{Case, case, plain, post, reply};

const SECTION: &str = "§6.3";

/// Start, size and data of a write to a body of five bytes.
const WRITES: [(&str, &str); 12] = [
    ("at-the-front", "0 0 '<>'"),
    ("over-the-whole", "0 5 '<>'"),
    ("over-more-than-the-whole", "0 -1 '<>'"),
    ("over-the-front", "0 2 '<>'"),
    ("over-one-byte", "0 1 '<>'"),
    ("at-the-end", "5 0 '<>'"),
    ("far-behind-the-end", "-1 0 '<>'"),
    ("behind-the-end-with-a-size", "9 3 '<>'"),
    ("in-between", "2 0 '<>'"),
    ("over-the-middle", "2 1 '<>'"),
    ("of-nothing-over-the-front", "0 2 ''"),
    ("of-nothing-over-the-whole", "0 5 ''"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = WRITES
        .iter()
        .flat_map(|(name, write)| {
            let request = format!(
                "request_headers: remove_header_map_value 0 content-length | \
                 request_body: get_buffer_bytes 0 0 99 =b; set_buffer_bytes 0 {write}; get_buffer_bytes 0 0 99; return 0"
            );
            let response = format!(
                "response_headers: remove_header_map_value 2 content-length | \
                 response_body#1: set_buffer_bytes 1 {write}; get_buffer_bytes 1 0 99; get_buffer_status 1 %u64"
            );
            let only_the_first = request.replace("request_body:", "request_body#1:");
            [
                case(SECTION, format!("a-write-{name}-of-a-request"), only_the_first).ask(post("hello")),
                case(SECTION, format!("a-write-{name}-of-a-response"), response).origin(reply(200, "hello")),
            ]
        })
        .collect();
    cases.push(
        case(
            SECTION,
            "a-body-is-read-in-ranges",
            "request_body#1: get_buffer_bytes 0 0 5; get_buffer_bytes 0 1 2; get_buffer_bytes 0 4 -1; \
                 get_buffer_bytes 0 5 1; \
             get_buffer_bytes 0 6 1; get_buffer_bytes 0 0 0; get_buffer_bytes 0 -1 -1; get_buffer_status 0",
        )
        .ask(post("hello")),
    );
    for (callback, more) in [
        ("request_headers", ""),
        ("request_body#1", ""),
        ("response_headers", ""),
        ("response_body#1", ""),
        ("log", ""),
        (
            "http_call_response",
            "request_headers: http_call origin {:method=GET :path=/call :authority=call.test} '' '' 5000 =t; \
                 return 1 | \
             http_call_response: set_effective_context $ctx; continue_stream 0 | ",
        ),
    ] {
        let slug = callback.replace('_', "-").replace("#1", "");
        let read: Vec<String> = [2, 3, 4, 5, 6, 8, 9].map(|buffer| format!("get_buffer_bytes {buffer} 0 9")).to_vec();
        let write: Vec<String> =
            [2, 3, 4, 5, 6, 8, 9].map(|buffer| format!("set_buffer_bytes {buffer} 0 0 x")).to_vec();
        cases.push(whole(
            format!("buffers-in-{slug}"),
            format!("{more}{callback}: {}; get_buffer_status 4; get_buffer_status 9", read.join("; ")),
        ));
        cases.push(whole(format!("writes-to-buffers-in-{slug}"), format!("{more}{callback}: {}", write.join("; "))));
        cases.push(whole(
            format!("bodies-in-{slug}"),
            format!(
                "{more}{callback}: get_buffer_bytes 0 0 99; get_buffer_bytes 1 0 99; get_buffer_status 0; \
                 get_buffer_status 1"
            ),
        ));
        cases.push(whole(format!("the-configuration-in-{slug}"), format!("{more}{callback}: get_buffer_bytes 7 0 5")));
    }
    cases.extend(plain(
        SECTION,
        &[
            ("writes-to-the-configuration", "request_headers: set_buffer_bytes 7 0 0 x"),
            ("a-request-without-a-body-gets-none", "request_headers: set_buffer_bytes 0 0 0 x"),
            ("a-response-gets-no-body-with-its-headers", "response_headers: set_buffer_bytes 1 0 0 x"),
            (
                "an-empty-end-can-be-written-to",
                "response_headers: remove_header_map_value 2 content-length | \
             response_body(end): set_buffer_bytes 1 0 0 '+'",
            ),
        ],
    ));
    let reads = "get_buffer_status 6; get_buffer_bytes 6 0 99; get_buffer_bytes 6 4 2";
    let reads = format!("context_create: {reads} | request_headers: {reads}; set_buffer_bytes 6 0 0 x | log: {reads}");
    cases.push(case(SECTION, "the-vms-configuration", reads).vms(&[("", "settings of the VM")]));
    cases
}

fn whole(name: String, script: String) -> Case {
    case(SECTION, name, script).ask(post("body")).origin(reply(200, "answer"))
}
