//! What the inspector passes is what the HTTP library's own parser finds, wherever the bytes are split.

use portcullis_core::wire::{Inspector, Next};

/// What was passed, and how many requests that were.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    bytes: usize,
    heads: u64,
    refused: Option<&'static str>,
}

/// Inspects the bytes, but for the first, which says in what pieces they come.
pub fn heads(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let whole = inspect(bytes, bytes.len().max(1));
    assert_eq!(inspect(bytes, usize::from(*size).max(1)), whole, "in pieces of {size}");
    if let Some(whole) = whole {
        let found = parsed(bytes.get(..whole.bytes).unwrap());
        assert_eq!(found, whole.heads, "the parser finds another number of requests");
    }
}

/// Nothing for what is not HTTP/1.
fn inspect(bytes: &[u8], size: usize) -> Option<Passed> {
    let mut inspector = Inspector::default();
    let (mut passed, mut come) = (0, 0);
    while come < bytes.len() {
        come = bytes.len().min(come + size);
        loop {
            let seen = inspector.inspect(bytes.get(passed..come).unwrap());
            passed += seen.passed;
            match seen.next {
                Next::More => break,
                Next::Decision => inspector.decide(false),
                Next::Refused(refusal) => {
                    let refused = Some(refusal.reason.word());
                    return Some(Passed { bytes: passed, heads: inspector.heads(), refused });
                }
            }
        }
    }
    (!inspector.is_off()).then(|| Passed { bytes: passed, heads: inspector.heads(), refused: None })
}

/// How many requests there are, the last of which may be cut off in its body.
fn parsed(mut bytes: &[u8]) -> u64 {
    let mut heads = 0;
    // What the inspector lets stand before a request on its own: an empty line.
    while !bytes.is_empty() && bytes != b"\r\n" {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(len) = request.parse(bytes).expect("the parser takes what passed") else {
            panic!("only whole heads pass");
        };
        heads += 1;
        let value = |name: &str| {
            request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
        };
        let rest = bytes.get(len..).unwrap();
        bytes = match (value("content-length"), value("transfer-encoding")) {
            (None, None) => rest,
            (Some(length), None) => {
                let length: usize = core::str::from_utf8(length).unwrap().trim().parse().unwrap();
                rest.get(length..).unwrap_or_default()
            }
            (None, Some(_)) => chunked(rest),
            (Some(_), Some(_)) => panic!("two framings pass"),
        };
    }
    heads
}

/// What follows a chunked body.
fn chunked(mut bytes: &[u8]) -> &[u8] {
    loop {
        let Ok(httparse::Status::Complete((len, size))) = httparse::parse_chunk_size(bytes) else {
            assert!(bytes.is_empty(), "only whole lines pass");
            return bytes;
        };
        bytes = bytes.get(len..).unwrap();
        if size == 0 {
            break;
        }
        let Some(rest) = usize::try_from(size).ok().and_then(|size| bytes.get(size..)) else { return b"" };
        if rest.is_empty() {
            return rest;
        }
        bytes = rest.strip_prefix(b"\r\n").expect("a chunk ends as its size says");
    }
    if bytes.is_empty() {
        return bytes;
    }
    let mut fields = [httparse::EMPTY_HEADER; 100];
    match httparse::parse_headers(bytes, &mut fields).expect("the parser takes the trailers") {
        httparse::Status::Complete((len, _)) => bytes.get(len..).unwrap(),
        httparse::Status::Partial => panic!("only whole trailers pass"),
    }
}
