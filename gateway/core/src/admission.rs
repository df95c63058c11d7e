//! What is asked of every request's head, whatever version of HTTP it came in, and what is made of it.
//!
//! HTTP/1 bytes have passed [`crate::wire`] by now; HTTP/2 has no bytes to look at, so what the two share is judged here, on the
//! fields as they were parsed. Runs before routing and before any filter: all of them see the same host and the same path.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Version};

use crate::authority::is_authority;
use crate::limits::{HEAD_FIELDS, TARGET_BYTES};
use crate::path::{self, Slashes};
use crate::reply::Failure;
use crate::wire;

/// What a listener lets in where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Fields with an underscore in their name.
    pub underscores: Underscores,
    /// Slashes in disguise.
    pub slashes: Slashes,
}

/// What becomes of fields with an underscore in their name.
///
/// CGI and its heirs read `X_User` and `X-User` as the same variable, so the one passes for the other behind a gateway that guards
/// only the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// The field is left out, as nginx does.
    #[default]
    Drop,
    /// The request is refused.
    Reject,
    /// They are fields like any other, as on Envoy.
    Allow,
}

/// What the gateway itself needs to know of a request.
#[derive(Debug)]
pub struct Admission {
    /// Whom it is for.
    pub host: Option<HeaderValue>,
    /// What sent it.
    pub user_agent: Option<HeaderValue>,
    /// The path in its one form, with the query as it came. As it came altogether if the request is refused.
    pub path: PathAndQuery,
    /// Why it goes nowhere.
    pub refused: Option<Failure>,
}

/// Judges a head, and makes its fields agree with its target.
pub fn admit(head: &mut Parts, rules: Rules) -> Admission {
    let noted = Noted::of(&head.headers);
    let (underscored, user_agent) = (noted.underscored, noted.user_agent.cloned());
    let mut host = noted.host.cloned();
    let mut refused = refusal(head, &noted, rules).err();
    if underscored && rules.underscores == Underscores::Drop {
        drop_underscored(&mut head.headers);
    }
    if let Some(authority) = head.uri.authority() {
        // An absolute target overrides `Host` (RFC 9112 §3.2.2); HTTP/2 has no `Host` to begin with.
        if let Ok(authority) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(header::HOST, authority.clone());
            host = Some(authority);
        }
    }
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let normal = if refused.is_none() { path::normalise(&path, rules.slashes) } else { Ok(None) };
    let path = match normal {
        Ok(normal) => normal.unwrap_or(path),
        Err(_) => {
            refused = Some(Failure::BadPath);
            path
        }
    };
    Admission { host, user_agent, path, refused }
}

/// The fields that the gateway itself looks at, found in one pass.
#[derive(Default)]
struct Noted<'a> {
    hosts: usize,
    host: Option<&'a HeaderValue>,
    user_agent: Option<&'a HeaderValue>,
    lengths: usize,
    length: Option<&'a HeaderValue>,
    underscored: bool,
}

impl<'a> Noted<'a> {
    fn of(fields: &'a HeaderMap) -> Self {
        let mut noted = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "host" => (noted.hosts, noted.host) = (noted.hosts + 1, Some(value)),
                "user-agent" => noted.user_agent = Some(value),
                "content-length" => (noted.lengths, noted.length) = (noted.lengths + 1, Some(value)),
                "accept" | "accept-encoding" | "accept-language" | "authorization" | "content-type" | "cookie" => {}
                other => noted.underscored |= has_underscore(other),
            }
        }
        noted
    }
}

fn has_underscore(name: &str) -> bool {
    name.bytes().any(|byte| byte == b'_')
}

/// Refuses what could be read in two ways, or asks for what is not served.
fn refusal(head: &Parts, noted: &Noted<'_>, rules: Rules) -> Result<(), Failure> {
    match head.version {
        // Nothing else comes without `Host`.
        Version::HTTP_11 if noted.hosts == 0 => return Err(wire::refused(&head.headers).failure()),
        Version::HTTP_2 => multiplexed(head, noted)?,
        _ => {}
    }
    if head.method == Method::CONNECT {
        return Err(Failure::NotImplemented);
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Failure::BadPath);
    }
    if noted.underscored && rules.underscores == Underscores::Reject {
        return Err(Failure::BadField);
    }
    Ok(())
}

/// What HTTP/1 was asked byte by byte. Connection fields and sizes are left to the HTTP/2 library, which resets such streams.
fn multiplexed(head: &Parts, noted: &Noted<'_>) -> Result<(), Failure> {
    let authority = head.uri.authority().map(Authority::as_str);
    let host = noted.host.map(HeaderValue::as_bytes);
    let agree = match (authority, host) {
        (Some(authority), None) => is_authority(authority.as_bytes()),
        (Some(authority), Some(host)) => host.eq_ignore_ascii_case(authority.as_bytes()) && is_authority(host),
        (None, Some(host)) => is_authority(host),
        (None, None) => false,
    };
    if !agree || noted.hosts > 1 {
        return Err(Failure::BadHost);
    }
    if noted.lengths > 1 || noted.length.is_some_and(|length| !is_number(length)) {
        // The library compares a single one with the body.
        return Err(Failure::BadFraming);
    }
    if head.headers.len() > HEAD_FIELDS {
        return Err(Failure::HeadTooLarge);
    }
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES) {
        return Err(Failure::UriTooLong);
    }
    Ok(())
}

fn is_number(length: &HeaderValue) -> bool {
    (1..=19).contains(&length.len()) && length.as_bytes().iter().all(u8::is_ascii_digit)
}

fn drop_underscored(fields: &mut HeaderMap) {
    let doomed: Vec<HeaderName> = fields.keys().filter(|name| has_underscore(name.as_str())).cloned().collect();
    doomed.iter().for_each(|name| _ = fields.remove(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, target: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let (method, target) = target.split_once(' ').unwrap();
        let request = http::Request::builder().version(version).method(method).uri(target);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn shown(version: Version, target: &str, fields: &[(&'static str, &'static str)], rules: Rules) -> String {
        let mut head = head(version, target, fields);
        let Admission { host, path, refused, .. } = admit(&mut head, rules);
        if let Some(refused) = refused {
            return refused.code().to_owned();
        }
        let host = host.unwrap_or(HeaderValue::from_static("-"));
        assert_eq!(head.headers.get("host"), Some(&host));
        let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).filter(|name| *name != "host").collect();
        format!("{} {path} {}", host.to_str().unwrap(), names.join(","))
    }

    #[test]
    fn http2_is_held_to_what_http1_is() {
        for (target, fields, want) in [
            ("GET http://a/x", &[][..], "a /x "),
            ("GET http://a/x", &[("host", "A")], "a /x "),
            ("GET /x", &[("host", "a")], "a /x "),
            ("GET http://a/x", &[("host", "b")], "bad_host"),
            ("GET http://a/x", &[("host", "a"), ("host", "a")], "bad_host"),
            ("GET http://u@a/x", &[], "bad_host"),
            ("GET /x", &[], "bad_host"),
            ("GET /x", &[("host", "a,b")], "bad_host"),
            ("POST http://a/x", &[("content-length", "5")], "a /x content-length"),
            ("POST http://a/x", &[("content-length", "5"), ("content-length", "5")], "bad_framing"),
            ("POST http://a/x", &[("content-length", "+5")], "bad_framing"),
            ("POST http://a/x", &[("content-length", "5,5")], "bad_framing"),
            ("CONNECT a:443", &[], "not_implemented"),
            ("GET http://a/../x", &[], "bad_path"),
            ("GET *", &[("host", "a")], "bad_path"),
            ("OPTIONS *", &[("host", "a")], "a * "),
        ] {
            assert_eq!(shown(Version::HTTP_2, target, fields, Rules::default()), want, "{target} {fields:?}");
        }
    }

    #[test]
    fn heads_over_http2_have_as_many_fields_as_over_http1() {
        let mut parts = head(Version::HTTP_2, "GET http://a/", &[]);
        for count in 0..=HEAD_FIELDS {
            parts.headers.append("x-a", HeaderValue::from(count));
        }
        assert_eq!(admit(&mut parts, Rules::default()).refused, Some(Failure::HeadTooLarge));
        parts.headers.clear();
        assert_eq!(admit(&mut parts, Rules::default()).refused, None);
        let long = format!("GET http://a/{}", "a".repeat(TARGET_BYTES));
        assert_eq!(shown(Version::HTTP_2, &long, &[], Rules::default()), "uri_too_long");
    }

    #[test]
    fn names_with_underscores_are_left_out_refused_or_let_in() {
        let fields = [("host", "a"), ("x_user", "1"), ("x-user", "2"), ("x_user", "3")];
        for (underscores, want) in [
            (Underscores::Drop, "a / x-user"),
            (Underscores::Reject, "bad_field"),
            (Underscores::Allow, "a / x_user,x-user"),
        ] {
            let rules = Rules { underscores, ..Rules::default() };
            assert_eq!(shown(Version::HTTP_11, "GET /", &fields, rules), want);
        }
        let rules = Rules { underscores: Underscores::Reject, ..Rules::default() };
        assert_eq!(shown(Version::HTTP_11, "GET /", &[("host", "a"), ("x-user", "2")], rules), "a / x-user");
    }

    #[test]
    fn an_absolute_target_overrides_host_and_what_has_neither_was_refused_before() {
        let rules = Rules::default();
        assert_eq!(shown(Version::HTTP_11, "GET http://b/x", &[("host", "a")], rules), "b /x ");
        assert_eq!(shown(Version::HTTP_10, "GET http://b?x", &[], rules), "b /?x ");
        assert_eq!(shown(Version::HTTP_11, "GET http://b/x", &[], rules), "bad_host");
        assert_eq!(shown(Version::HTTP_11, "GET /x", &[("x-portcullis-refused", "length")], rules), "bad_framing");
        let stray = [("host", "a"), ("x-portcullis-refused", "length")];
        assert_eq!(shown(Version::HTTP_11, "GET /x", &stray, rules), "a /x x-portcullis-refused", "a client's own");
    }
}
