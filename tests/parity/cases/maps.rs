//! §6.2's table: which maps are at hand in which callback, to read and to write.

use super::headers::{trailers, trailing};
use crate::case::{Case, case};

/// A callback, and what its clause needs around it to come to pass.
const CALLBACKS: [(&str, &str); 8] = [
    ("request_headers", ""),
    ("request_body", ""),
    ("request_trailers", ""),
    ("response_headers", ""),
    ("response_body", ""),
    ("response_trailers", ""),
    (
        "http_call_response",
        "request_headers: http_call origin {:method=GET :path=/call :authority=call.test} '' '' 5000 =t; return 1 | \
         http_call_response: set_effective_context $ctx | ",
    ),
    ("log", ""),
];

/// What is written to a map as a whole, so that the message can go on.
const WHOLE: [&str; 8] = [
    "{:method=POST :path=/h2/ :authority=set.test :scheme=http x-forwarded-proto=http x-set=1}",
    "{x-set=1}",
    "{:status=201 x-set=1}",
    "{x-set=1}",
    "{x-set=1}",
    "{x-set=1}",
    "{:status=201 x-set=1}",
    "{x-set=1}",
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (callback, around) in CALLBACKS {
        let slug = callback.replace('_', "-");
        let resume = if callback == "http_call_response" { "; continue_stream 0" } else { "" };
        let read: String = (0..8).map(|map| format!("get_header_map_value {map} x-none; ")).collect();
        cases.push(whole(
            format!("values-in-{slug}"),
            format!("{around}{callback}: {read}get_property plugin_name{resume}"),
        ));
        for (map, set) in WHOLE.iter().enumerate() {
            let script = format!(
                "{around}{callback}: get_header_map_pairs {map} %pairs; get_header_map_size {map} %none; \
                 add_header_map_value {map} x-n 1; replace_header_map_value {map} x-n 2; get_header_map_pairs {map} %pairs; \
                 remove_header_map_value {map} x-n; set_header_map_pairs {map} {set}; get_header_map_pairs {map} %pairs{resume}"
            );
            cases.push(whole(format!("map-{map}-in-{slug}"), script));
        }
    }
    cases
}

/// A message each way with a body and trailers.
fn whole(name: String, script: String) -> Case {
    case("§6.2", name, script).ask(trailers()).answer("/h2/", trailing())
}
