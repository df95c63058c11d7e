//! RFC 9113 section 5: the states of streams, their numbers, their dependencies.

use portcullis_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PRIORITIZED, PRIORITY, RST_STREAM, WINDOW_UPDATE,
    block, frame, get, post, request,
};

use crate::case::{Case, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED, Want};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// Half-closed by us, and too busy to be closed by the server.
fn half_closed(f: &mut Frames, then: &[u8]) {
    f.send(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    f.send(&[&get(1, "/large")[..], then].concat());
}

fn taken_back(f: &mut Frames, then: &[u8]) {
    f.send(&[&post(1, "/")[..], &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), then].concat());
}

/// Closed by both sides.
fn closed(f: &mut Frames, then: &[u8]) {
    f.send(&get(1, "/"));
    f.find(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).unwrap();
    f.send(then);
}

pub(crate) const CASES: &[Case] = &[
    Case {
        section: "9113-5.1",
        what: "DATA on an idle stream",
        send: |f| f.send(&frame(DATA, END_STREAM, 1, b"x")),
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "RST_STREAM on an idle stream",
        send: |f| f.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "WINDOW_UPDATE on an idle stream",
        send: |f| f.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])),
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "CONTINUATION on an idle stream",
        send: |f| f.send(&frame(CONTINUATION, END_HEADERS, 1, &request("GET", "/"))),
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "DATA on a half-closed stream",
        send: |f| half_closed(f, &frame(DATA, END_STREAM, 1, b"x")),
        want: Want::Stream(&[STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1",
        what: "HEADERS on a half-closed stream",
        send: |f| half_closed(f, &frame(HEADERS, WHOLE, 1, &request("GET", "/"))),
        want: Want::Stream(&[STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1",
        what: "CONTINUATION on a half-closed stream",
        send: |f| half_closed(f, &frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")]))),
        want: Want::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "DATA on a stream that was reset by its sender",
        send: |f| taken_back(f, &frame(DATA, END_STREAM, 1, b"x")),
        want: Want::Stream(&[STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1",
        what: "HEADERS on a stream that was reset by their sender",
        send: |f| taken_back(f, &frame(HEADERS, WHOLE, 1, &request("GET", "/"))),
        want: Want::Stream(&[STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1",
        what: "CONTINUATION on a stream that was reset by its sender",
        send: |f| taken_back(f, &frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")]))),
        want: Want::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "DATA on a closed stream",
        send: |f| closed(f, &frame(DATA, END_STREAM, 1, b"x")),
        want: Want::Stream(&[STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1",
        what: "HEADERS on a closed stream",
        send: |f| closed(f, &frame(HEADERS, WHOLE, 1, &request("GET", "/"))),
        want: Want::Connection(&[STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1",
        what: "CONTINUATION on a closed stream",
        send: |f| closed(f, &frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")]))),
        want: Want::Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1",
        what: "WINDOW_UPDATE and RST_STREAM on a stream closed a moment ago",
        send: |f| {
            closed(f, &[frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat());
        },
        want: Want::Nothing,
    },
    Case {
        section: "9113-5.1.1",
        what: "a stream with an even number",
        send: |f| f.send(&get(2, "/")),
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.1.1",
        what: "a stream with a smaller number than the last",
        send: |f| f.send(&[get(5, "/"), get(3, "/")].concat()),
        // Skipped numbers are closed streams, so either code is right.
        want: Want::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
    },
    Case {
        section: "9113-5.1.2",
        what: "more streams than are allowed",
        send: |f| {
            let all: Vec<u8> = (0..101).flat_map(|number| post(number * 2 + 1, "/")).collect();
            f.send(&all);
        },
        want: Want::Stream(&[REFUSED_STREAM, PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.3.1",
        what: "HEADERS that depend on themselves",
        send: |f| {
            let payload = [&[0, 0, 0, 1, 15][..], &request("GET", "/")].concat();
            f.send(&frame(HEADERS, WHOLE | PRIORITIZED, 1, &payload));
        },
        want: Want::Stream(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.3.1",
        what: "PRIORITY that depends on itself",
        send: |f| f.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 15])),
        want: Want::Stream(&[PROTOCOL_ERROR]),
    },
];
