//! RFC 7541: header blocks that cannot be decoded end the connection, since its table would no longer be the same on both sides.

use portcullis_tests::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, frame, request};

use crate::case::{COMPRESSION_ERROR, Case, PROTOCOL_ERROR, Want};

/// A request's header block with these bytes behind it.
fn with(f: &mut Frames, bytes: &[u8]) {
    f.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&request("GET", "/"), bytes].concat()));
}

const fn undecodable(section: &'static str, what: &'static str, send: fn(&mut Frames)) -> Case {
    Case { section, what, send, want: Want::Connection(&[COMPRESSION_ERROR]) }
}

pub(crate) const CASES: &[Case] = &[
    undecodable("7541-2.3.3", "an index beyond the tables", |f| with(f, &[0xc6])),
    undecodable("7541-2.3.3", "a literal with a name beyond the tables", |f| with(f, b"\x7f\x07\x01x")),
    undecodable("7541-4.2", "a new size of the table at the end of a block", |f| with(f, &[0x20])),
    undecodable("7541-5.2", "padding of a string longer than seven bits", |f| {
        with(f, b"\x00\x01x\x89\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\xff");
    }),
    undecodable("7541-5.2", "a string padded with zeros", |f| with(f, b"\x00\x01x\x82\x25\xa0")),
    undecodable("7541-5.2", "a string with the end-of-string symbol", |f| {
        with(f, b"\x00\x01x\x85\xff\xff\xff\xff\xff");
    }),
    undecodable("7541-6.1", "index 0", |f| with(f, &[0x80])),
    undecodable("7541-6.3", "a size of the table beyond what was allowed", |f| {
        f.send(&frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &[&[0x3f, 0xff, 0xff, 0xff, 0x7f][..], &request("GET", "/")].concat(),
        ));
    }),
    Case {
        section: "7541-5.1",
        what: "an integer without end",
        send: |f| with(f, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        want: Want::Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
    },
];
