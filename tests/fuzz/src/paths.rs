//! Every path has one form or none, and that form stays below the root.

use http::uri::PathAndQuery;
use portcullis_core::path::{Slashes, normalise};

/// Normalises the bytes as a target, under each policy.
pub fn paths(bytes: &[u8]) {
    let Ok(target) = PathAndQuery::try_from(bytes) else { return };
    for slashes in [Slashes::Reject, Slashes::Keep, Slashes::Decode] {
        let Ok(normal) = normalise(&target, slashes) else { continue };
        let normal = normal.unwrap_or_else(|| target.clone());
        let again = normalise(&normal, slashes).expect("what is normal has a normal form");
        assert_eq!(again.unwrap_or_else(|| normal.clone()), normal, "normalising twice changes something");
        assert_eq!(normal.query(), target.query(), "the query is changed");
        check(normal.path());
    }
}

fn check(path: &str) {
    if path == "*" {
        return;
    }
    assert!(path.starts_with('/') && path.is_ascii() && !path.contains("//"), "{path}");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>?[\\]^`{|}".contains(&byte)), "{path}");
    // As an origin would read it that drops parameters and decodes once.
    let decoded = path.to_ascii_uppercase().replace("%2F", "/").replace("%5C", "/");
    for segment in decoded.split('/') {
        let stem = segment.split(';').next().unwrap();
        assert!(!matches!(stem, "." | ".."), "{path}");
    }
    let mut rest = path;
    while let Some((_, after)) = rest.split_once('%') {
        let digits = after.get(..2).expect("an escape has two digits");
        let byte = u8::from_str_radix(digits, 16).expect("an escape is of hexadecimal digits");
        assert_eq!(digits, digits.to_ascii_uppercase(), "{path}");
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        assert!(!unreserved && !byte.is_ascii_control(), "{path}");
        rest = after;
    }
}
