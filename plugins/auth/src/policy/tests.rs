use std::rc::Rc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::claims::Times;
use crate::foreign::{Call, VerifySignature};
use crate::keys::KeyEntry;
use crate::settings::{KeySource, Settings};
use crate::token::Token;

const NOW: u64 = 1_700_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn entry(json: &Value) -> KeyEntry {
    serde_json::from_value(json.clone()).unwrap()
}

fn keys() -> KeySet {
    keys_on(VerifySignature::default())
}

/// The keys, on a host that checks signatures so.
fn keys_on(host: VerifySignature) -> KeySet {
    let entries = [
        json!({"kid": "hs", "alg": "HS256", "secret": SECRET}),
        json!({"kid": "rs", "alg": "RS256", "pem": include_str!("../../testdata/rsa.pub.pem")}),
        json!({"kid": "es", "alg": "ES256", "pem": include_str!("../../testdata/ec.pub.pem")}),
        json!({"kid": "es384", "alg": "ES384", "pem": include_str!("../../testdata/p384.pub.pem")}),
        json!({"kid": "ed", "alg": "EdDSA", "pem": include_str!("../../testdata/ed.pub.pem")}),
    ];
    KeySet::from_entries(entries.iter().map(entry).collect(), host).unwrap()
}

/// Judges a request with these headers, over a connection with these properties.
fn judged(policy: &Policy, headers: &[(&str, Vec<u8>)], connection: &[(&str, &str)], now_s: u64) -> Judged {
    let property = |name: &str| connection.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
    let credentials = Credentials::new(headers.iter().cloned().collect());
    policy.judge(&Evidence {
        credentials: &credentials,
        keys: &keys(),
        answer: &|_| None,
        connection: &property,
        now_s,
    })
}

fn judge(policy: &Policy, keys: &KeySet, authorization: &[Vec<u8>], now_s: u64) -> Result<Admitted, Refusal> {
    let headers = authorization.iter().map(|value| ("authorization", value));
    let credentials = Credentials::new(headers.collect());
    policy.judge(&Evidence { credentials: &credentials, keys, answer: &|_| None, connection: &|_| None, now_s }).outcome
}

fn signing_key(kid: &str) -> (Algorithm, EncodingKey) {
    match kid {
        "rs" => (Algorithm::RS256, EncodingKey::from_rsa_pem(include_bytes!("../../testdata/rsa.pem")).unwrap()),
        "es" => (Algorithm::ES256, EncodingKey::from_ec_pem(include_bytes!("../../testdata/ec.pem")).unwrap()),
        "es384" => (Algorithm::ES384, EncodingKey::from_ec_pem(include_bytes!("../../testdata/p384.pem")).unwrap()),
        "ed" => (Algorithm::EdDSA, EncodingKey::from_ed_pem(include_bytes!("../../testdata/ed.pem")).unwrap()),
        _ => (Algorithm::HS256, EncodingKey::from_secret(SECRET.as_bytes())),
    }
}

/// A bearer header with a token made by the key of this name.
fn bearer(kid: &str, claims: &Value) -> Vec<Vec<u8>> {
    let (alg, key) = signing_key(kid);
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(alg) };
    vec![format!("Bearer {}", jsonwebtoken::encode(&header, claims, &key).unwrap()).into_bytes()]
}

fn rules(json: &Value) -> Policy {
    let mut json = json.clone();
    json["keys"] = json!([{"alg": "HS256", "secret": SECRET}]);
    let checked = serde_json::from_value::<Settings>(json).unwrap().checked(&VerifySignature::default()).unwrap();
    assert!(matches!(checked.keys, KeySource::Inline(_)));
    checked.policy
}

#[test]
fn each_algorithm_verifies_its_own_tokens() {
    for kid in ["hs", "rs", "es", "es384", "ed"] {
        let judged = judge(&rules(&json!({})), &keys(), &bearer(kid, &json!({"exp": NOW + 1})), NOW);
        assert_eq!(judged.map(|admitted| admitted.holder.is_some()), Ok(true), "{kid}");
    }
}

#[test]
fn claims_are_checked_against_the_rules() {
    let rules = rules(&json!({"issuer": "https://idp", "audience": "api", "leeway": 30, "required_scopes": ["read"]}));
    let good = json!({"iss": "https://idp", "aud": ["web", "api"], "scope": "read write", "exp": NOW + 60});
    for (change, want) in [
        (json!({}), None),
        (json!({"aud": "api"}), None),
        (json!({"scope": null, "scp": ["read"]}), None),
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": 1_700_000_000.5}), None),
        (json!({"nbf": NOW + 30}), None),
        (json!({"exp": NOW - 30}), Some(Refusal::Expired)),
        (json!({"exp": null}), Some(Refusal::Claims)),
        (json!({"exp": "soon"}), Some(Refusal::Claims)),
        (json!({"exp": -1}), Some(Refusal::Claims)),
        (json!({"nbf": NOW + 31}), Some(Refusal::NotYetValid)),
        (json!({"nbf": []}), Some(Refusal::Claims)),
        (json!({"iss": "https://other"}), Some(Refusal::Issuer)),
        (json!({"iss": null}), Some(Refusal::Issuer)),
        (json!({"aud": "web"}), Some(Refusal::Audience)),
        (json!({"aud": null}), Some(Refusal::Audience)),
        (json!({"aud": "web api"}), Some(Refusal::Audience)),
        (json!({"scope": "write"}), Some(Refusal::Scope)),
        (json!({"scope": "reader"}), Some(Refusal::Scope)),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(judge(&rules, &keys(), &bearer("hs", &claims), NOW).err(), want, "{change}");
    }
}

#[test]
fn a_token_has_to_come_exactly_once_and_as_a_bearer() {
    let good = bearer("hs", &json!({"exp": NOW + 1}));
    let lower = String::from_utf8(good[0].clone()).unwrap().replace("Bearer", "bearer");
    for (headers, want) in [
        (vec![], Some(Refusal::Missing)),
        (vec![b"Basic YTpi".to_vec()], Some(Refusal::Missing)),
        (vec![b"Bearer".to_vec()], Some(Refusal::Malformed)),
        (vec![b"Bearer ".to_vec()], Some(Refusal::Malformed)),
        (vec![b"Bearer x".to_vec()], Some(Refusal::Malformed)),
        (vec![b"Bearer a.b.c.d".to_vec()], Some(Refusal::Malformed)),
        (vec![b"Bearer \xff\xfe.a.b".to_vec()], Some(Refusal::Malformed)),
        (vec![format!("Bearer {}", "a".repeat(20_000)).into_bytes()], Some(Refusal::Malformed)),
        (vec![good[0].clone(), good[0].clone()], Some(Refusal::Twice)),
        (vec![lower.into_bytes()], None),
        (good, None),
    ] {
        assert_eq!(judge(&rules(&json!({})), &keys(), &headers, NOW).err(), want, "{headers:?}");
    }
}

/// A token with any header, its signature made by the HS256 secret.
fn forged(header: &Value, claims: &Value) -> Vec<Vec<u8>> {
    use base64::Engine;
    let encode = |part: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    vec![format!("Bearer {message}.{signature}").into_bytes()]
}

#[test]
fn the_key_and_not_the_token_chooses_the_algorithm() {
    let claims = json!({"exp": NOW + 1});
    for (header, want) in [
        (json!({"alg": "HS256", "kid": "hs"}), None),
        (json!({"alg": "HS256"}), None),
        (json!({"alg": "none"}), Some(Refusal::Algorithm)),
        (json!({"alg": "none", "kid": "hs"}), Some(Refusal::Algorithm)),
        (json!({"alg": "hs256", "kid": "hs"}), Some(Refusal::Algorithm)),
        (json!({"alg": "HS256", "kid": "rs"}), Some(Refusal::Algorithm)),
        (json!({"alg": "HS384", "kid": "hs"}), Some(Refusal::Algorithm)),
        (json!({"alg": "HS256", "kid": "gone"}), Some(Refusal::UnknownKey)),
        (json!({"alg": "RS256", "kid": "rs"}), Some(Refusal::Signature)),
        (json!({"alg": "ES256", "kid": "es"}), Some(Refusal::Signature)),
        (json!({"alg": "HS256", "crit": ["exp"]}), Some(Refusal::Malformed)),
        (json!({"kid": "hs"}), Some(Refusal::Malformed)),
        (json!(["HS256"]), Some(Refusal::Malformed)),
    ] {
        let judged = judge(&rules(&json!({})), &keys(), &forged(&header, &claims), NOW);
        assert_eq!(judged.err(), want, "{header}");
    }
    let no_object = forged(&json!({"alg": "HS256"}), &json!(["exp"]));
    assert_eq!(judge(&rules(&json!({})), &keys(), &no_object, NOW), Err(Refusal::Claims));
}

#[test]
fn forwarded_claims_replace_whatever_the_client_sent() {
    let rules = rules(&json!({
        "keep_token": false,
        "forward_claims": {"sub": "x-user", "plan": "x-plan", "admin": "x-admin", "evil": "x-evil", "roles": "x-roles"},
    }));
    let claims =
        json!({"exp": NOW + 1, "sub": "ann", "admin": true, "evil": "a\r\nx-admin: true", "roles": ["a", "b"]});
    let admitted = judge(&rules, &keys(), &bearer("hs", &claims), NOW).unwrap();
    let headers: Vec<_> = rules.changes(&admitted).collect();
    assert_eq!(
        headers,
        [
            ("authorization", None),
            ("x-admin", Some("true")),
            ("x-evil", None),
            ("x-plan", None),
            ("x-roles", Some("[\"a\",\"b\"]")),
            ("x-user", Some("ann")),
        ]
    );
}

#[test]
fn refusals_challenge_as_rfc_6750_says() {
    let rules = rules(&json!({"required_scopes": ["read", "write"]}));
    for (refusal, want) in [
        (Refusal::Missing, (401, "token_missing", "www-authenticate: Bearer")),
        (
            Refusal::Expired,
            (
                401,
                "token_expired",
                "www-authenticate: Bearer error=\"invalid_token\", error_description=\"The token has expired\"",
            ),
        ),
        (
            Refusal::Scope,
            (
                403,
                "scope_missing",
                "www-authenticate: Bearer error=\"insufficient_scope\", \
                 error_description=\"The credential lacks a scope this request needs\", scope=\"read write\"",
            ),
        ),
        (Refusal::KeysUnavailable, (503, "keys_unavailable", "retry-after: 1")),
    ] {
        let reply = rules.reply(refusal, &rules.access.scopes);
        let headers: Vec<String> =
            reply.headers().all().iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!((reply.status(), reply.code().unwrap(), headers.join("; ").as_str()), want);
    }
}

#[test]
fn a_remembered_token_is_judged_by_its_claims_again_and_covers_no_other() {
    let (rules, keys) = (rules(&json!({"leeway": 0})), keys());
    let token = bearer("rs", &json!({"exp": NOW + 10}));
    assert!(judge(&rules, &keys, &token, NOW).is_ok());
    assert!(judge(&rules, &keys, &token, NOW + 9).is_ok());
    assert_eq!(judge(&rules, &keys, &token, NOW + 10), Err(Refusal::Expired));
    let mut other = token;
    let letter = other[0].iter_mut().nth_back(9).unwrap();
    *letter = if *letter == b'A' { b'B' } else { b'A' };
    assert_eq!(judge(&rules, &keys, &other, NOW), Err(Refusal::Signature));
}

#[test]
fn remembering_is_bounded() {
    let keys = keys();
    let token = || Rc::new(Token { holder: Err(Refusal::Issuer), times: Times::default() });
    let named = |number: u32| format!("header.payload.{number:016}");
    for number in 0..2000 {
        keys.remember(named(number).as_bytes(), token());
    }
    keys.remember(&[b'y'; 5000], token());
    let remembered = (0..2000).filter(|number| keys.remembered(named(*number).as_bytes()).is_some()).count();
    assert!((1..=512).contains(&remembered), "{remembered}");
    assert!(keys.remembered(named(1999).as_bytes()).is_some());
    for other in ["header.payloae.0000000000001999", "header.payload.00000000000019990", "0000000000001999", "9"] {
        assert!(keys.remembered(other.as_bytes()).is_none(), "{other}: the end alone is not the token");
    }
    assert!(keys.remembered(&[b'y'; 5000]).is_none());
}

#[test]
fn a_token_has_to_be_of_a_type_that_is_accepted() {
    let claims = json!({"exp": NOW + 1});
    for (types, typ, want) in [
        (json!([]), json!("JWT"), None),
        (json!([]), json!("application/at+JWT"), None),
        (json!([]), json!("logout+jwt"), Some(Refusal::Kind)),
        (json!(["at+jwt"]), json!("at+jwt"), None),
        (json!(["application/AT+jwt"]), json!("at+jwt"), None),
        (json!(["at+jwt"]), json!("JWT"), Some(Refusal::Kind)),
        (json!(["at+jwt"]), json!(null), Some(Refusal::Kind)),
        (json!([]), json!(7), Some(Refusal::Malformed)),
    ] {
        let token = forged(&json!({"alg": "HS256", "typ": typ}), &claims);
        assert_eq!(judge(&rules(&json!({"types": types})), &keys(), &token, NOW).err(), want, "{types} {typ}");
    }
}

#[test]
fn a_token_cannot_bring_its_own_key() {
    let claims = json!({"exp": NOW + 1});
    let jwk = json!({"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"});
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["AAAA"])),
    ] {
        for (kid, want) in [("hs", None), ("rs", Some(Refusal::Algorithm)), ("evil", Some(Refusal::UnknownKey))] {
            let mut header = json!({"alg": "HS256", "kid": kid});
            header[name] = value.clone();
            let got = judge(&rules(&json!({})), &keys(), &forged(&header, &claims), NOW);
            assert_eq!(got.err(), want, "{header}");
        }
    }
}

#[test]
fn required_claims_are_found_inside_of_others_and_by_value() {
    let rules = rules(&json!({"require_exp": false, "issuer": ["a", "b"], "required_claims": {
        "tenant": "acme", "realm_access.roles": ["admin", "ops"], "https://acme.example/plan": null,
    }}));
    let good = json!({"iss": "b", "tenant": "acme", "realm_access": {"roles": ["ops", "dev"]},
        "https://acme.example/plan": 1});
    for (change, want) in [
        (json!({}), None),
        (json!({"exp": NOW}), Some(Refusal::Expired)),
        (json!({"iss": "c"}), Some(Refusal::Issuer)),
        (json!({"tenant": "acme2"}), Some(Refusal::ClaimMissing)),
        (json!({"tenant": ["x", "acme"]}), None),
        (json!({"realm_access": {"roles": ["dev"]}}), Some(Refusal::ClaimMissing)),
        (json!({"realm_access": {"roles": "admin"}}), None),
        (json!({"realm_access": "admin"}), Some(Refusal::ClaimMissing)),
        (json!({"https://acme.example/plan": null}), Some(Refusal::ClaimMissing)),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let token = forged(&json!({"alg": "HS256", "kid": "hs"}), &claims);
        let got = judge(&rules, &keys(), &token, NOW + 60);
        assert_eq!(got.err(), want, "{change}");
    }
}

/// Everything at once: `key-a` is the API key of ann, whose certificate is known too.
fn several(json: &Value) -> Policy {
    let mut json = json.clone();
    let sha256 = "f10f781241e2246678b6b45c857069208152a53863e47fac33f607ab405006f4";
    json["api_key_from"] = json!({"header": "x-api-key"});
    json["consumers"] = json!([
        {"id": "ann", "api_keys": [sha256], "scopes": ["read"]},
        {"id": "billing", "certificates": [{"dns": "billing.acme"}], "roles": ["ops"]},
    ]);
    json["forward_claims"] = json!({"sub": "x-user"});
    rules(&json)
}

const CERTIFICATE: &[(&str, &str)] =
    &[("sha256_peer_certificate_digest", "00"), ("dns_san_peer_certificate", "billing.acme")];

#[test]
fn the_first_scheme_that_applies_decides() {
    let token = || bearer("hs", &json!({"exp": NOW + 1, "sub": "tom"})).remove(0);
    let key = |key: &str| ("x-api-key", key.as_bytes().to_vec());
    let wrong = || ("authorization", b"Bearer a.b.c".to_vec());
    for (order, headers, connection, want) in [
        (json!([]), vec![], &[][..], (By::Nothing, Err(Refusal::Missing))),
        (json!([]), vec![("authorization", token())], &[], (By::Jwt, Ok("tom"))),
        (json!([]), vec![key("key-a")], &[], (By::ApiKey, Ok("ann"))),
        (json!([]), vec![key("key-b")], CERTIFICATE, (By::ApiKey, Err(Refusal::ApiKey))),
        (json!([]), vec![], CERTIFICATE, (By::ClientCertificate, Ok("billing"))),
        (json!([]), vec![], &CERTIFICATE[..1], (By::ClientCertificate, Err(Refusal::Certificate))),
        (json!([]), vec![wrong(), key("key-a")], &[], (By::Jwt, Err(Refusal::Malformed))),
        (json!(["api_key", "jwt", "client_certificate"]), vec![wrong(), key("key-a")], &[], (By::ApiKey, Ok("ann"))),
    ] {
        let judged = judged(&several(&json!({"order": order})), &headers, connection, NOW);
        let user = |admitted: &Admitted| admitted.holder.as_ref().and_then(|holder| holder.headers[0].clone());
        let who = judged.outcome.map(|admitted| user(&admitted).unwrap_or_default());
        assert_eq!((judged.by, who), (want.0, want.1.map(str::to_owned)), "{order} {headers:?}");
    }
}

#[test]
fn the_table_says_who_may_do_what() {
    let policy = several(&json!({"rules": [
        {"methods": ["GET"], "path": "/public/*", "anonymous": true},
        {"methods": ["GET"], "path": "/orders/{id}", "scopes": ["read"]},
        {"methods": ["PUT"], "path": "/orders/{id}", "scopes": ["read", "write"]},
        {"path": "/admin/*", "roles": ["admin", "ops"]},
    ]}));
    let key = ("x-api-key", b"key-a".to_vec());
    for (method, path, headers, connection, want) in [
        ("GET", "/public/a", vec![], &[][..], None),
        ("GET", "/public/a", vec![("x-api-key", b"wrong".to_vec())], &[], Some(Refusal::ApiKey)),
        ("GET", "/orders/7?x=/public/", vec![], &[], Some(Refusal::Missing)),
        ("GET", "/orders/7", vec![key.clone()], &[], None),
        ("GET", "/orders/7", vec![], CERTIFICATE, Some(Refusal::Scope)),
        ("PUT", "/orders/7", vec![key.clone()], &[], Some(Refusal::Scope)),
        ("DELETE", "/orders/7", vec![key.clone()], &[], Some(Refusal::NoRule)),
        ("POST", "/admin/users", vec![key.clone()], &[], Some(Refusal::Role)),
        ("POST", "/admin/users", vec![], CERTIFICATE, None),
        ("GET", "/", vec![key.clone()], &[], Some(Refusal::NoRule)),
    ] {
        let mut all = headers;
        all.extend([(":method", method.into()), (":path", path.into())]);
        assert_eq!(judged(&policy, &all, connection, NOW).outcome.err(), want, "{method} {path}");
    }
}

#[test]
fn a_row_may_have_a_condition() {
    let policy = several(&json!({"rules": [
        {"methods": ["GET"], "path": "/public/*", "anonymous": true, "when": "request.headers['x-beta'] == '1'"},
        {"path": "/users/{user}/*", "when": "claims.sub == captures.user || 'ops' in claims.roles"},
    ]}));
    let key = ("x-api-key", b"key-a".to_vec());
    let beta = ("x-beta", b"1".to_vec());
    for (path, headers, connection, want) in [
        ("/public/a", vec![beta], &[][..], None),
        ("/public/a", vec![], &[], Some(Refusal::Condition)),
        ("/users/ann/orders", vec![key.clone()], &[], None),
        ("/users/bob/orders", vec![key], &[], Some(Refusal::Condition)),
        ("/users/bob/orders", vec![], CERTIFICATE, None),
        ("/users/bob/orders", vec![], &[], Some(Refusal::Missing)),
    ] {
        let mut all = headers;
        all.extend([(":method", "GET".into()), (":path", path.into())]);
        assert_eq!(judged(&policy, &all, connection, NOW).outcome.err(), want, "{path}");
    }
}

#[test]
fn anonymous_requests_have_no_identity_whatever_they_say() {
    let policy = several(&json!({"anonymous": true}));
    let judged = judged(&policy, &[("x-user", b"root".to_vec())], &[], NOW);
    assert!(policy.changes(&judged.outcome.unwrap()).eq([("x-user", None)]));
}

#[test]
fn later_filters_get_the_claims_that_are_named() {
    let claims = json!({"exp": NOW + 1, "sub": "ann", "a": {"b": [1, 2.5]}, "https://x/y": "z", "secret": 1});
    for (share, want) in [
        (json!(false), None),
        (json!(true), Some(claims.to_string())),
        (
            json!(["sub", "a.b", "https://x/y", "none"]),
            Some(r#"{"sub":"ann","a.b":[1,2.5],"https://x/y":"z"}"#.to_owned()),
        ),
    ] {
        let policy = rules(&json!({"share_claims": share}));
        let admitted = judge(&policy, &keys(), &bearer("hs", &claims), NOW).unwrap();
        assert_eq!(admitted.holder.unwrap().shared.as_deref(), want.as_deref(), "{share}");
    }
}

#[test]
fn a_realm_and_every_scheme_that_can_be_challenged_are_named() {
    let hash = "pbkdf2-sha256$1000$c2FsdHNhbHQ=$BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let policy = rules(&json!({"realm": "orders", "consumers": [{"id": "ann", "password": hash}]}));
    for (refusal, want) in [
        (Refusal::Missing, vec!["Bearer realm=\"orders\"", "Basic realm=\"orders\", charset=\"UTF-8\""]),
        (Refusal::NoRule, vec![]),
    ] {
        let reply = policy.reply(refusal, &[]);
        let challenges: Vec<String> =
            reply.headers().get_all("www-authenticate").iter().map(ToString::to_string).collect();
        assert_eq!(challenges, want);
    }
}

#[test]
fn a_host_that_checks_signatures_is_believed_and_one_that_does_not_answer_is_not_missed() {
    let silent: Call = |_| None;
    let yes: Call = |_| Some(vec![0x08, 1]);
    let no: Call = |_| Some(vec![]);
    let judged = |host: Call, token: &[Vec<u8>]| {
        judge(&rules(&json!({})), &keys_on(VerifySignature::new(host)), token, NOW).err()
    };
    for (alg, kid) in [("RS256", "rs"), ("ES256", "es"), ("ES384", "es384")] {
        let good = bearer(kid, &json!({"exp": NOW + 1}));
        let mut forged = good.clone();
        let at = forged[0].len() - 9;
        forged[0][at] = if forged[0][at] == b'A' { b'B' } else { b'A' };
        for (host, token, want) in [
            (silent, &good, None),
            (silent, &forged, Some(Refusal::Signature)),
            (yes, &forged, None),
            (no, &good, Some(Refusal::Signature)),
        ] {
            assert_eq!(judged(host, token), want, "{alg}");
        }
    }
    let ed = bearer("ed", &json!({"exp": NOW + 1}));
    assert_eq!(judged(no, &ed), None, "the host is asked about RSA and ECDSA alone");
}
