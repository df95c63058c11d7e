//! RFC 9113 sections 7 and 8: error codes, and HTTP messages in frames.

use portcullis_tests::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, block, frame, post, request,
};

use crate::case::{Case, PROTOCOL_ERROR, Want};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// A request with these fields after its own.
fn with(f: &mut Frames, fields: &[(&str, &str)]) {
    f.send(&frame(HEADERS, WHOLE, 1, &[request("GET", "/"), block(fields)].concat()));
}

/// A request of these fields alone.
fn of(f: &mut Frames, fields: &[(&str, &str)]) {
    f.send(&frame(HEADERS, WHOLE, 1, &block(fields)));
}

const fn malformed(section: &'static str, what: &'static str, send: fn(&mut Frames)) -> Case {
    Case { section, what, send, want: Want::Malformed }
}

pub(crate) const CASES: &[Case] = &[
    Case {
        section: "9113-7",
        what: "GOAWAY with a code that is not known",
        send: |f| f.send(&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])),
        // It may end as it would for any other code.
        want: Want::Connection(&[0]),
    },
    Case {
        section: "9113-7",
        what: "RST_STREAM with a code that is not known",
        send: |f| f.send(&[post(1, "/"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])].concat()),
        want: Want::Nothing,
    },
    Case {
        section: "9113-8.1",
        what: "second HEADERS without the end of the stream",
        send: |f| f.send(&[post(1, "/"), frame(HEADERS, END_HEADERS, 1, &block(&[("x-a", "b")]))].concat()),
        want: Want::Stream(&[PROTOCOL_ERROR]),
    },
    malformed("9113-8.2.1", "a name in capitals", |f| with(f, &[("X-A", "b")])),
    malformed("9113-8.2.1", "a name with a space", |f| with(f, &[("x a", "b")])),
    malformed("9113-8.2.1", "a name with a colon inside", |f| with(f, &[("x:a", "b")])),
    malformed("9113-8.2.1", "a value with a line feed", |f| with(f, &[("x-a", "b\nc: d")])),
    malformed("9113-8.2.1", "a value with a carriage return", |f| with(f, &[("x-a", "b\rc")])),
    malformed("9113-8.2.1", "a value with a NUL", |f| with(f, &[("x-a", "b\0c")])),
    malformed("9113-8.3", "an unknown pseudo-header", |f| with(f, &[(":test", "ok")])),
    malformed("9113-8.3", "a response's pseudo-header", |f| with(f, &[(":status", "200")])),
    malformed("9113-8.3", "a pseudo-header among trailers", |f| {
        let trailers = frame(HEADERS, WHOLE, 1, &block(&[("x-a", "b"), (":method", "GET")]));
        f.send(&[post(1, "/"), frame(DATA, 0, 1, b"x"), trailers].concat());
    }),
    malformed("9113-8.3", "a pseudo-header after a field", |f| {
        of(f, &[(":method", "GET"), (":scheme", "http"), (":authority", "test"), ("x-a", "b"), (":path", "/")]);
    }),
    malformed("9113-8.2.2", "a field that is the connection's", |f| with(f, &[("connection", "keep-alive")])),
    malformed("9113-8.2.2", "transfer-encoding", |f| with(f, &[("transfer-encoding", "chunked")])),
    malformed("9113-8.2.2", "TE other than trailers", |f| with(f, &[("te", "trailers, deflate")])),
    malformed("9113-8.3.1", "an empty path", |f| {
        of(f, &[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "test")]);
    }),
    malformed("9113-8.3.1", "no method", |f| of(f, &[(":scheme", "http"), (":path", "/"), (":authority", "test")])),
    malformed("9113-8.3.1", "no scheme", |f| of(f, &[(":method", "GET"), (":path", "/"), (":authority", "test")])),
    malformed("9113-8.3.1", "no path", |f| of(f, &[(":method", "GET"), (":scheme", "http"), (":authority", "test")])),
    malformed("9113-8.3.1", "two methods", |f| {
        of(f, &[(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")]);
    }),
    malformed("9113-8.3.1", "two schemes", |f| {
        of(f, &[(":method", "GET"), (":scheme", "http"), (":scheme", "http"), (":path", "/"), (":authority", "test")]);
    }),
    malformed("9113-8.3.1", "two paths", |f| {
        of(f, &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":path", "/"), (":authority", "test")]);
    }),
    malformed("9113-8.1.1", "one DATA of another length than announced", |f| {
        let fields = [request("POST", "/"), block(&[("content-length", "1")])].concat();
        f.send(&[frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, b"test")].concat());
    }),
    malformed("9113-8.1.1", "several DATA of another length than announced", |f| {
        let fields = [request("POST", "/"), block(&[("content-length", "1")])].concat();
        let body = [frame(DATA, 0, 1, b"te"), frame(DATA, END_STREAM, 1, b"st")].concat();
        f.send(&[frame(HEADERS, END_HEADERS, 1, &fields), body].concat());
    }),
    malformed("9113-8.1.1", "less than announced", |f| {
        let fields = [request("POST", "/"), block(&[("content-length", "9")])].concat();
        f.send(&[frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, b"test")].concat());
    }),
];
