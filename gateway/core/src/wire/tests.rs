//! What passes and what does not, and that it does not depend on how the bytes come.

use http::header::HeaderMap;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Feeds the bytes in pieces of these sizes, over and over; what passed, and what became of the rest.
fn fed(bytes: &[u8], sizes: &[usize]) -> (Inspector, usize, Next) {
    let (mut inspector, mut sizes) = (Inspector::default(), sizes.iter().cycle());
    let (mut passed, mut come) = (0, 0);
    while come < bytes.len() {
        come = bytes.len().min(come + sizes.next().unwrap());
        let seen = inspector.inspect(&bytes[passed..come]);
        passed += seen.passed;
        if seen.next != Next::More {
            return (inspector, passed, seen.next);
        }
    }
    (inspector, passed, Next::More)
}

/// How many requests pass; then `+` when bytes wait for more, the reason for a refusal, or `?` for a decision.
fn shown(bytes: &[u8]) -> String {
    let (inspector, passed, next) = fed(bytes, &[usize::MAX >> 1]);
    let one_by_one = fed(bytes, &[1]);
    assert_eq!((one_by_one.0.heads(), one_by_one.1, one_by_one.2), (inspector.heads(), passed, next));
    let rest = match next {
        Next::More if passed == bytes.len() => "",
        Next::More => " +",
        Next::Decision => " ?",
        Next::Refused(refusal) => &format!(" {}", refusal.reason.word()),
    };
    format!("{}{rest}", inspector.heads())
}

fn check(rows: &[(&str, &str)]) {
    for (bytes, want) in rows {
        assert_eq!(shown(bytes.as_bytes()), *want, "{bytes:?}");
    }
}

/// Fields behind a good first line and `Host`.
fn check_fields(rows: &[(&str, &str)]) {
    for (fields, want) in rows {
        let bytes = format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        assert_eq!(shown(bytes.as_bytes()), *want, "{fields:?}");
    }
}

#[test]
fn good_requests_pass_one_after_the_other() {
    check(&[
        ("", "0"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "1"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "2"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r", "0 +"),
        ("GET / HT", "0 +"),
        ("PRI", "0 +"),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "1"),
        ("GET / HTTP/1.0\r\n\r\n", "1"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "1"),
        ("GET HTTP://[::1]:80?q HTTP/1.1\r\nHost: b\r\n\r\n", "1"),
        ("GET /?a[]=1&b={|}^`~\\%zz HTTP/1.1\r\nHost: a\r\n\r\n", "1"),
        ("!#$%&'*+-.^_`|~09aZ /[]{}|^\\ HTTP/1.1\r\nHost: a\r\n\r\n", "1"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n", "2"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", "1"),
        ("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n", "2"),
        ("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n00\r\nx: y\r\n\r\n", "1"),
    ]);
    check_fields(&[
        ("x:", "1"),
        ("x:  \t a b\tc \t ", "1"),
        ("x-bytes: \u{e9}", "1"),
        ("x: y: z", "1"),
        ("content-length: \t 0 ", "1"),
        ("x-portcullis-refused: length", "1"),
    ]);
}

#[test]
fn first_lines_are_read_in_one_way_or_refused() {
    check(&[
        ("GET  / HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /  HTTP/1.1\r\n\r\n", "0 request_line"),
        ("GET / HTTP/1.1 \r\n\r\n", "0 request_line"),
        ("GET\t/ HTTP/1.1\r\n\r\n", "0 request_line"),
        (" GET / HTTP/1.1\r\n\r\n", "0 request_line"),
        ("GET /\r\n\r\n", "0 request_line"),
        ("GET /\n\n", "0 request_line"),
        ("GET\r\n\r\n", "0 request_line"),
        ("G(T / HTTP/1.1\r\n\r\n", "0 request_line"),
        ("G\u{e9}T / HTTP/1.1\r\n\r\n", "0 request_line"),
        ("GET / http/1.1\r\n\r\n", "0 request_line"),
        ("GET / HTTP/1.1\n\r\n\r\n", "0 bare_line_feed"),
        ("GET / HTTP/1.10\r\n\r\n", "0 request_line"),
        ("GET / HTTP/2.0\r\n\r\n", "0 version"),
        ("GET / HTTP/1.2\r\n\r\n", "0 version"),
        ("GET / HTTP/0.9\r\n\r\n", "0 version"),
        ("GET / JUNK/1.1\r\n\r\n", "0 request_line"),
        ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", "0 bare_carriage_return"),
        ("\nGET / HTTP/1.1\r\n\r\n", "0 bare_line_feed"),
        ("\rGET / HTTP/1.1\r\n\r\n", "0 bare_carriage_return"),
        ("CONNECT a:443 HTTP/1.1\r\n", "0 connect"),
        ("GET * HTTP/1.1\r\n\r\n", "0 target"),
        ("GET a:443 HTTP/1.1\r\n\r\n", "0 target"),
        ("GET a/b HTTP/1.1\r\n\r\n", "0 target"),
        ("GET ftp://a/ HTTP/1.1\r\n\r\n", "0 target"),
        ("GET http:///x HTTP/1.1\r\n\r\n", "0 host_invalid"),
        ("GET http://u@a/ HTTP/1.1\r\n\r\n", "0 host_invalid"),
        ("GET http://a,b/ HTTP/1.1\r\n\r\n", "0 host_invalid"),
        ("GET /#x HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /?a#x HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /a\0 HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /a\u{7f} HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /a<b> HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /caf\u{e9} HTTP/1.1\r\n\r\n", "0 target"),
        ("GET /?\" HTTP/1.1\r\n\r\n", "0 target"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "1 target"),
    ]);
}

#[test]
fn fields_are_lines_with_one_name_and_one_value_or_refused() {
    check_fields(&[
        ("x: a\ny: b", "0 bare_line_feed"),
        ("x: a\rb", "0 bare_carriage_return"),
        ("x: a\r\r", "0 bare_carriage_return"),
        ("x\ny: b", "0 bare_line_feed"),
        ("x: a\r\n b", "0 folded_line"),
        ("x: a\r\n\tb", "0 folded_line"),
        (" x: a", "0 folded_line"),
        ("x: a\0b", "0 control_byte"),
        ("x: \u{b}chunked", "0 control_byte"),
        ("x: a\u{7f}b", "0 control_byte"),
        ("x : a", "0 space_before_colon"),
        ("x\t: a", "0 space_before_colon"),
        (": a", "0 field_name"),
        ("x", "0 field_name"),
        ("x y: a", "0 space_before_colon"),
        ("x\0: a", "0 field_name"),
        ("x(: a", "0 field_name"),
        ("\u{e9}: a", "0 field_name"),
        ("\"x\": a", "0 field_name"),
    ]);
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "0 bare_line_feed"),
        ("GET / HTTP/1.1\r\nHost: a\n\n", "0 bare_line_feed"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX\n", "0 bare_carriage_return"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", "0 +"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "0 folded_line"),
    ]);
}

#[test]
fn there_is_one_host_and_it_is_one() {
    check(&[
        ("GET / HTTP/1.1\r\n\r\n", "0 host_missing"),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "0 host_missing"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.0\r\nHost:\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", "0 host_invalid"),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "0 host_repeated"),
    ]);
}

#[test]
fn a_body_has_one_length_or_is_refused() {
    check_fields(&[
        ("content-length: 3\r\ncontent-length: 3", "0 length_repeated"),
        ("content-length: 3, 3", "0 length"),
        ("content-length: +3", "0 length"),
        ("content-length: -3", "0 length"),
        ("content-length: 0x3", "0 length"),
        ("content-length: 3 3", "0 length"),
        ("content-length: 3.0", "0 length"),
        ("content-length:", "0 length"),
        ("content-length: 9223372036854775808", "0 length"),
        ("content-length: 00000000000000000003", "0 length"),
        ("content-length: 3\r\ntransfer-encoding: chunked", "0 length_with_coding"),
        ("transfer-encoding: chunked\r\ncontent-length: 3", "0 length_with_coding"),
        ("transfer-encoding: chunked\r\ncontent-length: 0", "0 length_with_coding"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0 coding"),
        ("transfer-encoding: gzip, chunked", "0 coding"),
        ("transfer-encoding: chunked, identity", "0 coding"),
        ("transfer-encoding: identity", "0 coding"),
        ("transfer-encoding: xchunked", "0 coding"),
        ("transfer-encoding: \"chunked\"", "0 coding"),
        ("transfer-encoding: chunked;a=b", "0 coding"),
        ("transfer-encoding:", "0 coding"),
        ("transfer-encoding: chunked,", "0 coding"),
        ("transfer-encoding: \u{b}chunked", "0 control_byte"),
        ("transfer-encoding : chunked", "0 space_before_colon"),
        ("transfer_encoding: chunked", "1"),
    ]);
    check(&[("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", "0 coding_in_http_1_0")]);
}

#[test]
fn chunks_are_sizes_and_data_and_nothing_else() {
    for (body, want) in [
        ("5", "1 +"),
        ("5\r", "1 +"),
        ("5\r\nab", "1"),
        ("5\r\nabcde\r", "1 +"),
        ("5\r\nabcde\r\n0\r\n", "1"),
        ("5\r\nabcde\r\n0\r\n\r", "1 +"),
        ("\r\n", "1 chunk_size"),
        ("x\r\n", "1 chunk_size"),
        ("+5\r\n", "1 chunk_size"),
        ("-5\r\n", "1 chunk_size"),
        ("0x5\r\n", "1 chunk_size"),
        (" 5\r\n", "1 chunk_size"),
        ("5 \r\n", "1 chunk_extension"),
        ("5;a=b\r\n", "1 chunk_extension"),
        ("5\t;a\r\n", "1 chunk_extension"),
        ("5\nabcde", "1 chunk_size"),
        ("5\rX", "1 chunk_size"),
        ("00000000000000005\r\n", "1 chunk_size"),
        ("ffffffffffffffff\r\n", "1 chunk_size"),
        ("8000000000000000\r\n", "1 chunk_size"),
        ("5\r\nabcdef", "1 chunk_end"),
        ("5\r\nabcde\n", "1 chunk_end"),
        ("5\r\nabcde\rX", "1 chunk_end"),
        ("5\r\nabcde0\r\n", "1 chunk_end"),
        ("0\r\n\n", "1 bare_line_feed"),
        ("0\r\nx: y\r\n z\r\n\r\n", "1 folded_line"),
        ("0\r\nx : y\r\n\r\n", "1 space_before_colon"),
        ("0\r\ncontent-length: 5\r\n\r\n", "1 trailer"),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", "1 trailer"),
        ("0\r\nhost: b\r\n\r\n", "1 trailer"),
        ("0\r\n\r\nX", "1"),
        ("0\r\n\r\n\0", "1 request_line"),
    ] {
        let bytes = format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        // What follows the body is the next head, which has come in part only.
        let want = if body.ends_with('X') && want == "1" { "1 +" } else { want };
        let want = if body == "5\r\nabcde\r\n0\r\n" { "1" } else { want };
        assert_eq!(shown(bytes.as_bytes()), want, "{body:?}");
    }
}

#[test]
fn sizes_are_bounded() {
    let head = |target: usize, fields: usize, value: usize| {
        let fields: String = (1..fields).map(|_| format!("x: {}\r\n", "v".repeat(value))).collect();
        shown(format!("GET /{} HTTP/1.1\r\nHost: a\r\n{fields}\r\n", "a".repeat(target - 1)).as_bytes())
    };
    assert_eq!(head(crate::limits::TARGET_BYTES, 1, 0), "1");
    assert_eq!(head(crate::limits::TARGET_BYTES + 1, 1, 0), "0 target_too_long");
    assert_eq!(head(1, crate::limits::HEAD_FIELDS, 0), "1");
    assert_eq!(head(1, crate::limits::HEAD_FIELDS + 1, 0), "0 too_many_fields");
    let exact = crate::limits::HEAD_BYTES - "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n".len();
    assert_eq!(head(1, 2, exact), "1");
    assert_eq!(head(1, 2, exact + 1), "0 head_too_large");
    assert_eq!(shown(&b"a".repeat(crate::limits::HEAD_BYTES + 1)), "0 head_too_large");
    let trailers = format!(
        "POST / HTTP/1.0\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: {}",
        "v".repeat(crate::limits::TRAILER_BYTES)
    );
    assert_eq!(shown(trailers.as_bytes()), "2 trailers_too_large");
}

#[test]
fn http2_is_left_alone_from_its_preface_on() {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(b"\0\0\0\x04\0\0\0\0\0 GET / HTTP/1.1\n\n");
    assert_eq!(shown(&bytes), "0");
    let (inspector, passed, next) = fed(&bytes[..PREFACE.len() - 1], &[1]);
    assert_eq!((inspector.is_off(), passed, next), (false, 0, Next::More));
}

#[test]
fn what_follows_a_wish_for_another_protocol_waits_for_the_answer() {
    let wish = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    check(&[
        (wish, "1"),
        (&format!("{wish}\u{81}\u{5}"), "1 ?"),
        (&wish.replace("Host: a\r\n", "Host: a\r\nContent-Length: 2\r\n").replace("\r\n\r\n", "\r\n\r\nabX"), "1 ?"),
        (&format!("{}X", wish.replace("1.1", "1.0")), "1 +"),
    ]);
    for (granted, want) in
        [(true, Next::More), (false, Next::Refused(Refusal { reason: Reason::RequestLine, line: Line::Unsound }))]
    {
        let (mut inspector, _, next) = fed(wish.as_bytes(), &[7]);
        assert_eq!((next, inspector.is_undecided()), (Next::More, true));
        assert_eq!(inspector.inspect(b"\x81\x05hello").next, Next::Decision);
        inspector.decide(granted);
        assert_eq!(inspector.inspect(b"\x81\x05hello").next, want);
        assert_eq!(inspector.is_off(), granted);
    }
}

#[test]
fn a_stand_in_tells_who_it_stands_for_and_could_not_have_passed_itself() {
    for (bytes, line, reason) in [
        ("POST /a?b HTTP/1.1\r\nHost: a\r\ncontent-length: x\r\n\r\n", "POST /a?b HTTP/1.1", Reason::Length),
        ("\r\nGET http://a/ HTTP/1.1\r\n\r\n", "GET http://a/ HTTP/1.1", Reason::HostMissing),
        ("GET /a HTTP/3.0\r\n", "- * HTTP/1.1", Reason::Version),
        ("GET /a#b HTTP/1.1\r\n", "- * HTTP/1.1", Reason::Target),
        ("\0", "- * HTTP/1.1", Reason::RequestLine),
    ] {
        let (_, passed, next) = fed(bytes.as_bytes(), &[3]);
        let Next::Refused(refusal) = next else { panic!("{bytes:?} {next:?}") };
        assert_eq!(refusal.reason, reason, "{bytes:?}");
        let stand_in = refusal.stand_in(&bytes.as_bytes()[passed..]).unwrap();
        let text = std::str::from_utf8(&stand_in).unwrap();
        let (first, rest) = text.split_once("\r\n").unwrap();
        assert_eq!(first, line);
        let (name, word) = rest.trim_end().split_once(": ").unwrap();
        let fields = HeaderMap::from_iter([(name.parse::<http::HeaderName>().unwrap(), word.parse().unwrap())]);
        assert_eq!(refused(&fields), reason);
        assert!(matches!(shown(&stand_in).as_str(), "0 host_missing" | "0 target"), "{}", shown(&stand_in));
    }
    assert_eq!(refused(&HeaderMap::new()), Reason::HostMissing);
    let body = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx";
    let Next::Refused(refusal) = fed(body, &[usize::MAX >> 1]).2 else { panic!() };
    assert_eq!(refusal.stand_in(b"x"), None);
}

#[test]
fn every_reason_has_a_word_of_its_own_and_a_refusal_as_its_failure() {
    let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Reason::ALL.len());
    assert!(Reason::ALL.iter().all(|reason| reason.failure().is_refusal()));
}

/// Pieces that good and bad requests are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: x\r\n",
        "x-y: some value\r\n",
        "\r\n",
        "5\r\nabcde\r\n",
        "0\r\n\r\n",
        "0\r\nx: y\r\n\r\n",
        "\n",
        "\r",
        " ",
        ":",
        ";",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    prop_oneof![
        9 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ]
}

proptest! {
    #[test]
    fn any_split_into_reads_gives_the_same_verdict(pieces in vec(piece(), 0..20), sizes in vec(1_usize..40, 1..8)) {
        let bytes = pieces.concat();
        let (inspector, passed, next) = fed(&bytes, &[usize::MAX >> 1]);
        for sizes in [&sizes[..], &[1]] {
            let (other, other_passed, other_next) = fed(&bytes, sizes);
            prop_assert_eq!((other.heads(), other_passed, other_next), (inspector.heads(), passed, next));
        }
    }
}
