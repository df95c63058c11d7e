//! What an ordinary client may send, in every shape the RFCs allow: it is answered, or at least suffered.

use portcullis_tests::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING, PRIORITIZED, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, post, request, settings,
};

use crate::case::{Case, Want, acknowledged, answered};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// A header block of indexed fields, then these bytes.
fn indexed(more: &[u8]) -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x01, 4][..], b"test", more].concat()
}

const fn answer(section: &'static str, what: &'static str, send: fn(&mut portcullis_tests::frames::Frames)) -> Case {
    Case { section, what, send, want: Want::Answer(1, 200) }
}

const fn lives(section: &'static str, what: &'static str, send: fn(&mut portcullis_tests::frames::Frames)) -> Case {
    Case { section, what, send, want: Want::Nothing }
}

pub(crate) const CASES: &[Case] = &[
    answer("9113-3.4", "a preface, then a request", |f| f.send(&get(1, "/"))),
    answer("9113-5.1", "PRIORITY on an idle stream, then its request", |f| {
        f.send(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 15]), get(1, "/")].concat());
    }),
    answer("9113-5.1", "WINDOW_UPDATE on a half-closed stream", |f| {
        f.send(&[get(1, "/"), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])].concat());
    }),
    answer("9113-5.1", "PRIORITY on a half-closed stream", |f| {
        f.send(&[get(1, "/"), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 15])].concat());
    }),
    lives("9113-5.1", "RST_STREAM on a half-closed stream", |f| {
        f.send(&[get(1, "/"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat());
    }),
    lives("9113-5.1", "PRIORITY on a closed stream", |f| {
        f.send(&get(1, "/"));
        f.find(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).unwrap();
        f.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 15]));
    }),
    answer("9113-6.1", "one DATA", |f| f.send(&[post(1, "/"), frame(DATA, END_STREAM, 1, b"test")].concat())),
    answer("9113-6.1", "several DATA", |f| {
        f.send(&[post(1, "/"), frame(DATA, 0, 1, b"te"), frame(DATA, END_STREAM, 1, b"st")].concat());
    }),
    answer("9113-6.1", "DATA with padding", |f| {
        f.send(&[post(1, "/"), frame(DATA, END_STREAM | PADDED, 1, b"\x06test\0\0\0\0\0\0")].concat());
    }),
    answer("9113-6.2", "HEADERS", |f| f.send(&frame(HEADERS, WHOLE, 1, &request("GET", "/")))),
    answer("9113-6.2", "HEADERS with padding", |f| {
        let payload = [&[3][..], &request("GET", "/"), &[0; 3]].concat();
        f.send(&frame(HEADERS, WHOLE | PADDED, 1, &payload));
    }),
    answer("9113-6.2", "HEADERS with priority", |f| {
        let payload = [&[0, 0, 0, 0, 15][..], &request("GET", "/")].concat();
        f.send(&frame(HEADERS, WHOLE | PRIORITIZED, 1, &payload));
    }),
    answer("9113-6.3", "PRIORITY of the least weight", |f| {
        f.send(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 0]), get(1, "/")].concat());
    }),
    answer("9113-6.3", "PRIORITY of the most weight", |f| {
        f.send(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]), get(1, "/")].concat());
    }),
    answer("9113-6.3", "PRIORITY with a dependency", |f| {
        f.send(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 15]), get(1, "/")].concat());
    }),
    answer("9113-6.3", "PRIORITY with an exclusive dependency", |f| {
        f.send(&[frame(PRIORITY, 0, 1, &[0x80, 0, 0, 3, 15]), get(1, "/")].concat());
    }),
    answer("9113-6.3", "PRIORITY on a later stream, then a request on an earlier one", |f| {
        f.send(&[frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 15]), get(1, "/")].concat());
    }),
    lives("9113-6.4", "RST_STREAM", |f| f.send(&[post(1, "/"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat())),
    Case {
        section: "9113-6.5",
        what: "SETTINGS",
        send: |f| f.send(&frame(SETTINGS, 0, 0, &settings(&[(3, 100)]))),
        want: Want::Check(acknowledged),
    },
    Case {
        section: "9113-6.7",
        what: "PING",
        send: |f| f.send(&frame(PING, 0, 0, b"opaque!!")),
        want: Want::Check(|f| {
            let Frame { flags, payload, .. } = f.find(|frame| frame.kind == PING).map_err(|error| error.to_string())?;
            (flags & ACK != 0 && payload == b"opaque!!").then_some(()).ok_or("another PING".to_owned())
        }),
    },
    Case {
        section: "9113-6.8",
        what: "GOAWAY",
        send: |f| f.send(&frame(GOAWAY, 0, 0, &[0; 8])),
        want: Want::Connection(&[0]),
    },
    answer("9113-6.9", "WINDOW_UPDATE on the connection", |f| {
        f.send(&[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), get(1, "/")].concat());
    }),
    answer("9113-6.9", "WINDOW_UPDATE on a stream", |f| {
        f.send(&[get(1, "/"), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])].concat());
    }),
    answer("9113-6.10", "one CONTINUATION", |f| {
        f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
        f.send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")])));
    }),
    answer("9113-6.10", "two CONTINUATION", |f| {
        f.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")));
        f.send(&frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")])));
        f.send(&frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-c", "d")])));
    }),
    answer("9113-8.1", "GET", |f| f.send(&get(1, "/"))),
    answer("9113-8.1", "HEAD", |f| f.send(&frame(HEADERS, WHOLE, 1, &request("HEAD", "/")))),
    answer("9113-8.1", "POST", |f| f.send(&[post(1, "/"), frame(DATA, END_STREAM, 1, b"x")].concat())),
    answer("9113-8.1", "POST with trailers", |f| {
        let trailers = frame(HEADERS, WHOLE, 1, &block(&[("x-trailer", "t")]));
        f.send(&[post(1, "/"), frame(DATA, 0, 1, b"x"), trailers].concat());
    }),
    answer("9113-8.3.1", "OPTIONS for the whole server", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &request("OPTIONS", "/")));
    }),
    answer("9113-8.2.3", "a cookie in crumbs", |f| {
        let crumbs = block(&[("cookie", "a=b"), ("cookie", "c=d")]);
        f.send(&frame(HEADERS, WHOLE, 1, &[request("GET", "/"), crumbs].concat()));
    }),
    answer("7541-6.1", "indexed fields", |f| f.send(&frame(HEADERS, WHOLE, 1, &indexed(&[])))),
    answer("7541-6.2.1", "a literal that is indexed, its name indexed", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x7a\x04test")));
    }),
    answer("7541-6.2.1", "the same in Huffman code", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x7a\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f")));
    }),
    answer("7541-6.2.1", "a literal that is indexed, its name new", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x40\x03x-a\x04test")));
    }),
    answer("7541-6.2.1", "the same in Huffman code, name and value", |f| {
        let field = b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(field)));
    }),
    answer("7541-6.2.2", "a literal that is not indexed, its name indexed", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x0f\x2b\x04test")));
    }),
    answer("7541-6.2.2", "the same in Huffman code", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x0f\x2b\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f")));
    }),
    answer("7541-6.2.2", "a literal that is not indexed, its name new", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x00\x03x-a\x04test")));
    }),
    answer("7541-6.2.2", "the same in Huffman code, name and value", |f| {
        let field = b"\x00\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(field)));
    }),
    answer("7541-6.2.3", "a literal never to be indexed, its name indexed", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x1f\x2b\x04test")));
    }),
    answer("7541-6.2.3", "the same in Huffman code", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x1f\x2b\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f")));
    }),
    answer("7541-6.2.3", "a literal never to be indexed, its name new", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x10\x03x-a\x04test")));
    }),
    answer("7541-6.2.3", "the same in Huffman code, name and value", |f| {
        let field = b"\x10\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        f.send(&frame(HEADERS, WHOLE, 1, &indexed(field)));
    }),
    answer("7541-6.3", "a new size of the table", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &[&[0x20][..], &indexed(&[])].concat()));
    }),
    answer("7541-4.2", "two new sizes of the table", |f| {
        f.send(&frame(HEADERS, WHOLE, 1, &[&[0x20, 0x3f, 0xe1, 0x1f][..], &indexed(&[])].concat()));
    }),
    Case {
        section: "7541-2.3.2",
        what: "a field of the table, named in a later request",
        send: |f| {
            f.send(&frame(HEADERS, WHOLE, 1, &indexed(b"\x40\x03x-a\x04test")));
            answered(f, 1, 200).unwrap();
            f.send(&frame(HEADERS, WHOLE, 3, &indexed(&[0xbe])));
        },
        want: Want::Answer(3, 200),
    },
];
