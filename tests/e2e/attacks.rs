//! The built-in policies under attack: rows 26 to 29 of what is promised (docs/security.md).

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_tests::bucket::Bucket;
use portcullis_tests::client::{Client, request};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::wire::Message;
use portcullis_tests::{eventually, memory};

use crate::plugins::{FIRST, FIRST_KEY, HS256, bearer, code};

/// `{"alg":"HS256","kid":"rs"}` for `root`, signed with the bytes of `plugins/auth/testdata/rsa.pub.pem` as if they were a secret.
const CONFUSED: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6InJzIn0.eyJzdWIiOiJyb290IiwiaXNzIjoiaHR0cHM6Ly9pZHAudGVzdCIsImF1ZCI6ImFwaSIsImV4cCI6NDEwMjQ0NDgwMH0.AfmjS9k-kh3Bq6gSFZqUSukyagVqE3aYh58j-DpLPXQ";

/// A token with this header and the claims of a good one, signed by nobody.
fn unsigned(header: &str, signature: &str) -> String {
    let claims = r#"{"sub":"root","iss":"https://idp.test","aud":"api","exp":4102444800}"#;
    format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// RFC 8725: what a token says of itself is not believed, and what it points at is not looked up.
#[test]
fn no_forged_token_passes_nor_reaches_the_upstream() {
    let (origin, stranger) = (Origin::plain(), Origin::plain());
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] }, stranger: { endpoints: ["{stranger}"] } }
plugins: { auth: {guest:auth} }
filters:
  - plugin: auth
    config:
      issuer: https://idp.test
      audience: api
      keys:
        - { kid: a, alg: HS256, secret: "at least thirty-two bytes of text" }
        - { kid: rs, alg: RS256, pem: {pem} }
      forward_claims: { sub: x-user }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[
            ("origin", &origin),
            ("stranger", &stranger),
            ("pem", &format!("{:?}", include_str!("../../plugins/auth/testdata/rsa.pub.pem"))),
        ],
    );
    let jku = format!(r#"{{"alg":"RS256","kid":"x","jku":"http://{stranger}/jwks.json","x5u":"http://{stranger}/"}}"#);
    let embedded = format!(r#"{{"alg":"ES256","jwk":{FIRST_KEY}}}"#);
    let signature = FIRST.rsplit('.').next().unwrap();
    let padded = format!("{HS256}=");
    for (what, token) in [
        ("none", unsigned(r#"{"alg":"none"}"#, "")),
        ("None", unsigned(r#"{"alg":"None","kid":"a"}"#, "")),
        ("no algorithm", unsigned(r#"{"kid":"a"}"#, "")),
        ("a signature left out", unsigned(r#"{"alg":"HS256","kid":"a"}"#, "")),
        ("a public key for a secret", CONFUSED.to_owned()),
        ("a key from elsewhere", unsigned(&jku, signature)),
        ("a key of its own", unsigned(&embedded, signature)),
        ("another's signature", unsigned(r#"{"alg":"HS256","kid":"a"}"#, HS256.rsplit('.').next().unwrap())),
        ("a path for a key", unsigned(r#"{"alg":"HS256","kid":"../../dev/null"}"#, "")),
        ("what must be understood", unsigned(r#"{"alg":"HS256","kid":"a","crit":["exp"]}"#, "")),
        ("padding", padded),
        ("twenty kilobytes", "a".repeat(20 << 10)),
        ("encrypted", "a.b.c.d.e".to_owned()),
    ] {
        let (status, code) = code(&bearer(&gateway, &token));
        assert!(status == 401 && code.starts_with("token_"), "{what}: {status} {code}");
    }
    let twice = gateway.client().ask(
        "GET",
        "/",
        &[("authorization", &format!("Bearer {HS256}")), ("authorization", &format!("Bearer {CONFUSED}"))],
        "",
    );
    assert_eq!(code(&twice), (400, "token_twice".to_owned()));
    assert_eq!((origin.begun(), stranger.begun()), (0, 0));
    assert_eq!(bearer(&gateway, HS256).status(), 200, "the next client");
}

/// Keys that were fetched once are good while their issuer is broken, huge, slow or gone.
#[test]
fn good_tokens_pass_whatever_becomes_of_their_issuer() {
    type Reply = fn(&Gate) -> Answer;
    let troubles: [(&str, Reply); 4] = [
        ("nonsense", |_| Answer::ok("{\"keys\": [")),
        ("huge", |_| Answer::ok(format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(1 << 20)))),
        ("down", |_| Answer::status(503)),
        ("slow", |gate| Answer::ok("{}").after(gate)),
    ];
    let trouble = Arc::new(AtomicUsize::new(usize::MAX));
    let now = trouble.clone();
    let gate = Gate::default();
    let idp = Origin::start(move |_| match troubles.get(now.load(Ordering::SeqCst)) {
        Some((_, reply)) => reply(&gate),
        None => Answer::ok(format!("{{\"keys\":[{FIRST_KEY}]}}")),
    });
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] }, idp: { endpoints: ["{idp}"] } }
plugins: { auth: {guest:auth} }
filters:
  - plugin: auth
    config:
      issuer: https://idp.test
      audience: api
      jwks: { upstream: idp, path: /jwks.json, refresh: 1s, timeout: 3s }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin), ("idp", &idp)],
    );
    assert_eq!(bearer(&gateway, FIRST).status(), 200);
    for (number, (what, _)) in troubles.iter().enumerate() {
        trouble.store(number, Ordering::SeqCst);
        let asked = idp.begun();
        eventually("the issuer has been asked again", || idp.begun() >= asked + 2);
        assert_eq!(bearer(&gateway, FIRST).status(), 200, "{what}");
        assert_eq!(bearer(&gateway, HS256).status(), 401, "{what}: and no bad one does");
        // A good answer ends the growing pauses between asking.
        trouble.store(usize::MAX, Ordering::SeqCst);
        let asked = idp.begun();
        eventually("the issuer has been asked once more", || idp.begun() > asked);
    }
}

/// Limits hold over all workers and under load, and a made-up address or another spelling of the key is no way around them.
#[test]
fn a_rate_is_not_evaded() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { limit: {guest:rate-limit} }
filters: [{ plugin: limit, config: { key: client_address, rate: 25/s, burst: 150 } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let clients = (0..4).map(|number| (number, 0_u32, gateway.client())).collect();
    let ask = |(number, round, client): &mut (i32, u32, Client)| {
        *round += 1;
        let spoofed = format!("10.{number}.{}.{}", *round >> 8 & 255, *round & 255);
        let fields = [("x-forwarded-for", spoofed.as_str()), ("x-real-ip", &spoofed), ("forwarded", "for=10.9.9.9")];
        client.ask("GET", "/", &fields, "").status() == 200
    };
    let given = Bucket { rate: 25.0, burst: 150.0 }.exhaust(Duration::from_secs(3), clients, ask);
    given.assert_all_but(0.01);
    assert_eq!(origin.begun(), given.admitted);
}

/// Bodies made to be dear to unpack or to parse.
#[test]
fn bodies_that_would_be_dear_to_read_are_refused() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { transform: {guest:transform} }
filters: [{ plugin: transform, config: { request: { body: { remove: [/secret] } } } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    // What is refused before it has been sent whole may find nobody reading any more.
    let post = |fields: &[(&str, &str)], body: &str| {
        let fields: Vec<_> = [("content-type", "application/json")].iter().chain(fields).copied().collect();
        let mut client = gateway.client();
        let _cut_short = client.0.write(request("POST", "/", &fields, "") + body);
        code(&client.answer())
    };
    let chunks = format!("8000\r\n{}\r\n", " ".repeat(0x8000)).repeat(64);
    let whole = |body: &str| post(&[("content-length", &body.len().to_string())], body);
    let mut million = String::from("{");
    (0..1_000_000).for_each(|key| write!(million, "\"{key}\":0,").unwrap());
    million.push_str("\"secret\":1}");
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let before = memory();
    for _ in 0..5 {
        assert_eq!(whole(&deep), (400, "body_malformed".to_owned()));
        assert_eq!(whole(&million), (413, "body_too_large".to_owned()));
        for (coding, refusal) in [("compress", (415, "body_encoded")), ("br", (400, "body_malformed"))] {
            let (status, code) = refusal;
            let fields = [("content-encoding", coding), ("content-length", "2")];
            assert_eq!(post(&fields, "xx"), (status, code.to_owned()), "{coding}");
        }
        assert_eq!(post(&[("transfer-encoding", "chunked")], &chunks), (413, "body_too_large".to_owned()));
    }
    assert_eq!(origin.begun(), 0, "heads are held until their bodies are read");
    assert!(memory().saturating_sub(before) < 100 << 20);
    let whole = gateway.ask("POST", "/", &[("content-type", "application/json")], r#"{"secret":1,"a":2}"#);
    assert_eq!((whole.status(), &*origin.last().body), (200, &br#"{"a":2}"#[..]), "the next client");
}

/// Calls of an aggregate whose answers are huge, slow, broken, deep or no JSON, each within its bounds; what may fail is replaced, what
/// must not is named.
#[test]
fn calls_that_misbehave_are_replaced_or_named() {
    let gate = Gate::default();
    let parts = Origin::start(move |seen| match seen.uri.path() {
        "/huge" => Answer::ok(format!("\"{}\"", "x".repeat(1 << 20))),
        "/slow" => Answer::ok("1").after(&gate),
        "/cut" => Answer::ok("[1,").header("content-length", "100").broken(),
        "/deep" => Answer::ok("[".repeat(4000) + &"]".repeat(4000)),
        "/text" => Answer::ok("hello"),
        _ => Answer::ok("1"),
    });
    let text = r#"
upstreams: { origin: { endpoints: ["{parts}"] } }
plugins: { aggregate: {guest:aggregate} }
filters:
  - plugin: aggregate
    config:
      endpoints:
        - path: /all
          calls:
            - { name: good, upstream: origin, path: /good }
            - { name: bad, upstream: origin, path: /{bad}, timeout: 3s, max_bytes: 65536{default} }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;
    for bad in ["huge", "slow", "cut", "deep", "text"] {
        let ask = |default: &str| -> Message {
            Gateway::start(text, &[("parts", &parts), ("bad", &bad), ("default", &default)]).get("/all")
        };
        let began = Instant::now();
        let replaced = ask(", default: none");
        let want = r#"{"good":1,"bad":"none","partial":["bad"]}"#;
        assert_eq!((replaced.status(), replaced.text().trim_end()), (200, want), "{bad}");
        let refusals: &[&str] = match bad {
            "slow" => &["call_timeout"],
            // Before its head is whole, or after.
            "cut" => &["call_unavailable", "call_failed"],
            _ => &["call_failed"],
        };
        let (status, refusal) = code(&ask(""));
        assert!(status >= 502 && refusals.contains(&refusal.as_str()), "{bad}: {status} {refusal}");
        assert!(began.elapsed() < Duration::from_secs(30), "{bad}");
    }
}
