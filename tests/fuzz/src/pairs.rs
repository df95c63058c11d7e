//! A guest's header map is refused or taken, and what is taken can be written to a wire.

use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use portcullis_abi::pairs::{self, Pairs};
use portcullis_core::headers::{Headers, Scheme};

/// Takes the bytes for the wire form of a map, and sets that map where guests may.
pub fn pairs(bytes: &[u8]) {
    let Ok(map) = Pairs::parse(bytes) else { return };
    let all: Vec<_> = map.clone().collect();
    let mut written = Vec::new();
    pairs::write(|| map.clone(), |piece| written.extend_from_slice(piece));
    assert_eq!(written.len(), pairs::size(map.clone()));
    assert_eq!(Pairs::parse(&written).unwrap().collect::<Vec<_>>(), all, "written and read, it is another");
    let path = PathAndQuery::from_static("/");
    for mut headers in [
        Headers::request(Method::GET, Scheme::Http, path, HeaderMap::new()),
        Headers::response(StatusCode::OK, HeaderMap::new()),
        Headers::trailers(HeaderMap::new()),
    ] {
        let left_out = headers.set_all(map.clone(), 100);
        assert!(left_out <= all.len());
        check(&headers);
    }
}

fn check(headers: &Headers) {
    for (name, value) in headers.iter() {
        let token = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
        let (name, pseudo) = name.strip_prefix(b":").map_or((name, false), |name| (name, true));
        assert!(!name.is_empty() && name.iter().all(token), "{name:?}");
        assert!(value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()), "{value:?}");
        assert!(!matches!(name, b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive"), "{name:?}");
        assert!(!pseudo || !value.contains(&b' '), "{value:?}");
    }
    let fields = headers.fields();
    assert!(fields.get_all("content-length").iter().count() <= 1 && fields.get_all("host").iter().count() <= 1);
    assert!(fields.len() <= 100);
}
