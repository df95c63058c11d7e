//! What the page about `auth` shows, over real sockets.

mod certificates;
mod claims;
mod provider;

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

const TOKEN: &str = include_str!("../../../plugins/auth/testdata/example.jwt");

/// The example of the page: a token of an issuer whose keys are fetched, an API key, and a table of rules.
#[test]
fn the_example_of_the_page_lets_in_whom_it_names() {
    let origin = Origin::plain();
    let idp = Origin::start(|_| Answer::ok(include_str!("../../../plugins/auth/testdata/jwks.json")));
    let (at_origin, at_idp) = (origin.to_string(), idp.to_string());
    let page = docs::page("docs/policies/auth.md");
    let printed = docs::configurations(&page).remove(0);
    let places = [("127.0.0.1:9001", at_origin.as_str()), ("127.0.0.1:9100", at_idp.as_str())];
    let gateway = Gateway::start(&docs::here(&printed, &places), &[]);
    let bearer = format!("Bearer {}", TOKEN.trim());
    let token = ("authorization", bearer.as_str());
    let key = ("x-api-key", "key-of-ann");
    for (method, path, credential, want) in [
        ("GET", "/status", None, Ok(None)),
        ("GET", "/orders/7", Some(token), Ok(Some("tom"))),
        ("PUT", "/orders/7", Some(token), Ok(Some("tom"))),
        ("GET", "/admin/users", Some(token), Ok(Some("tom"))),
        ("GET", "/tenants/acme/users", Some(token), Ok(Some("tom"))),
        ("GET", "/orders/7", Some(key), Ok(Some("ann"))),
        ("GET", "/orders/7", None, Err((401, "token_missing"))),
        ("PUT", "/orders/7", Some(key), Err((403, "scope_missing"))),
        ("GET", "/admin/users", Some(key), Err((403, "role_missing"))),
        ("GET", "/tenants/other/users", Some(token), Err((403, "condition_not_met"))),
        ("GET", "/tenants/acme/users", Some(key), Err((403, "condition_not_met"))),
        ("DELETE", "/orders/7", Some(key), Err((403, "no_rule"))),
        ("GET", "/status", Some(("x-api-key", "wrong")), Err((401, "api_key_unknown"))),
        ("GET", "/orders/7", Some(("authorization", "Bearer a.b.c")), Err((401, "token_malformed"))),
    ] {
        let mut fields = vec![("host", "a.test"), ("x-user", "root"), ("x-plan", "platinum")];
        fields.extend(credential);
        let answer = gateway.ask(method, path, &fields, "");
        match want {
            Err((status, code)) => {
                assert_eq!(answer.status(), status, "{method} {path}");
                assert!(answer.text().contains(code), "{method} {path}: {}", answer.text());
            }
            Ok(user) => {
                assert_eq!(answer.status(), 200, "{method} {path}: {}", answer.text());
                let seen = origin.last();
                assert_eq!(seen.get("x-user"), user, "{method} {path}");
                let kept = [seen.get("authorization"), seen.get("x-api-key")];
                assert_eq!(kept, [None, None], "the upstream does not get the credential");
            }
        }
    }
    assert_eq!(origin.begun(), 6);
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["auth_admitted.jwt"]), 4.0);
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["auth_refused.api_key.scope_missing"]), 1.0);
}

/// Its second example: API keys whose plans are the next filter's to read. A client's own word for its plan does not count.
#[test]
fn a_consumer_has_the_rate_of_its_plan() {
    let origin = Origin::plain();
    let printed = docs::configurations(&docs::page("docs/policies/auth.md")).remove(1);
    let gateway = Gateway::start(&docs::here(&printed, &[("127.0.0.1:9001", &*origin.to_string())]), &[]);
    let fields = [("host", "a.test"), ("x-api-key", "key-of-ann"), ("x-consumer", "root"), ("x-plan", "none")];
    let answer = gateway.ask("GET", "/orders/7", &fields, "");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let policy = answer.get("ratelimit-policy").unwrap_or_default();
    assert!(policy.contains("q=1000"), "{policy}");
    assert_eq!(origin.last().get("x-api-key"), None);
    assert_eq!(gateway.ask("GET", "/orders/7", &[("host", "a.test")], "").status(), 401);
}
