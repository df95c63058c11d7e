//! §6.1: the log, time, timers, the effective context, statuses.

use crate::case::{Case, case, plain};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = plain(
        "§6.1",
        &[
            (
                "levels-are-the-logs",
                "request_headers: log 0 $label; log 1 $label; log 2 $label; log 3 $label; log 4 $label",
            ),
            ("there-is-no-level-six", "request_headers: log 6 $label; log -1 $label"),
            ("an-empty-line-is-a-line", "request_headers: log 2 ''"),
            ("the-level-can-be-asked-for", "request_headers: get_log_level"),
            ("the-time-can-be-asked-for", "request_headers: get_current_time_nanoseconds %len"),
            ("no-timer-is-stopped", "request_headers: set_tick_period_milliseconds 0"),
            ("no-context-is-effective", "request_headers: set_effective_context 0; get_header_map_value 0 :method"),
            ("an-unknown-context-is-not-effective", "request_headers: set_effective_context 987654"),
            (
                "its-own-context-is-effective",
                "request_headers: set_effective_context $ctx; get_header_map_value 0 :method",
            ),
            (
                "a-root-has-no-maps",
                "request_headers: set_effective_context $root; get_header_map_pairs 0 %pairs; \
                     get_property request.path; \
             replace_header_map_value 0 a 1; set_property a 1; get_buffer_bytes 0 0 9; continue_stream 0",
            ),
            ("the-status-is-nothing-outside-of-a-call", "request_headers: get_status"),
            ("nothing-is-done-that-was-not-asked-for", "request_headers: done | log: done | done: done"),
            ("a-foreign-function-that-is-none", "request_headers: call_foreign_function no_such ''"),
        ],
    );
    cases.extend(plain("§9.1", &[(
        "a-timer-goes-off",
        "request_headers: set_tick_period_milliseconds 20; return 1 | tick#1: set_tick_period_milliseconds 0; \
         set_effective_context $ctx; add_header_map_value 0 x-ticked 1; continue_stream 0",
    ), (
        "a-timer-goes-off-again",
        "request_headers: set_tick_period_milliseconds 5; return 1 | tick#3: set_tick_period_milliseconds 0; \
         set_effective_context $ctx; continue_stream 0",
    ), (
        "a-tick-has-no-maps-of-its-own",
        "request_headers: set_tick_period_milliseconds 5; return 1 | tick#1: set_tick_period_milliseconds 0; \
         get_header_map_pairs 0 %pairs; get_property request.path; get_buffer_bytes 0 0 9; set_effective_context $ctx; continue_stream 0",
    ), (
        "a-tick-answers",
        "request_headers: set_tick_period_milliseconds 5; return 1 | tick#1: set_tick_period_milliseconds 0; \
         set_effective_context $ctx; send_local_response 202 '' ticked '' -1",
    )]));
    let script = "request_headers: set_effective_context $root; send_local_response 200 '' '' '' -1";
    cases.push(case("§6.1", "a-root-sends-no-response", script));
    cases
}
