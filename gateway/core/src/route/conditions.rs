//! What a request must meet besides host and path: methods, header values, query parameters.
//!
//! **Invariant:** two rules that demand different values of the same header or parameter can never both be met. So a
//! field that a request repeats meets no condition on it: there is no saying which value the upstream would take.

use super::Request;
use http::{HeaderMap, HeaderName, Method};

/// The methods, header values and query parameters a rule asks for. Empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Any of these; none means every method.
    pub methods: Vec<Method>,
    /// Each of these exactly once in the request, with exactly this value.
    pub headers: Vec<(HeaderName, String)>,
    /// Each of these exactly once in the query, with exactly this value once decoded.
    pub query: Vec<(String, String)>,
}

impl Conditions {
    /// How specific they are, as far as methods and the number of conditions go: greater comes first.
    pub(super) fn rank(&self) -> (bool, usize) {
        (!self.methods.is_empty(), self.headers.len() + self.query.len())
    }

    pub(super) fn met_by(&self, request: &Request<'_>) -> bool {
        let query = request.query.unwrap_or_default();
        (self.methods.is_empty() || self.methods.contains(request.method))
            && self.headers.iter().all(|(name, value)| header_is(request.headers, name, value))
            && self.query.iter().all(|(name, value)| parameter_is(query, name, value))
    }

    /// Whether one request could meet both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        methods && !contradict(&self.headers, &other.headers) && !contradict(&self.query, &other.query)
    }
}

fn contradict<K: PartialEq>(these: &[(K, String)], those: &[(K, String)]) -> bool {
    these.iter().any(|(name, value)| those.iter().any(|(other, wanted)| name == other && value != wanted))
}

fn header_is(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next().is_some_and(|found| found.as_bytes() == value.as_bytes()) && values.next().is_none()
}

fn parameter_is(query: &str, name: &str, value: &str) -> bool {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(found, _)| decodes_to(found, name)).map(|(_, value)| value);
    values.next().is_some_and(|found| decodes_to(found, value)) && values.next().is_none()
}

/// Compares without building the decoded text: most lookups end at the first byte that differs.
fn decodes_to(encoded: &str, plain: &str) -> bool {
    let mut rest = encoded.as_bytes();
    let decoded = std::iter::from_fn(|| {
        let (byte, after) = next_decoded(rest)?;
        rest = after;
        Some(byte)
    });
    decoded.eq(plain.bytes())
}

/// One byte of `application/x-www-form-urlencoded` text; a `%` that begins no escape stands for itself, as in browsers.
fn next_decoded(text: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, after @ ..] = text
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some((high << 4 | low, after));
    }
    let (byte, after) = text.split_first()?;
    Some((if *byte == b'+' { b' ' } else { *byte }, after))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_query_parameter_is_compared_decoded_and_must_be_there_once() {
        for (query, met) in [
            ("tag=a b", true),
            ("tag=a+b", true),
            ("tag=a%20b", true),
            ("x=1&t%61g=a%20b&y", true),
            ("tag=a%2520b", false),
            ("tag=a%20b&tag=c", false),
            ("tag=c&tag=a%20b", false),
            ("tag=a", false),
            ("tag=a bc", false),
            ("tag", false),
            ("Tag=a b", false),
            ("", false),
        ] {
            assert_eq!(parameter_is(query, "tag", "a b"), met, "{query}");
        }
        assert!(parameter_is("debug", "debug", ""));
        assert!(parameter_is("rate=100%", "rate", "100%"));
        assert!(parameter_is("rate=%zz%2", "rate", "%zz%2"));
        assert!(!parameter_is("", "debug", ""));
    }

    #[test]
    fn a_header_that_is_repeated_meets_no_condition_on_it() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-beta");
        assert!(!header_is(&headers, &name, "1"));
        headers.append(&name, HeaderValue::from_static("1"));
        assert!(header_is(&headers, &name, "1"));
        assert!(!header_is(&headers, &name, "2"));
        headers.append(&name, HeaderValue::from_static("2"));
        assert!(!header_is(&headers, &name, "1"));
        assert!(!header_is(&headers, &name, "2"));
    }
}
