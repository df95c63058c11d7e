//! §2.2 and §6: addresses that are none, and an allocator that has nothing to give.

use crate::case::{Case, case, plain};

/// Hostcalls with a wrong address for each argument that has one; `@` stands for it.
const CALLS: [(&str, &str); 34] = [
    ("log", "log 2 @"),
    ("get-log-level", "get_log_level @"),
    ("time", "get_current_time_nanoseconds @"),
    ("status-code", "get_status @"),
    ("foreign-name", "call_foreign_function @ a"),
    ("foreign-args", "call_foreign_function compress @"),
    ("map-value-name", "get_header_map_value 0 @"),
    ("map-value-out", "get_header_map_value 0 :method @"),
    ("absent-map-value-out", "get_header_map_value 0 x-none @"),
    ("map-pairs-out", "get_header_map_pairs 0 @"),
    ("map-size-out", "get_header_map_size 0 @"),
    ("set-map-pairs", "set_header_map_pairs 0 @"),
    ("add-map-name", "add_header_map_value 0 @ 1"),
    ("add-map-value", "add_header_map_value 0 a @"),
    ("replace-map-name", "replace_header_map_value 0 @ 1"),
    ("replace-map-value", "replace_header_map_value 0 a @"),
    ("remove-map-name", "remove_header_map_value 0 @"),
    ("buffer-out", "get_buffer_bytes 6 0 9 @"),
    ("buffer-status-out", "get_buffer_status 0 @"),
    ("local-response-body", "send_local_response 200 '' @ '' -1"),
    ("local-response-details", "send_local_response 200 @ '' '' -1"),
    ("local-response-fields", "send_local_response 200 '' '' @ -1"),
    ("call-upstream", "http_call @ {:method=GET :path=/ :authority=a} '' '' 1000"),
    ("call-headers", "http_call origin @ '' '' 1000"),
    ("call-token", "http_call origin {:method=GET :path=/ :authority=a} '' '' 1000 @"),
    ("grpc-upstream", "grpc_call @ a b '' '' 1000"),
    ("grpc-stream-service", "grpc_stream h2 @ b ''"),
    ("shared-data-key", "get_shared_data @"),
    ("set-shared-data-value", "set_shared_data memory-key @ 0"),
    ("queue-name", "register_shared_queue @"),
    ("resolve-queue-name", "resolve_shared_queue '' @"),
    ("metric-name", "define_metric 0 @"),
    ("property-path", "get_property @"),
    ("set-property-value", "set_property a @"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = CALLS
        .iter()
        .map(|(name, call)| {
            // Begins outside of memory; begins inside and ends outside; begins where the addresses end.
            let steps = ["@0xfffffff0:8", "@16:0x7fffffff", "@0x7fffffff:16"].map(|place| call.replacen('@', place, 1));
            case("§6", format!("no-memory-for-{name}"), format!("request_headers: {}", steps.join("; ")))
        })
        .collect();
    cases.extend(plain(
        "§2.2",
        &[
            (
                "an-allocator-without-memory",
                "request_headers: starve 1; get_header_map_value 0 :method; \
             get_header_map_value 0 :method",
            ),
            (
                "an-allocator-without-memory-for-pairs",
                "request_headers: starve 1; get_header_map_pairs 0 %pairs; \
             get_header_map_value 0 :method",
            ),
            (
                "nothing-is-allocated-for-nothing",
                "request_headers: starve 1; add_header_map_value 0 x-n ''; \
             get_header_map_value 0 x-n; get_header_map_value 0 :method",
            ),
            ("an-allocator-without-memory-for-a-property", "request_headers: starve 1; get_property request.method"),
            (
                "an-allocator-without-memory-for-shared-data",
                "request_headers: set_shared_data starved 1 0; starve 1; \
             get_shared_data starved %none",
            ),
        ],
    ));
    cases.extend(plain(
        "§4.1",
        &[
            (
                "short-pairs-are-none",
                "response_headers: set_header_map_pairs 2 '\\0'; get_header_map_pairs 2 %pairs; \
             replace_header_map_value 2 :status 200",
            ),
            (
                "pairs-beyond-their-end-are-none",
                "response_headers: set_header_map_pairs 2 '\\x01\\0\\0\\0\\xff\\0\\0\\0\\x01\\0\\0\\0a\\0b\\0'; \
             get_header_map_pairs 2 %pairs; replace_header_map_value 2 :status 200",
            ),
            (
                "pairs-with-a-rest-are-none",
                "response_headers: set_header_map_pairs 2 '\\x01\\0\\0\\0\\x01\\0\\0\\0\\x01\\0\\0\\0a\\0b\\0c'; \
             get_header_map_pairs 2 %pairs; replace_header_map_value 2 :status 200",
            ),
            (
                "pairs-without-their-ends-are-none",
                "response_headers: set_header_map_pairs 2 '\\x01\\0\\0\\0\\x01\\0\\0\\0\\x01\\0\\0\\0axbx'; \
             get_header_map_pairs 2 %pairs; replace_header_map_value 2 :status 200",
            ),
        ],
    ));
    cases.extend(plain(
        "§4.2",
        &[("a-path-of-nothing", "request_headers: get_property ''; set_property '' 1; get_property ''")],
    ));
    cases
}
