use std::cell::RefCell;

use portcullis_sdk::{ms, secs, start};
use portcullis_testing::{Gateway, Plugin, Reply, Request, Running};
use serde_json::json;

use super::*;
use crate::Auth;

/// A gateway whose issuer answers with each of these in turn, the last again and again.
fn gateway(settings: &Value, answers: impl IntoIterator<Item = Reply>) -> Running {
    let answers: Vec<Reply> = answers.into_iter().collect();
    let turn = RefCell::new(0);
    Gateway::new()
        .upstream("idp", move |_| {
            let at = turn.replace_with(|at| *at + 1);
            answers[at.min(answers.len() - 1)].clone().after(ms(20))
        })
        .plugin(Plugin::new("auth", start::<Auth>).config(settings.to_string()))
        .start()
}

fn settings() -> Value {
    json!({
        "introspection": {"upstream": "idp", "path": "/introspect", "client_id": "a b", "client_secret": "c:&d"},
        "required_scopes": ["read"],
        "forward_claims": {"sub": "x-user"},
    })
}

fn with(token: &str) -> Request {
    Request::get("/").header("authorization", format!("Bearer {token}"))
}

fn active(more: &Value) -> Reply {
    let mut claims = json!({"active": true, "sub": "ann", "scope": "read"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Reply::json(claims.to_string())
}

fn inactive() -> Reply {
    Reply::json(r#"{"active":false}"#)
}

#[test]
fn the_issuer_is_asked_as_rfc_7662_says() {
    for (auth, authorization, form) in [
        ("client_secret_basic", Some("Basic YSUyMGI6YyUzQSUyNmQ="), ""),
        ("client_secret_post", None, "&client_id=a%20b&client_secret=c%3A%26d"),
    ] {
        let mut settings = settings();
        settings["introspection"]["client_auth"] = auth.into();
        let mut gateway = gateway(&settings, [active(&json!({}))]);
        let outcome = gateway.send(with("abc/+=~"));
        assert_eq!((outcome.at_upstream().all("x-user"), outcome.took), (vec!["ann"], ms(20)));
        let call = gateway.calls().remove(0).request;
        assert_eq!((call.header(":method"), call.header(":path")), (Some("POST"), Some("/introspect")));
        assert_eq!(call.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(call.header("authorization"), authorization);
        let want = format!("token=abc%2F%2B%3D%7E&token_type_hint=access_token{form}");
        assert_eq!(String::from_utf8_lossy(&call.body), want);
    }
}

#[test]
fn requests_that_wait_with_one_token_ask_once_and_are_remembered() {
    let mut gateway = gateway(&settings(), [active(&json!({})), inactive()]);
    let outcomes = gateway.send_all([with("a"), with("a"), with("a")]);
    assert!(outcomes.iter().all(|outcome| outcome.status() == 200));
    assert_eq!(gateway.calls().len(), 1);
    gateway.advance(secs(58));
    assert_eq!(gateway.send(with("a")).took, ms(0));
    gateway.advance(secs(2));
    assert_eq!(gateway.send(with("a")).details, "token_inactive", "it was taken back meanwhile");
    assert_eq!(gateway.calls().len(), 1);
}

#[test]
fn what_is_active_counts_until_it_expires_and_what_is_not_for_a_while() {
    // The simulation's clock is not 1970.
    let mut gateway = gateway(&settings(), [inactive(), active(&json!({"exp": 1}))]);
    for _ in 0..2 {
        let outcome = gateway.send(with("a"));
        assert_eq!((outcome.status(), outcome.details.as_str()), (401, "token_inactive"));
    }
    assert_eq!(gateway.calls().len(), 1);
    gateway.advance(secs(11));
    for _ in 0..2 {
        assert_eq!(gateway.send(with("a")).details, "token_expired", "whatever the issuer says");
    }
    assert_eq!(gateway.calls().len(), 2, "an answer that has expired is not kept");
}

#[test]
fn an_issuer_that_does_not_answer_is_no_reason_to_refuse_for_good() {
    for (reply, why) in [
        (Reply::status(500), "the answer's status is 500"),
        (Reply::status(401), "the answer's status is 401"),
        (Reply::ok("yes"), "the answer is no JSON object"),
        (Reply::json(r#"{"active":"true"}"#), "the answer does not say whether the token is `active`"),
        (Reply::json("{}"), "the answer does not say whether the token is `active`"),
    ] {
        let mut gateway = gateway(&settings(), [reply, active(&json!({}))]);
        let outcome = gateway.send(with("a"));
        assert_eq!((outcome.status(), outcome.details.as_str()), (503, "introspection_unavailable"));
        assert_eq!(outcome.reply.header("retry-after"), Some("1"));
        assert!(outcome.logged(&format!("no introspection by idp/introspect: {why}")), "{:?}", outcome.log);
        assert_eq!(gateway.send(with("a")).status(), 200, "it is asked again");
    }
}

#[test]
fn what_is_said_of_a_token_is_held_against_the_rules() {
    let mut strict = settings();
    strict.as_object_mut().unwrap().extend(
        json!({"issuer": "https://idp", "audience": "api", "required_claims": {"tenant": "acme"}})
            .as_object()
            .unwrap()
            .clone(),
    );
    let good = json!({"aud": "api", "tenant": "acme"});
    for (more, want) in [
        (json!({}), "via_upstream"),
        (json!({"iss": "https://idp"}), "via_upstream"),
        (json!({"iss": "https://other"}), "token_issuer"),
        (json!({"aud": "other"}), "token_audience"),
        (json!({"tenant": "other"}), "token_claim_missing"),
        (json!({"scope": "write"}), "scope_missing"),
        (json!({"nbf": 4_000_000_000_u64}), "token_not_yet_valid"),
    ] {
        let mut said = good.clone();
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut gateway = gateway(&strict, [active(&said)]);
        assert_eq!(gateway.send(with("a")).details, want, "{more}");
    }
}

#[test]
fn signed_tokens_are_not_asked_about_where_there_are_keys_for_them() {
    let mut settings = settings();
    settings["keys"] = json!([{"alg": "HS256", "secret": "0123456789abcdef0123456789abcdef"}]);
    let mut gateway = gateway(&settings, [active(&json!({}))]);
    // {"alg":"HS256"} {} x
    assert_eq!(gateway.send(with("eyJhbGciOiJIUzI1NiJ9.e30.eHg")).details, "token_signature");
    assert_eq!(gateway.calls().len(), 0);
    assert_eq!(gateway.send(with("a.b.c")).status(), 200, "what is no signed token is taken for an opaque one");
    assert_eq!(gateway.calls().len(), 1);
}

#[test]
fn what_is_known_is_bounded_and_ends_in_time() {
    let mut known = Known::default();
    for number in 0..=u16::try_from(2 * MAX_KNOWN).unwrap() {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        known.put(key, Answer::Inactive, 10, 5);
        assert!(matches!(known.get(&key, 9), Some(Answer::Inactive)));
        known.put(key, Answer::Active(Rc::default()), 10, 5);
        assert!(matches!(known.get(&key, 9), Some(Answer::Active(_))));
        assert!(known.get(&key, 10).is_none());
        assert!(known.active.len() <= MAX_KNOWN && known.inactive.len() <= MAX_KNOWN);
    }
}
