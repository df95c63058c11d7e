//! §9.3: gRPC calls and streams.

use crate::case::Part::{After, Data, Trailers};
use crate::case::{Case, Reply, case, plain, reply};

const SECTION: &str = "§9.3";
const BACK: &str = "set_effective_context $ctx; continue_stream 0";

/// Logs all that is heard.
const HEAR: &str = "grpc_receive_initial_metadata: get_header_map_value 4 x-i; get_header_map_value 4 content-type | \
    grpc_receive: get_buffer_bytes 5 0 99; get_buffer_status 5 | grpc_receive_trailing_metadata: get_header_map_value 5 x-t; get_header_map_value 5 grpc-status";

/// A frame with two bytes.
const FRAME: &str = "\0\0\0\0\x02hi";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = plain(
        SECTION,
        &[
            (
                "a-grpc-call-to-nobody",
                "request_headers: grpc_call no_such svc Do '' '' 1000; grpc_stream no_such svc Do ''",
            ),
            (
                "a-grpc-call-that-is-none",
                "request_headers: grpc_cancel 987654; grpc_close 987654; grpc_send 987654 x 0",
            ),
            (
                "a-grpc-call-is-cancelled",
                "request_headers: grpc_call over_h2 svc Do '' x 5000 =t; grpc_send $t x 0; grpc_cancel $t; \
                     grpc_cancel $t",
            ),
            (
                "a-grpc-call-that-is-an-http-call",
                "request_headers: http_call origin {:method=GET :path=/call :authority=a} '' '' 5000 =t; \
                     grpc_cancel $t; \
                 grpc_close $t; grpc_send $t x 0; return 1 | http_call_response: set_effective_context $ctx; continue_stream 0",
            ),
        ],
    );
    let unary = |name: &'static str, answer: Reply| {
        let done = format!("grpc_receive: {BACK} | grpc_close: get_status; {BACK}");
        let script =
            format!("request_headers: grpc_call over_h2 svc Do {{x-m=1}} hello 5000 =t; return 1 | {HEAR} | {done}");
        case(SECTION, name, script).answer("/svc", answer)
    };
    let answer = |parts: &[crate::case::Part]| {
        reply(200, "").field("content-type", "application/grpc").field("x-i", "1").parts(parts)
    };
    cases.extend([
        unary("a-grpc-call-is-answered", answer(&[Data(FRAME), Trailers(&[("grpc-status", "0"), ("x-t", "1")])])),
        unary("a-grpc-call-fails", answer(&[Trailers(&[("grpc-status", "5"), ("grpc-message", "not here")])])),
        unary(
            "a-grpc-call-fails-with-its-headers",
            reply(200, "")
                .field("content-type", "application/grpc")
                .field("grpc-status", "7")
                .field("grpc-message", "no%20way"),
        ),
        unary("a-grpc-call-is-answered-by-http", reply(404, "").field("content-type", "text/plain")),
        unary("a-grpc-call-is-answered-by-nothing", answer(&[Trailers(&[("grpc-status", "0")])])),
    ]);
    let stream = |name: &'static str, steps: &str, answer: Reply| {
        let script = format!(
            "request_headers: grpc_stream over_h2 svc Do {{x-m=1}} =t; {steps}; return 1 | {HEAR} | \
                 grpc_close: get_status; {BACK}"
        );
        case(SECTION, name, script).answer("/svc", answer)
    };
    let whole = [Data(FRAME), After("grpc_receive"), Data(FRAME), Trailers(&[("grpc-status", "0"), ("x-t", "1")])];
    cases.extend([
        stream("a-grpc-stream-is-told", "grpc_send $t a 0; grpc_send $t bc 1", answer(&whole)),
        stream("a-grpc-stream-is-closed", "grpc_send $t a 0; grpc_close $t", answer(&whole)),
        stream(
            "a-grpc-stream-fails",
            "grpc_send $t a 1",
            answer(&[Data(FRAME), Trailers(&[("grpc-status", "9"), ("grpc-message", "enough")])]),
        ),
        stream(
            "a-grpc-stream-fails-at-once",
            "grpc_send $t a 1",
            reply(200, "").field("content-type", "application/grpc").field("grpc-status", "7"),
        ),
        case(
            SECTION,
            "a-grpc-stream-is-cancelled",
            format!(
                "request_headers: grpc_stream over_h2 svc Do '' =t; grpc_send $t a 1; return 1 | \
             grpc_receive#1: grpc_cancel $t; grpc_cancel $t; grpc_send $t x 0; {BACK}"
            ),
        )
        .answer("/svc", answer(&[Data(FRAME), After("never")])),
        case(
            SECTION,
            "a-grpc-call-that-is-refused",
            format!(
                "request_headers: grpc_call refuses_h2 svc Do '' hello 5000 =t; \
             return 1 | grpc_close: get_status; {BACK}"
            ),
        ),
        case(
            SECTION,
            "a-grpc-call-that-takes-too-long",
            format!(
                "request_headers: grpc_call over_h2 svc Do '' hello 50 =t; \
             return 1 | grpc_close: get_status; {BACK}"
            ),
        )
        .answer("/svc", answer(&[Data(FRAME)]).after("grpc_close")),
        case(
            SECTION,
            "grpc-tokens-count-up",
            "request_headers: grpc_call over_h2 svc Do '' x 5000; \
             grpc_stream over_h2 svc Do ''; grpc_close 6; grpc_call over_h2 svc Do '' x 5000; return 1 | \
             grpc_close#3: set_effective_context $ctx; continue_stream 0",
        )
        .alone(),
    ]);
    cases
}
