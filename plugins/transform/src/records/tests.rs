use super::*;

/// Doubles the JSON, and leaves `x` out.
#[derive(Default)]
struct Twice(usize);

impl Change for Twice {
    fn change(&mut self, json: &[u8]) -> Option<Vec<u8>> {
        (json != b"x").then(|| json.repeat(2))
    }

    fn overflows(&mut self) {
        self.0 += 1;
    }
}

fn run(framing: Framing, on_overflow: Otherwise, pieces: &[&[u8]]) -> (String, usize) {
    let mut records = Records::new(framing, Twice::default(), 30, on_overflow);
    let mut out: Vec<u8> = pieces.iter().flat_map(|piece| records.push(piece)).collect();
    out.extend(records.end());
    (String::from_utf8(out).unwrap(), records.change.0)
}

/// No record may be longer than 30 bytes.
const LINES: [(&str, &str); 7] = [
    ("", ""),
    ("1\n2\n", "11\n22\n"),
    ("1\r\n\n \n2", "11\r\n\n \n22"),
    ("x\n1\nx", "11\n"),
    ("1\n2222222222333333333344444444445555555555\n5\n", "11\n55\n"),
    ("1\n22222222223333333333444444444455555555554444444455555555556666666666", "11\n"),
    ("12345678901234567890", "1234567890123456789012345678901234567890"),
];

const EVENTS: [(&str, &str); 10] = [
    ("data: 1\n\n", "data: 11\n\n"),
    ("data:1\r\n\r\ndata: 2\r\rdata:  3\n\n", "data: 11\r\n\r\ndata: 22\r\rdata:  3 3\n\n"),
    ("event: a\ndata: 1\nid: 7\n\n", "event: a\ndata: 11\nid: 7\n\n"),
    ("data: 1\nid: 7\ndata: 2\n\n", "data: 1\n21\n2\nid: 7\n\n"),
    (": hello\n\nid: 7\n\n\n", ": hello\n\nid: 7\n\n\n"),
    ("data: x\n\ndata: 1\n\n", "data: 11\n\n"),
    ("data: [DONE]\n\n", "data: [DONE]\n\n"),
    ("data\n\ndatax: 1\n\n", "data\n\ndatax: 1\n\n"),
    ("data: 1", "data: 11"),
    ("data: 1111111111222222222233\nid: 7\n\ndata: 2\n\n", "data: 22\n\n"),
];

#[test]
fn records_are_changed_one_by_one_however_they_are_cut() {
    let lines = LINES.iter().map(|case| (Framing::Lines, case));
    for (framing, (text, want)) in lines.chain(EVENTS.iter().map(|case| (Framing::Events, case))) {
        assert_eq!(run(framing, Otherwise::Refuse, &[text.as_bytes()]).0, *want, "{text:?}");
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(run(framing, Otherwise::Refuse, &pieces).0, *want, "{text:?} in pieces of {size}");
        }
        for cut in 0..text.len() {
            let (front, back) = text.as_bytes().split_at(cut);
            assert_eq!(run(framing, Otherwise::Refuse, &[front, b"", back]).0, *want, "{text:?} cut at {cut}");
        }
    }
}

#[test]
fn what_is_too_long_passes_or_is_left_out() {
    let events = "data: 1\n\ndata: 1111111111222222222233\ndata: 4\n\ndata: 2\n\n";
    let lines = "1\n2222222222333333333344444444445555555555\n5\n";
    for (framing, text, want) in [
        (Framing::Lines, lines, "11\n2222222222333333333344444444445555555555\n55\n"),
        (Framing::Events, events, "data: 11\n\ndata: 1111111111222222222233\ndata: 4\n\ndata: 22\n\n"),
    ] {
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(run(framing, Otherwise::Pass, &pieces), (want.to_owned(), 1), "in pieces of {size}");
            assert_eq!(run(framing, Otherwise::Refuse, &pieces).1, 1);
        }
    }
}

#[test]
fn no_more_than_a_record_is_held() {
    for framing in [Framing::Lines, Framing::Events] {
        let mut records = Records::new(framing, Twice::default(), 30, Otherwise::Refuse);
        for _ in 0..10_000 {
            assert!(records.push(b"data: 123").is_empty());
            assert!(records.held.capacity() < 200, "{}", records.held.capacity());
        }
    }
}
