//! The plugins that come with the gateway, doing their work in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::wire::Message;
use serde_json::{Value, json};

/// Tokens for `alice` of `https://idp.test`, good until 2100; `EXPIRED` was until 2001.
pub(crate) const HS256: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhbGljZSIsImlzcyI6Imh0dHBzOi8vaWRwLnRlc3QiLCJhdWQiOiJhcGkiLCJleHAiOjQxMDI0NDQ4MDB9.n3kQAyptUasggl0REmF8xeQ1wl4Ffr1nrOWJmGStO4o";
const EXPIRED: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhbGljZSIsImlzcyI6Imh0dHBzOi8vaWRwLnRlc3QiLCJhdWQiOiJhcGkiLCJleHAiOjEwMDAwMDAwMDB9.yvR7fof-p_jI_9KbTZB5PwZCl-XLQ8pteWmUSTqMDJE";
/// ES256 under two keys, for a key set that changes.
pub(crate) const FIRST: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImZpcnN0In0.eyJzdWIiOiJhbGljZSIsImlzcyI6Imh0dHBzOi8vaWRwLnRlc3QiLCJhdWQiOiJhcGkiLCJleHAiOjQxMDI0NDQ4MDB9.LGVWwQ2z3ywXoI_37OwwQxA7Ma0l0Jn5dS7-5M1jo-GbsUguZ1GHAaQlZ07pFdJJQkIcsfFaZQROKypj7SOhOg";
pub(crate) const SECOND: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6InNlY29uZCJ9.eyJzdWIiOiJhbGljZSIsImlzcyI6Imh0dHBzOi8vaWRwLnRlc3QiLCJhdWQiOiJhcGkiLCJleHAiOjQxMDI0NDQ4MDB9.O9RuBd_9FdAai3MmKXt2B_mLs0ykMZtAEXo20D_VhEVhEl5NSfDVnSDRnPWDavkjkU9z15X-8ZAagN39GF1WGA";
pub(crate) const FIRST_KEY: &str = r#"{"kty":"EC","crv":"P-256","kid":"first","alg":"ES256","use":"sig","x":"3cMrl39otcONsowZ7qXGQMdwAOD_i0Evy-DlJfGq75s","y":"srMvAzPBdbanG_aqju_IuGwlDlQ2Xf5M6pkrdN5GHus"}"#;
pub(crate) const SECOND_KEY: &str = r#"{"kty":"EC","crv":"P-256","kid":"second","alg":"ES256","use":"sig","x":"7HXiLse6OwTZm0CnEvssUXyeE3oHlKizpAQHVlA_Od0","y":"HpW8qJ_cpFPr7f92zJFaVOmuE36b2F07viWhjiHZAzw"}"#;

pub(crate) fn code(answer: &Message) -> (u16, String) {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status(), problem["code"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn bearer(gateway: &Gateway, token: &str) -> Message {
    gateway.ask("GET", "/", &[("authorization", &format!("Bearer {token}"))], "")
}

#[test]
fn auth_lets_good_tokens_pass_and_says_what_is_wrong_with_others() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { auth: {guest:auth} }
filters:
  - plugin: auth
    config:
      issuer: https://idp.test
      audience: api
      keys: [{ kid: a, alg: HS256, secret: "at least thirty-two bytes of text" }]
      forward_claims: { sub: x-user }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let forged = format!("{}A", &HS256[..HS256.len() - 1]);
    for (token, want) in [
        (EXPIRED, "token_expired"),
        (forged.as_str(), "token_signature"),
        ("x", "token_malformed"),
        (FIRST, "token_unknown_key"),
    ] {
        assert_eq!(code(&bearer(&gateway, token)), (401, want.to_owned()), "{token}");
    }
    assert_eq!(code(&gateway.get("/")), (401, "token_missing".to_owned()));
    assert_eq!(origin.begun(), 0);
    let answer = gateway.ask("GET", "/", &[("authorization", &format!("Bearer {HS256}")), ("x-user", "root")], "");
    assert_eq!(answer.status(), 200);
    assert_eq!(origin.last().headers.get_all("x-user").iter().collect::<Vec<_>>(), ["alice"]);
}

#[test]
fn auth_follows_an_issuer_that_changes_its_keys() {
    let rotated = Arc::new(AtomicBool::new(false));
    let seen = rotated.clone();
    let idp = Origin::start(move |_| {
        let key = if seen.load(Ordering::SeqCst) { SECOND_KEY } else { FIRST_KEY };
        Answer::ok(format!("{{\"keys\":[{key}]}}"))
    });
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] }, idp: { endpoints: ["{idp}"] } }
plugins: { auth: {guest:auth} }
filters:
  - plugin: auth
    config: { issuer: https://idp.test, audience: api, jwks: { upstream: idp, path: /jwks.json, refresh: 1s } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("idp", &idp)],
    );
    assert_eq!(bearer(&gateway, FIRST).status(), 200, "a request that comes before the keys waits for them");
    assert_eq!(code(&bearer(&gateway, SECOND)).0, 401);
    rotated.store(true, Ordering::SeqCst);
    eventually("the new key counts", || bearer(&gateway, SECOND).status() == 200);
    assert_eq!(code(&bearer(&gateway, FIRST)), (401, "token_unknown_key".to_owned()));
    assert_eq!(idp.last().target(), "/jwks.json");
}

#[test]
fn rate_limits_hold_over_all_workers() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { limit: {guest:rate-limit} }
filters: [{ plugin: limit, config: { key: { header: x-key }, rate: 6/h, burst: 6 } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let ask = |key: &str| gateway.ask("GET", "/", &[("x-key", key)], "");
    let statuses: Vec<_> = (0..20).map(|_| ask("a").status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 6, "{statuses:?}");
    let over = ask("a");
    assert_eq!(code(&over), (429, "rate_limited".to_owned()));
    assert!(over.get("retry-after").is_some_and(|after| after.parse::<u32>().is_ok_and(|after| after > 0)));
    let other = ask("b");
    assert!(other.status() == 200 && other.get("ratelimit").is_some() && other.get("ratelimit-policy").is_some());
}

#[test]
fn transform_changes_headers_and_json_both_ways() {
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/text" => Answer::ok("plain").header("content-type", "text/plain"),
        "/bad" => Answer::ok("{").header("content-type", "application/json"),
        _ => Answer::ok(r#"{"id":1,"secret":"x","mail":"a@b"}"#)
            .header("content-type", "application/json")
            .header("x-powered-by", "us"),
    });
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { transform: {guest:transform} }
filters:
  - plugin: transform
    config:
      request:
        headers: { remove: [x-drop], rename: { x-old: x-new }, set: { x-set: "1" } }
        body: { remove: [/drop], set: { /a/b: [1, 2] } }
      response:
        headers: { remove: [x-powered-by] }
        body: { remove: [/secret], rename: { /mail: email } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let sent = [("content-type", "application/json"), ("x-drop", "1"), ("x-old", "2")];
    let answer = gateway.ask("POST", "/", &sent, r#"{"drop":true,"keep":"é"}"#);
    let seen = origin.last();
    assert_eq!(["x-drop", "x-old", "x-new", "x-set"].map(|name| seen.get(name)), [None, None, Some("2"), Some("1")]);
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), json!({"keep": "é", "a": {"b": [1, 2]}}));
    assert_eq!((answer.status(), answer.get("x-powered-by")), (200, None));
    assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), json!({"id": 1, "email": "a@b"}));
    assert_eq!(
        code(&gateway.ask("POST", "/", &[("content-type", "application/json")], "{")),
        (400, "body_malformed".to_owned())
    );
    assert_eq!(gateway.get("/text").text(), "plain");
    let mut client = gateway.client();
    client.send("GET /bad HTTP/1.1\r\nhost: test\r\n\r\n");
    match client.0.message() {
        Ok(bad) => assert!(code(&bad) == (502, "response_malformed".to_owned()) || !bad.complete, "{bad:?}"),
        Err(_) => assert!(client.0.is_closed(), "cut before anything was sent"),
    }
}

#[test]
fn aggregate_makes_one_reply_of_several_and_replaces_what_fails() {
    let parts = Origin::start(|seen| match seen.uri.path() {
        "/me" => Answer::ok(format!("{{\"name\":\"{}\"}}", seen.get("authorization").unwrap_or("nobody"))),
        "/orders" => Answer::ok("[1,2]"),
        _ => Answer::status(500).data("no"),
    });
    let text = r#"
upstreams: { origin: { endpoints: ["{parts}"] } }
plugins: { aggregate: {guest:aggregate} }
filters:
  - plugin: aggregate
    config:
      endpoints:
        - path: /dashboard
          forward_headers: [authorization]
          calls:
            - { name: user, upstream: origin, path: /me }
            - { name: orders, upstream: origin, path: /orders }
            - { name: offers, upstream: origin, path: /broken{default} }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    let gateway = Gateway::start(text, &[("parts", &parts), ("default", &", default: []")]);
    let answer = gateway.ask("GET", "/dashboard", &[("authorization", "alice"), ("cookie", "c")], "");
    assert_eq!(answer.status(), 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body, json!({"user": {"name": "alice"}, "orders": [1, 2], "offers": [], "partial": ["offers"]}));
    assert!(parts.seen().iter().all(|seen| seen.get("cookie").is_none()));
    assert_eq!(gateway.get("/orders").text(), "[1,2]", "other paths pass");
    assert_eq!(code(&gateway.ask("POST", "/dashboard", &[], "x")), (405, "method_not_allowed".to_owned()));
    let gateway = Gateway::start(text, &[("parts", &parts), ("default", &"")]);
    assert_eq!(code(&gateway.get("/dashboard")), (502, "call_failed".to_owned()));
}

#[test]
fn what_comes_in_the_binary_is_what_was_built() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  limit: { module: "builtin:rate-limit" }
  transform: { module: "builtin:transform" }
filters:
  - { plugin: limit, config: { key: client_address, rate: 100/s } }
  - { plugin: transform, config: { response: { headers: { set: { x-set: "1" } } } } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let answer = gateway.get("/");
    assert_eq!((answer.status(), answer.get("x-set"), answer.get("ratelimit").is_some()), (200, Some("1"), true));
}
