use serde_json::json;

use super::*;
use crate::claims::ClaimPath;

/// PBKDF2 of `correct horse` with 1000 iterations and the salt `saltsalt`.
const HORSE: &str = "pbkdf2-sha256$1000$c2FsdHNhbHQ=$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=";

fn consumers(json: &Value) -> Consumers {
    let entries: Vec<ConsumerEntry> = serde_json::from_value(json.clone()).unwrap();
    let forward = ["sub", "plan"];
    let forward =
        forward.map(|claim| (ClaimPath::new(claim.to_owned()), serde_json::from_value("x-a".into()).unwrap()));
    Consumers::new(&entries, &Reading { forward: forward.into(), ..Reading::default() }).unwrap()
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(holder: &Rc<Identity>) -> String {
    holder.headers[0].clone().unwrap()
}

#[test]
fn an_api_key_is_its_consumers_and_no_other() {
    let keys = consumers(&json!([
        {"id": "ann", "api_keys": [hex("key-of-ann"), hex("new-key")], "plan": "gold", "scopes": ["read", "write"]},
        {"id": "bob", "api_keys": [hex("key-of-bob").to_uppercase()], "roles": ["admin"]},
    ]))
    .api_keys;
    let ann = keys.find(b"key-of-ann").unwrap();
    assert_eq!(*ann, *keys.find(b"new-key").unwrap(), "a key can be changed without a gap");
    let headers = ["ann", "gold"].map(|value| Some(value.to_owned()));
    assert_eq!((ann.headers.as_slice(), ann.scopes.join(" ").as_str()), (headers.as_slice(), "read write"));
    let bob = keys.find(b"key-of-bob").unwrap();
    assert_eq!((name(&bob).as_str(), bob.headers[1].is_none(), bob.roles.join(" ").as_str()), ("bob", true, "admin"));
    for wrong in ["", "key-of-anN", "key-of-ann ", &hex("key-of-ann")] {
        assert_eq!(keys.find(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn a_password_is_right_again_and_again_and_a_wrong_one_never() {
    let users = consumers(&json!([
        {"id": "ann", "password": HORSE},
        {"id": "bob", "password": HORSE.replace("c2FsdHNhbHQ", "cGVwcGVycGU")},
    ]))
    .users;
    let named = |text: &str| users.find(STANDARD.encode(text).as_bytes()).map(|holder| name(&holder));
    for _ in 0..2 {
        assert_eq!(named("ann:correct horse"), Some("ann".to_owned()));
        for wrong in ["ann:correct", "ann:", "bob:correct horse", "eve:correct horse", ":correct horse", "ann"] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }
    assert!(users.find(b"not base64!").is_none());
}

#[test]
fn a_certificate_is_known_by_the_one_property_that_is_named() {
    let known = consumers(&json!([
        {"id": "billing", "certificates": [{"uri": "spiffe://acme/billing"}], "scopes": ["read"]},
        {"id": "legacy", "certificates": [{"sha256": "AB".repeat(32)}, {"dns": "legacy.acme"}]},
    ]))
    .certificates;
    let who = |property: &str, value: &str| {
        known.find(|own| (own == property).then(|| value.to_owned())).map(|holder| name(&holder))
    };
    assert_eq!(who("uri_san_peer_certificate", "spiffe://acme/billing"), Some("billing".to_owned()));
    assert_eq!(who("sha256_peer_certificate_digest", &"ab".repeat(32)), Some("legacy".to_owned()));
    assert_eq!(who("dns_san_peer_certificate", "legacy.acme"), Some("legacy".to_owned()));
    assert_eq!(who("dns_san_peer_certificate", "spiffe://acme/billing"), None);
    assert_eq!(who("uri_san_peer_certificate", "spiffe://acme/billing2"), None);
}
