//! Every beginning of a connection is a PROXY protocol header, the start of one, or refused, and reading takes nothing behind it.

use portcullis_core::proxy_protocol::{Parsed, is_begun, parse};

/// Reads the bytes as told, then compares with reading all of them at once.
pub fn proxied(bytes: &[u8]) {
    let mut have = 0;
    let end = loop {
        match parse(bytes.get(..have).unwrap()) {
            Ok(Parsed::Partial(more)) => {
                assert!(more > 0, "waits for nothing");
                have += more;
                if have > bytes.len() {
                    return;
                }
            }
            end => break end,
        }
    };
    assert!(have <= 16 + 2048, "{have} bytes were read");
    let Ok(whole) = end else { return };
    assert_ne!(is_begun(bytes.get(..3).unwrap()), Some(false), "a header that does not begin like one");
    for less in 0..have {
        let part = parse(bytes.get(..less).unwrap());
        assert!(matches!(part, Ok(Parsed::Partial(_))), "{less} of {have} bytes are {part:?}, all are {whole:?}");
    }
}
