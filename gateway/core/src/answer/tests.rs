use super::*;

/// What is made of the bytes, which arrive in pieces of this size: how many belong to the answer, and where it then stands.
fn look(asked: Asked, bytes: &[u8], size: usize) -> Result<(usize, At), Violation> {
    let mut responses = Responses::new(&Limits::DEFAULT);
    responses.ask(asked);
    let mut taken = 0;
    for piece in bytes.chunks(size) {
        let here = responses.look(piece)?;
        taken += here;
        if here < piece.len() {
            break;
        }
    }
    Ok((taken, responses.at))
}

/// The same, in every size of pieces; they must agree.
fn looked(asked: Asked, bytes: &[u8]) -> Result<(usize, At), Violation> {
    let whole = look(asked, bytes, bytes.len().max(1));
    for size in 1..bytes.len().min(200) {
        let pieces = look(asked, bytes, size);
        // What follows an answer in a read of its own is refused there, and cut off where it comes in the same read.
        let is_cut_off = pieces == Err(Violation::Unsolicited) && whole.is_ok_and(|(taken, _)| taken < bytes.len());
        // Of two things that are wrong, the one that is seen first depends on the pieces.
        let is_same = pieces == whole || is_cut_off || (pieces.is_err() && whole.is_err());
        assert!(
            is_same,
            "{:?} in pieces of {size}: {pieces:?}, but {whole:?} as a whole",
            String::from_utf8_lossy(bytes)
        );
    }
    whole
}

#[test]
fn answers_are_followed_to_their_ends() {
    use Asked::{Head, Plain, Upgrade};
    for (asked, bytes, at) in [
        (Plain, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", At::Rest),
        (Plain, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", At::Counted(3)),
        (Plain, "HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", At::Rest),
        (Plain, "HTTP/1.0 200 OK\r\n\r\nto the end", At::Endless),
        (Plain, "HTTP/1.1 204 No Content\r\n\r\n", At::Rest),
        (Plain, "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", At::Rest),
        (Plain, "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", At::Rest),
        (Plain, "HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", At::Rest),
        (Head, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", At::Rest),
        (Head, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", At::Rest),
        (
            Plain,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\n",
            At::Rest,
        ),
        (Plain, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n", At::Rest),
        (Plain, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nabc", At::Chunk(252)),
        (
            Plain,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: </a>\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
            At::Rest,
        ),
        (Upgrade, "HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n\0anything\n", At::Endless),
        (Upgrade, "HTTP/1.1 426 No\r\ncontent-length: 0\r\n\r\n", At::Rest),
        (Plain, "HTTP/1.1 200 OK\r\nx: caf\u{e9}\r\n", At::Fields),
        (Plain, "HTTP/1.", At::Start),
    ] {
        assert_eq!(looked(asked, bytes.as_bytes()), Ok((bytes.len(), at)), "{bytes:?}");
    }
}

/// Why the bytes are refused.
fn violation(bytes: &str) -> Violation {
    looked(Asked::Plain, bytes.as_bytes()).expect_err(bytes)
}

#[test]
fn start_lines_that_are_none_are_refused() {
    for (bytes, want) in [
        ("SSH-2.0-OpenSSH\r\n", Violation::StartLine),
        ("SSH-2.0-OpenSSH", Violation::StartLine),
        ("\r\nHTTP/1.1 200 OK\r\n", Violation::StartLine),
        (" HTTP/1.1 200 OK\r\n", Violation::StartLine),
        ("<html>", Violation::StartLine),
        ("http/1.1 200 OK\r\n", Violation::StartLine),
        ("HTTP/0.9 200 OK\r\n", Violation::StartLine),
        ("HTTP/1.2 200 OK\r\n", Violation::StartLine),
        ("HTTP/2.0 200 OK\r\n", Violation::StartLine),
        ("HTTP/1.1  200 OK\r\n", Violation::StartLine),
        ("HTTP/1.1\t200 OK\r\n", Violation::StartLine),
        ("HTTP/1.1 20 OK\r\n", Violation::StartLine),
        ("HTTP/1.1 2000\r\n", Violation::StartLine),
        ("HTTP/1.1 099 X\r\n", Violation::StartLine),
        ("HTTP/1.1 +20 X\r\n", Violation::StartLine),
        ("HTTP/1.1 200 O\0K\r\n", Violation::Control),
        ("HTTP/1.1 200 OK\nx: y\n\n", Violation::LineEnd),
    ] {
        assert_eq!(violation(bytes), want, "{bytes:?}");
    }
}

#[test]
fn fields_that_can_be_read_in_two_ways_are_refused() {
    for (fields, want) in [
        ("x: y\n\r\n", Violation::LineEnd),
        ("x: y\rz: 1\r\n\r\n", Violation::LineEnd),
        ("x: a\0b\r\n\r\n", Violation::Control),
        ("x: a\x08b\r\n\r\n", Violation::Control),
        ("x : y\r\n\r\n", Violation::FieldName),
        (": y\r\n\r\n", Violation::FieldName),
        ("x y\r\n\r\n", Violation::FieldName),
        ("x: y\r\n z\r\n\r\n", Violation::Folded),
        (" x: y\r\n\r\n", Violation::Folded),
        ("content-length: 2\r\ncontent-length: 3\r\n\r\n", Violation::Length),
        ("content-length: 2\r\ncontent-length: 2\r\n\r\n", Violation::Length),
        ("content-length: 2, 2\r\n\r\n", Violation::Length),
        ("content-length: +2\r\n\r\n", Violation::Length),
        ("content-length: -2\r\n\r\n", Violation::Length),
        ("content-length: 0x2\r\n\r\n", Violation::Length),
        ("content-length: 2 2\r\n\r\n", Violation::Length),
        ("content-length:\r\n\r\n", Violation::Length),
        ("content-length: 18446744073709551616\r\n\r\n", Violation::Length),
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", Violation::TwoFramings),
        ("transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n", Violation::TwoFramings),
        ("transfer-encoding: gzip, chunked\r\n\r\n", Violation::Coding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", Violation::Coding),
        ("transfer-encoding: xchunked\r\n\r\n", Violation::Coding),
        ("transfer-encoding: \x0bchunked\r\n\r\n", Violation::Control),
        ("transfer-encoding: identity\r\n\r\n", Violation::Coding),
    ] {
        assert_eq!(violation(&format!("HTTP/1.1 200 OK\r\n{fields}")), want, "{fields:?}");
    }
}

#[test]
fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (body, want) in [
        ("x\r\n", Violation::Chunk),
        ("\r\n", Violation::Chunk),
        ("-1\r\n", Violation::Chunk),
        ("0x1\r\na\r\n", Violation::Chunk),
        ("1 \r\na\r\n", Violation::Chunk),
        ("1;a=b\r\na\r\n", Violation::Chunk),
        ("1\na\r\n", Violation::Chunk),
        ("1\r\nab\r\n", Violation::Chunk),
        ("1\r\na\n", Violation::Chunk),
        ("10000000000000000\r\n", Violation::Chunk),
        ("00000000000000001\r\n", Violation::Chunk),
        ("0\r\ncontent-length: 3\r\n\r\n", Violation::Trailer),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Violation::Trailer),
        ("0\r\nx: y\n\r\n", Violation::LineEnd),
        ("0\r\n folded\r\n\r\n", Violation::Folded),
    ] {
        assert_eq!(violation(&format!("{chunked}{body}")), want, "{body:?}");
    }
}

#[test]
fn framing_where_there_can_be_none_is_refused() {
    for (bytes, want) in [
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Violation::Coding),
        ("HTTP/1.1 204 N\r\ntransfer-encoding: chunked\r\n\r\n", Violation::Coding),
        ("HTTP/1.1 204 N\r\ncontent-length: 1\r\n\r\n", Violation::Length),
        ("HTTP/1.1 103 E\r\ncontent-length: 1\r\n\r\n", Violation::Length),
        ("HTTP/1.1 101 S\r\nupgrade: x\r\n\r\n", Violation::Switched),
    ] {
        assert_eq!(violation(bytes), want, "{bytes:?}");
    }
}

#[test]
fn what_follows_an_answer_does_not_belong_to_it() {
    for (asked, answer) in [
        (Asked::Plain, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (Asked::Plain, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (Asked::Plain, "HTTP/1.1 204 No\r\n\r\n"),
        (Asked::Plain, "HTTP/1.1 304 No\r\ncontent-length: 2\r\n\r\n"),
        (Asked::Head, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
    ] {
        let bytes = format!("{answer}HTTP/1.1 200 OK\r\n");
        assert_eq!(looked(asked, bytes.as_bytes()), Ok((answer.len(), At::Rest)), "{answer:?}");
    }
    let mut responses = Responses::new(&Limits::DEFAULT);
    assert_eq!(responses.look(b"HTTP/1.1 200 OK\r\n"), Err(Violation::Unsolicited), "before anything was asked");
}

#[test]
fn heads_trailers_and_interim_answers_are_bounded() {
    let limits = Limits::DEFAULT;
    let field = format!("x: {}\r\n", "y".repeat(1000));
    let many = "x: y\r\n".repeat(limits.response_head_fields);
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    for start in [ok, chunked] {
        let check = |rest: &str| look(Asked::Plain, format!("{start}{rest}").as_bytes(), 100);
        assert!(check(&field.repeat(60)).is_ok());
        assert_eq!(check(&field.repeat(62)), Err(Violation::HeadTooLarge));
        assert_eq!(
            check(&"z".repeat(limits.response_head_bytes + 1)),
            Err(Violation::HeadTooLarge),
            "a name without an end"
        );
        assert!(check(&format!("{many}\r\n")).is_ok());
        assert_eq!(check(&format!("{many}x: y\r\n")), Err(Violation::TooManyFields));
    }
    let interim = "HTTP/1.1 103 Early\r\n\r\n";
    assert!(look(Asked::Plain, interim.repeat(limits.interim_responses).as_bytes(), 100).is_ok());
    assert_eq!(
        look(Asked::Plain, interim.repeat(limits.interim_responses + 1).as_bytes(), 100),
        Err(Violation::Interim)
    );
}

#[test]
fn no_bytes_and_no_cuts_lead_it_astray() {
    // Answers mutated byte by byte: it never panics, never takes more than there is, and says the same however they are cut.
    let answer =
        b"HTTP/1.1 200 OK\r\ncontent-type: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n";
    for at in 0..answer.len() {
        for byte in [0, b'\t', b'\n', b'\r', b' ', b'0', b'1', b':', b';', b'a', 0x7f, 0xff] {
            let mut bytes = answer.to_vec();
            bytes[at] = byte;
            let _judged = looked(Asked::Plain, &bytes);
            bytes = answer.to_vec();
            bytes.insert(at, byte);
            let _judged = looked(Asked::Plain, &bytes);
        }
    }
}
