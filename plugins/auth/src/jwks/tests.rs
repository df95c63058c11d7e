use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_sdk::{ms, secs, start};
use portcullis_testing::{Gateway, Plugin, Reply, Request, Running};
use serde_json::json;

use crate::Auth;

const SETTINGS: &str =
    r#"{"jwks":{"upstream":"idp","path":"/jwks.json","refresh":"5m"},"forward_claims":{"sub":"x-user"}}"#;

/// A JWKS document with the one Ed25519 key of the test data, under this name.
fn document(kid: &str) -> String {
    let pem = include_str!("../../testdata/ed.pub.pem");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x}]}).to_string()
}

fn request(kid: &str) -> Request {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let key = EncodingKey::from_ed_pem(include_bytes!("../../testdata/ed.pem")).unwrap();
    let token = jsonwebtoken::encode(&header, &json!({"sub": "ann", "exp": 4_000_000_000_u64}), &key).unwrap();
    Request::get("/").header("authorization", format!("Bearer {token}")).header("x-user", "forged")
}

/// A gateway whose issuer answers with each of these in turn, the last again and again.
fn gateway(answers: impl IntoIterator<Item = Reply>) -> Running {
    configured(SETTINGS, answers)
}

fn configured(settings: &str, answers: impl IntoIterator<Item = Reply>) -> Running {
    let answers: Vec<Reply> = answers.into_iter().collect();
    let turn = RefCell::new(0);
    Gateway::new()
        .upstream("idp", move |_| {
            let at = turn.replace_with(|at| *at + 1);
            answers[at.min(answers.len() - 1)].clone()
        })
        .plugin(Plugin::new("auth", start::<Auth>).config(settings))
        .start()
}

fn keys(kid: &str) -> Reply {
    Reply::json(document(kid)).after(ms(20))
}

#[test]
fn requests_wait_for_the_first_keys_and_are_judged_by_them() {
    let mut gateway = gateway([keys("a")]);
    let outcomes = gateway.send_all([request("a"), request("a"), Request::get("/"), request("b")]);
    assert_eq!(outcomes[0].at_upstream().all("x-user"), ["ann"]);
    assert_eq!(outcomes[1].status(), 200);
    let of = |at: usize| (outcomes[at].status(), outcomes[at].details.as_str());
    assert_eq!([of(2), of(3)], [(401, "token_missing"), (401, "token_unknown_key")]);
    assert_eq!(outcomes[2].took, ms(0), "no keys are needed to miss a token");
    assert_eq!(gateway.calls().len(), 1);
    assert_eq!(gateway.send(request("a")).took, ms(0));
}

#[test]
fn without_keys_requests_are_refused_and_do_not_wait_between_tries() {
    let mut gateway = gateway([Reply::status(500), Reply::ok("{}"), keys("a")]);
    let outcome = gateway.send(request("a"));
    assert_eq!((outcome.status(), outcome.details.as_str()), (503, "keys_unavailable"));
    assert_eq!(outcome.reply.header("retry-after"), Some("1"));
    assert!(outcome.logged("no keys from idp/jwks.json: the answer's status is 500"));
    assert_eq!(gateway.send(request("a")).took, ms(0), "the issuer was asked just now");
    gateway.advance(secs(3));
    assert_eq!(gateway.send(request("a")).status(), 200);
}

#[test]
fn a_key_that_is_not_there_is_fetched_but_not_more_often_than_allowed() {
    let mut gateway = gateway([keys("a"), keys("b"), keys("c")]);
    gateway.advance(secs(1));
    assert_eq!(gateway.send(request("b")).details, "token_unknown_key", "too soon after the first fetch");
    gateway.advance(secs(10));
    let outcome = gateway.send(request("b"));
    // The fetch, and the tick that starts it: a call that one exchange asks the background for is not its own.
    assert_eq!((outcome.status(), outcome.took), (200, ms(21)));
    assert_eq!(gateway.send(request("c")).details, "token_unknown_key");
    assert_eq!(gateway.calls().len(), 2);
}

#[test]
fn keys_are_refreshed_in_time_and_stay_when_that_fails() {
    let mut gateway = gateway([keys("a"), keys("b"), Reply::status(500)]);
    gateway.advance(secs(299));
    assert_eq!(gateway.calls().len(), 1);
    gateway.advance(secs(2));
    assert_eq!(gateway.calls().len(), 1);
    assert_eq!(gateway.send(request("b")).status(), 200);
    gateway.advance(secs(600));
    assert!(gateway.calls().len() > 1);
    assert_eq!(gateway.send(request("b")).status(), 200);
}

#[test]
fn keys_that_cannot_be_refreshed_are_used_for_so_long_and_then_no_more() {
    let settings = r#"{"jwks":{"upstream":"idp","path":"/jwks.json","refresh":"5m","stale_if_error":"10m"}}"#;
    let mut gateway = configured(settings, [keys("a"), Reply::status(500)]);
    gateway.advance(secs(14 * 60));
    assert_eq!(gateway.send(request("a")).status(), 200);
    gateway.advance(secs(2 * 60));
    let outcome = gateway.send(request("a"));
    assert_eq!((outcome.status(), outcome.details.as_str()), (503, "keys_stale"));
    assert_eq!(outcome.reply.header("retry-after"), Some("1"));
    assert_eq!(gateway.send(Request::get("/")).details, "token_missing");
    // Once a second at first, every 30 s in the end: 11 minutes of failures are about 26 calls.
    assert!((20..35).contains(&gateway.calls().len()), "{}", gateway.calls().len());
}

#[test]
fn the_same_document_again_is_no_new_set_of_keys_and_forgets_no_token() {
    for (second, want) in [("a", 0), ("b", 1)] {
        let mut gateway = gateway([keys("a"), keys(second)]);
        assert_eq!(gateway.send(request("a")).status(), 200);
        gateway.advance(secs(301));
        let log = gateway.log();
        assert_eq!(log.iter().filter(|line| line.text.contains("1 keys from")).count(), want, "{log:?}");
        assert_eq!(gateway.calls().len(), 2);
    }
}

#[test]
fn an_issuer_says_where_its_keys_are() {
    let settings = r#"{"issuer":"https://idp.example/a","discovery":{"upstream":"idp"}}"#;
    let metadata = |issuer: &str, keys: &str| Reply::json(json!({"issuer": issuer, "jwks_uri": keys}).to_string());
    let good = || metadata("https://idp.example/a", "https://idp.example/keys");
    let mut gateway = configured(settings, [good(), keys("a")]);
    gateway.advance(secs(1));
    let calls = gateway.calls();
    let asked: Vec<_> =
        calls.iter().map(|call| (call.request.header(":authority"), call.request.header(":path"))).collect();
    let host = Some("idp.example");
    assert_eq!(asked, [(host, Some("/a/.well-known/openid-configuration")), (host, Some("/keys"))]);
    assert_eq!(gateway.send(request("a")).details, "token_issuer", "its keys are known, and the token is not of it");
    for (metadata, why) in [
        (metadata("https://idp.example", "https://idp.example/keys"), "the metadata is of `https://idp.example`"),
        (metadata("https://idp.example/a", "https://evil.example/keys"), "`jwks_uri` is `https://evil.example/keys`"),
        (Reply::status(404), "the answer's status is 404"),
    ] {
        let mut gateway = configured(settings, [metadata, keys("a")]);
        let outcome = gateway.send(request("a"));
        assert_eq!((outcome.status(), outcome.details.as_str()), (503, "keys_unavailable"));
        assert!(outcome.logged(&format!("no keys from https://idp.example/a by idp: {why}")), "{:?}", outcome.log);
        assert_eq!(gateway.calls().len(), 1);
    }
}
