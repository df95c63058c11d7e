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
    let answers: Vec<Reply> = answers.into_iter().collect();
    let turn = RefCell::new(0);
    Gateway::new()
        .upstream("idp", move |_| {
            let at = turn.replace_with(|at| *at + 1);
            answers[at.min(answers.len() - 1)].clone()
        })
        .plugin(Plugin::new("auth", start::<Auth>).config(SETTINGS))
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
