use serde_json::json;

use super::*;

/// PBKDF2 of `correct horse` with 1000 iterations and the salt `saltsalt`.
const HORSE: &str = "pbkdf2-sha256$1000$c2FsdHNhbHQ=$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=";

fn entry<T: serde::de::DeserializeOwned>(json: &Value) -> T {
    serde_json::from_value(json.clone()).unwrap()
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_api_key_is_its_consumers_and_no_other() {
    let keys = ApiKeys::new(vec![
        entry(&json!({"id": "ann", "sha256": hex("key-of-ann"), "plan": "gold", "scopes": ["read", "write"]})),
        entry(&json!({"id": "bob", "sha256": hex("key-of-bob").to_uppercase(), "roles": ["admin"]})),
    ])
    .unwrap();
    let claims = |key| keys.find(key).map(|claims| Value::Object(claims.clone()));
    let ann = json!({"sub": "ann", "consumer": "ann", "plan": "gold", "scope": "read write", "roles": []});
    assert_eq!(claims("key-of-ann"), Some(ann));
    assert_eq!(claims("key-of-bob").map(|claims| claims["roles"].clone()), Some(json!(["admin"])));
    for wrong in ["", "key-of-anN", "key-of-ann ", &hex("key-of-ann")] {
        assert_eq!(claims(wrong), None, "{wrong}");
    }
}

#[test]
fn a_password_is_right_again_and_again_and_a_wrong_one_never() {
    let users = Users::new(vec![
        entry(&json!({"name": "ann", "password": HORSE})),
        entry(&json!({"name": "bob", "password": HORSE.replace("c2FsdHNhbHQ", "cGVwcGVycGU")})),
    ])
    .unwrap();
    let named = |text: &str| users.find(&STANDARD.encode(text)).map(|claims| claims["sub"].clone());
    for _ in 0..2 {
        assert_eq!(named("ann:correct horse"), Some("ann".into()));
        for wrong in ["ann:correct", "ann:", "bob:correct horse", "eve:correct horse", ":correct horse", "ann"] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }
    assert!(users.find("not base64!").is_none());
}

#[test]
fn a_certificate_is_known_by_the_one_property_that_is_named() {
    let known = Certificates::new(vec![
        entry(&json!({"id": "billing", "uri": "spiffe://acme/billing", "scopes": ["read"]})),
        entry(&json!({"id": "legacy", "sha256": "AB".repeat(32)})),
    ])
    .unwrap();
    let who = |property: &str, value: &str| {
        let found = known.find(|name| (name == property).then(|| value.to_owned()));
        found.map(|claims| claims["sub"].clone())
    };
    assert_eq!(who("uri_san_peer_certificate", "spiffe://acme/billing"), Some("billing".into()));
    assert_eq!(who("sha256_peer_certificate_digest", &"ab".repeat(32)), Some("legacy".into()));
    assert_eq!(who("dns_san_peer_certificate", "spiffe://acme/billing"), None);
    assert_eq!(who("uri_san_peer_certificate", "spiffe://acme/billing2"), None);
}
