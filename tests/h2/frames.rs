//! RFC 9113 section 6: each type of frame, where it may stand and what it may hold.

use portcullis_tests::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, post, request, settings,
};

use crate::case::{Case, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, Want, acknowledged};

const WHOLE: u8 = END_HEADERS | END_STREAM;
const INITIAL_WINDOW_SIZE: u16 = 4;

const fn ends(
    section: &'static str,
    what: &'static str,
    codes: &'static [u32],
    send: fn(&mut portcullis_tests::frames::Frames),
) -> Case {
    Case { section, what, send, want: Want::Connection(codes) }
}

const fn resets(
    section: &'static str,
    what: &'static str,
    codes: &'static [u32],
    send: fn(&mut portcullis_tests::frames::Frames),
) -> Case {
    Case { section, what, send, want: Want::Stream(codes) }
}

pub(crate) const CASES: &[Case] = &[
    ends("9113-6.1", "DATA on stream 0", &[PROTOCOL_ERROR], |f| f.send(&frame(DATA, END_STREAM, 0, b"x"))),
    resets("9113-6.1", "DATA on a stream that is not open", &[STREAM_CLOSED], |f| {
        f.send(&get(1, "/"));
        f.find(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).unwrap();
        f.send(&frame(DATA, END_STREAM, 1, b"x"));
    }),
    ends("9113-6.1", "DATA with more padding than payload", &[PROTOCOL_ERROR], |f| {
        f.send(&[post(1, "/"), frame(DATA, END_STREAM | PADDED, 1, b"\x06test")].concat());
    }),
    ends("9113-6.2", "HEADERS without end, then PRIORITY", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
        f.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 15]));
    }),
    ends("9113-6.2", "HEADERS without end, then those of another stream", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
        f.send(&get(3, "/"));
    }),
    ends("9113-6.2", "HEADERS on stream 0", &[PROTOCOL_ERROR], |f| f.send(&get(0, "/"))),
    ends("9113-6.2", "HEADERS with more padding than payload", &[PROTOCOL_ERROR], |f| {
        let payload = [&[255][..], &request("GET", "/")].concat();
        f.send(&frame(HEADERS, WHOLE | PADDED, 1, &payload));
    }),
    ends("9113-6.3", "PRIORITY on stream 0", &[PROTOCOL_ERROR], |f| f.send(&frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 15]))),
    resets("9113-6.3", "PRIORITY of the wrong length", &[FRAME_SIZE_ERROR], |f| {
        f.send(&[post(1, "/"), frame(PRIORITY, 0, 1, &[0, 0, 0, 0])].concat());
    }),
    ends("9113-6.4", "RST_STREAM on stream 0", &[PROTOCOL_ERROR], |f| f.send(&frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]))),
    ends("9113-6.4", "RST_STREAM on an idle stream", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    }),
    ends("9113-6.4", "RST_STREAM of the wrong length", &[FRAME_SIZE_ERROR], |f| {
        f.send(&[post(1, "/"), frame(RST_STREAM, 0, 1, &[0, 0, 0])].concat());
    }),
    ends("9113-6.5", "an acknowledgement with a payload", &[FRAME_SIZE_ERROR], |f| {
        f.send(&frame(SETTINGS, ACK, 0, &[0; 6]));
    }),
    ends("9113-6.5", "SETTINGS on a stream", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(SETTINGS, 0, 1, &settings(&[(3, 100)])));
    }),
    ends("9113-6.5", "SETTINGS of a length that is no multiple of six", &[FRAME_SIZE_ERROR], |f| {
        f.send(&frame(SETTINGS, 0, 0, &[0, 3, 0]));
    }),
    ends("9113-6.5.2", "ENABLE_PUSH other than 0 or 1", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(SETTINGS, 0, 0, &settings(&[(2, 2)])));
    }),
    ends("9113-6.5.2", "INITIAL_WINDOW_SIZE too large", &[FLOW_CONTROL_ERROR], |f| {
        f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 0x8000_0000)])));
    }),
    ends("9113-6.5.2", "MAX_FRAME_SIZE too small", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(SETTINGS, 0, 0, &settings(&[(5, 16_383)])));
    }),
    ends("9113-6.5.2", "MAX_FRAME_SIZE too large", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(SETTINGS, 0, 0, &settings(&[(5, 16_777_216)])));
    }),
    Case {
        section: "9113-6.5.2",
        what: "a setting that is not known",
        send: |f| f.send(&frame(SETTINGS, 0, 0, &settings(&[(0xff, 1)]))),
        want: Want::Nothing,
    },
    Case {
        section: "9113-6.5.3",
        what: "the last of several values holds",
        send: |f| {
            f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)])));
            f.send(&get(1, "/"));
        },
        want: Want::Check(|f| {
            let data = f.find(|frame| frame.kind == DATA).map_err(|error| error.to_string())?;
            (data.payload.len() == 1).then_some(()).ok_or(format!("{} bytes", data.payload.len()))
        }),
    },
    Case {
        section: "9113-6.5.3",
        what: "SETTINGS are acknowledged",
        send: |f| f.send(&frame(SETTINGS, 0, 0, &[])),
        want: Want::Check(acknowledged),
    },
    Case {
        section: "9113-6.7",
        what: "PING is answered with its payload",
        send: |f| f.send(&frame(PING, 0, 0, b"12345678")),
        want: Want::Check(|f| {
            let pong = f.find(|frame| frame.kind == PING).map_err(|error| error.to_string())?;
            (pong.flags == ACK && pong.payload == b"12345678").then_some(()).ok_or(format!("{pong:?}"))
        }),
    },
    Case {
        section: "9113-6.7",
        what: "an answer to a PING is not answered",
        send: |f| f.send(&frame(PING, ACK, 0, b"unwanted")),
        want: Want::Nothing,
    },
    ends("9113-6.7", "PING on a stream", &[PROTOCOL_ERROR], |f| f.send(&frame(PING, 0, 1, &[0; 8]))),
    ends("9113-6.7", "PING of the wrong length", &[FRAME_SIZE_ERROR], |f| f.send(&frame(PING, 0, 0, &[0; 6]))),
    ends("9113-6.8", "GOAWAY on a stream", &[PROTOCOL_ERROR], |f| f.send(&frame(GOAWAY, 0, 1, &[0; 8]))),
    ends("9113-6.9", "WINDOW_UPDATE by nothing on the connection", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(WINDOW_UPDATE, 0, 0, &[0; 4]));
    }),
    resets("9113-6.9", "WINDOW_UPDATE by nothing on a stream", &[PROTOCOL_ERROR], |f| {
        f.send(&[post(1, "/"), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat());
    }),
    ends("9113-6.9", "WINDOW_UPDATE of the wrong length", &[FRAME_SIZE_ERROR], |f| {
        f.send(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]));
    }),
    Case {
        section: "9113-6.9.1",
        what: "no more is sent than the window allows",
        send: |f| {
            f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 1)])));
            f.send(&get(1, "/"));
        },
        want: Want::Check(|f| {
            let data = f.find(|frame| frame.kind == DATA).map_err(|error| error.to_string())?;
            (data.payload.len() == 1).then_some(()).ok_or(format!("{} bytes", data.payload.len()))
        }),
    },
    ends("9113-6.9.1", "the connection's window grows beyond its end", &[FLOW_CONTROL_ERROR], |f| {
        f.send(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]).repeat(2));
    }),
    resets("9113-6.9.1", "a stream's window grows beyond its end", &[FLOW_CONTROL_ERROR], |f| {
        f.send(&post(1, "/"));
        f.send(&frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]).repeat(2));
    }),
    Case {
        section: "9113-6.9.2",
        what: "a window opened after the request holds for it",
        send: |f| {
            f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 0)])));
            f.send(&get(1, "/"));
            f.find(|frame| frame.kind == HEADERS).unwrap();
            f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 1)])));
        },
        want: Want::Check(|f| {
            let data = f.find(|frame| frame.kind == DATA).map_err(|error| error.to_string())?;
            (data.payload.len() == 1).then_some(()).ok_or(format!("{} bytes", data.payload.len()))
        }),
    },
    Case {
        section: "9113-6.9.2",
        what: "a window can become negative",
        send: |f| {
            f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 3)])));
            f.send(&get(1, "/"));
            f.find(|frame| frame.kind == DATA).unwrap();
            f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 2)])));
            f.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2]));
        },
        want: Want::Check(|f| {
            // Three went out under a window of two, so the first of the two more pays for that.
            let data = f.find(|frame| frame.kind == DATA).map_err(|error| error.to_string())?;
            (data.payload.len() == 1).then_some(()).ok_or(format!("{} bytes", data.payload.len()))
        }),
    },
    ends("9113-6.9.2", "a change of the windows beyond their end", &[FLOW_CONTROL_ERROR], |f| {
        f.send(&post(1, "/"));
        f.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]));
        f.send(&frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)])));
    }),
    Case {
        section: "9113-6.10",
        what: "several CONTINUATION",
        send: |f| {
            f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
            f.send(&frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")])));
            f.send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-c", "d")])));
        },
        want: Want::Answer(1, 200),
    },
    ends("9113-6.10", "CONTINUATION without end, then another frame", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
        f.send(&frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")])));
        f.send(&frame(DATA, END_STREAM, 1, b"x"));
    }),
    ends("9113-6.10", "CONTINUATION on stream 0", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
        f.send(&frame(CONTINUATION, END_HEADERS, 0, &block(&[("x-a", "b")])));
    }),
    ends("9113-6.10", "CONTINUATION after HEADERS with end", &[PROTOCOL_ERROR], |f| {
        f.send(&[post(1, "/"), frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")]))].concat());
    }),
    ends("9113-6.10", "CONTINUATION after CONTINUATION with end", &[PROTOCOL_ERROR], |f| {
        f.send(&frame(HEADERS, 0, 1, &request("POST", "/")));
        f.send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")])));
        f.send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-c", "d")])));
    }),
    ends("9113-6.10", "CONTINUATION after DATA", &[PROTOCOL_ERROR], |f| {
        f.send(&[post(1, "/"), frame(DATA, 0, 1, b"x")].concat());
        f.send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")])));
    }),
    ends("9113-8.4", "PUSH_PROMISE from a client", &[PROTOCOL_ERROR], |f| {
        f.send(&post(1, "/"));
        f.send(&frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &request("GET", "/")].concat()));
    }),
];
