//! Tokens of an identity provider that others wrote.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::idp::Idp;
use portcullis_tests::origin::Origin;
use portcullis_tests::wire::Message;

/// A gateway before an origin, that lets in whom this provider knows.
fn gateway(origin: &Origin, idp: &Idp, settings: &str) -> Gateway {
    let text = "version: 1
admin: { bind: '127.0.0.1:0' }
upstreams: { origin: { endpoints: ['{origin}'] }, idp: { endpoints: ['{idp}'] } }
plugins: { auth: { module: 'builtin:auth' } }
routes:
  - name: all
    match: { path: '/*' }
    filters: [ { plugin: auth, config: {settings} } ]
    upstream: origin
";
    Gateway::start(text, &[("origin", origin), ("idp", &idp.address), ("settings", &settings)])
}

fn ask(gateway: &Gateway, method: &str, token: &str) -> Message {
    gateway.ask(method, "/orders/7", &[("authorization", &format!("Bearer {token}"))], "")
}

#[track_caller]
fn assert_refused(answer: &Message, status: u16, code: &str) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert!(answer.text().contains(&format!("\"{code}\"")), "{}", answer.text());
}

/// The provider says where its keys are; its tokens pass, for what their scopes allow; after it has changed its key, so do those
/// made with the new one, and no longer those made with the old.
#[test]
fn tokens_are_checked_with_keys_that_the_provider_publishes_and_changes() {
    let Some(idp) = Idp::start() else { return };
    let origin = Origin::plain();
    let settings = format!(
        "{{ issuer: '{}', audience: orders, discovery: {{ upstream: idp }}, forward_claims: {{ client_id: x-client }},
            rules: [ {{ methods: [GET], scopes: ['orders:read'] }}, {{ methods: [PUT], scopes: ['orders:write'] }} ] }}",
        idp.issuer
    );
    let gateway = gateway(&origin, &idp, &settings);
    let old = idp.token("urn:jwt", "orders:read");
    let answer = ask(&gateway, "GET", &old);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(origin.last().get("x-client"), Some("shop"));
    assert_refused(&ask(&gateway, "PUT", &old), 403, "scope_missing");
    idp.rotate();
    let new = idp.token("urn:jwt", "orders:read");
    // At first the provider has been asked too short a while ago.
    eventually("the new key is known", || {
        let answer = ask(&gateway, "GET", &new);
        if answer.status() != 200 {
            assert_refused(&answer, 401, "token_unknown_key");
        }
        answer.status() == 200
    });
    assert_refused(&ask(&gateway, "GET", &old), 401, "token_unknown_key");
}

/// The provider is asked about tokens that it alone can read; what it has taken back, what it never gave, and what it cannot be asked
/// about are refused, each with a word of its own.
#[test]
fn opaque_tokens_are_what_the_provider_says_of_them() {
    let Some(mut idp) = Idp::start() else { return };
    let origin = Origin::plain();
    let settings = "{ introspection: { upstream: idp, path: /token/introspection, client_id: gateway,
              client_secret: 'secret & more: of the gateway', cache: 1s, negative_cache: 1m },
            audience: orders, rules: [ { scopes: ['orders:read'] } ], forward_claims: { client_id: x-client }, keep_token: false }";
    let gateway = gateway(&origin, &idp, settings);
    let good = idp.token("urn:opaque", "orders:read");
    for _ in 0..3 {
        let answer = ask(&gateway, "GET", &good);
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!((origin.last().get("x-client"), origin.last().get("authorization")), (Some("shop"), None));
    assert_refused(&ask(&gateway, "GET", &idp.token("urn:opaque", "orders:write")), 403, "scope_missing");
    assert_refused(&ask(&gateway, "GET", "never-given"), 401, "token_inactive");
    assert_refused(&ask(&gateway, "GET", "never-given"), 401, "token_inactive");
    idp.revoke(&good);
    eventually("what was taken back counts no more", || {
        let answer = ask(&gateway, "GET", &good);
        if answer.status() != 200 {
            assert_refused(&answer, 401, "token_inactive");
        }
        answer.status() == 401
    });
    idp.end();
    assert_refused(&ask(&gateway, "GET", "not-seen-before"), 503, "introspection_unavailable");
    assert_refused(&ask(&gateway, "GET", "never-given"), 401, "token_inactive");
    assert_eq!(gateway.metric("portcullis_guest_events_total", &["auth_introspections.failed"]), 1.0);
}
