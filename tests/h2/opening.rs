//! RFC 9113 sections 3 and 4: prefaces, frame formats and sizes, header blocks.

use portcullis_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, SETTINGS, block, frame, get, post,
    request,
};

use crate::case::{COMPRESSION_ERROR, Case, FRAME_SIZE_ERROR, PROTOCOL_ERROR, Want, answered, ended, lives};

const WHOLE: u8 = END_HEADERS | END_STREAM;

pub(crate) const CASES: &[Case] = &[
    Case {
        section: "9113-3.4",
        what: "the server's preface is SETTINGS",
        send: |f| f.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()),
        want: Want::Raw(|f| {
            let first = f.read().map_err(|error| error.to_string())?;
            (first.kind == SETTINGS && first.flags == 0).then_some(()).ok_or(format!("{first:?}"))
        }),
    },
    Case {
        section: "9113-3.4",
        what: "an invalid preface",
        send: |f| f.send(b"INVALID CONNECTION PREFACE\r\n\r\n"),
        want: Want::Raw(|f| {
            let _anything = f.wire.rest();
            Ok(())
        }),
    },
    Case {
        section: "9113-3.4",
        what: "a request before the client's SETTINGS",
        send: |f| f.send(&[PREFACE, &get(1, "/")].concat()),
        want: Want::Raw(|f| ended(f, &[PROTOCOL_ERROR]).map_err(|miss| miss.to_string())),
    },
    Case {
        section: "9113-4.1",
        what: "a frame of an unknown type",
        send: |f| f.send(&frame(0xff, 0, 0, &[0; 8])),
        want: Want::Nothing,
    },
    Case {
        section: "9113-4.1",
        what: "undefined flags",
        send: |f| f.send(&frame(PING, 0x16, 0, b"opaque!!")),
        want: Want::Check(|f| {
            let pong = f.find(|frame| frame.kind == PING).map_err(|error| error.to_string())?;
            (pong.payload == b"opaque!!").then_some(()).ok_or(format!("{pong:?}"))
        }),
    },
    Case {
        section: "9113-4.1",
        what: "the reserved bit before the stream",
        send: |f| f.send(&frame(PING, 0, 0x8000_0000, b"opaque!!")),
        want: Want::Check(|f| {
            let pong = f.find(|frame| frame.kind == PING).map_err(|error| error.to_string())?;
            (pong.payload == b"opaque!!").then_some(()).ok_or(format!("{pong:?}"))
        }),
    },
    Case {
        section: "9113-4.2",
        what: "DATA of 16,384 bytes",
        send: |f| f.send(&[post(1, "/"), frame(DATA, END_STREAM, 1, &[b'x'; 16_384])].concat()),
        want: Want::Answer(1, 200),
    },
    Case {
        section: "9113-4.2",
        what: "DATA larger than is allowed",
        send: |f| f.send(&[post(1, "/"), frame(DATA, END_STREAM, 1, &[b'x'; 16_385])].concat()),
        want: Want::Stream(&[FRAME_SIZE_ERROR]),
    },
    Case {
        section: "9113-4.2",
        what: "HEADERS larger than are allowed",
        send: |f| {
            let long = "x".repeat(16_384);
            f.send(&frame(HEADERS, WHOLE, 1, &[request("GET", "/"), block(&[("x-a", &long)])].concat()));
        },
        want: Want::Connection(&[FRAME_SIZE_ERROR]),
    },
    Case {
        section: "9113-4.3",
        what: "a header block that cannot be decoded",
        send: |f| f.send(&frame(HEADERS, WHOLE, 1, &[0x40])),
        want: Want::Connection(&[COMPRESSION_ERROR]),
    },
    Case {
        section: "9113-4.3",
        what: "PRIORITY within a header block",
        send: |f| {
            f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
            f.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 15]));
            f.try_send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")])));
        },
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-4.3",
        what: "another stream's HEADERS within a header block",
        send: |f| {
            f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
            f.send(&frame(HEADERS, WHOLE, 3, &request("GET", "/")));
        },
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.5",
        what: "a frame of an extension",
        send: |f| f.send(&frame(0x16, 0, 0, &[0; 8])),
        want: Want::Nothing,
    },
    Case {
        section: "9113-5.5",
        what: "a frame of an extension within a header block",
        send: |f| {
            f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
            f.send(&frame(0x16, 0, 0, &[0; 8]));
            f.try_send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")])));
        },
        want: Want::Connection(&[PROTOCOL_ERROR]),
    },
    Case {
        section: "9113-5.4.1",
        what: "after a connection error the connection is closed",
        send: |f| f.send(&frame(PING, 0, 3, &[0; 8])),
        want: Want::Check(|f| {
            ended(f, &[PROTOCOL_ERROR]).map_err(|miss| miss.to_string())?;
            let _rest = f.wire.rest();
            f.wire.is_closed().then_some(()).ok_or("it stays open".to_owned())
        }),
    },
    Case {
        section: "9113-5.4.1",
        what: "after an error the GOAWAY names the last stream",
        send: |f| {
            f.send(&get(1, "/"));
            answered(f, 1, 200).unwrap();
            f.send(&frame(PING, 0, 3, &[0; 8]));
        },
        want: Want::Check(|f| {
            let goodbye = f.find(|frame| frame.kind == 7).map_err(|error| error.to_string())?;
            (goodbye.payload[..4] == [0, 0, 0, 1]).then_some(()).ok_or(format!("{goodbye:?}"))
        }),
    },
    Case { section: "9113-3.4", what: "an empty SETTINGS suffices", send: |_| {}, want: Want::Check(lives) },
];
