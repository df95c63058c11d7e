use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::foreign::tests::es512;
use crate::refusal::Refusal;
use crate::token::check_signature;

fn problem(entry: &Value) -> String {
    let entries = vec![serde_json::from_value(entry.clone()).unwrap()];
    KeySet::from_entries(entries, VerifySignature::default()).err().unwrap_or_default()
}

#[test]
fn a_key_that_cannot_be_used_says_why() {
    let long = "a".repeat(32);
    for (entry, want) in [
        (json!({"alg": "HS256", "secret": long}), ""),
        (json!({"alg": "HS256", "secret_base64": STANDARD.encode(&long)}), ""),
        (json!({"secret": long}), "keys[0]: `alg` is needed beside a secret or a pem"),
        (json!({"alg": "none", "secret": long}), "keys[0]: `none` is not a signature algorithm known here"),
        (json!({"alg": "RS256", "secret": long}), "keys[0]: the key does not fit RS256"),
        (
            json!({"alg": "HS256", "secret": "short"}),
            "keys[0]: a secret for HS256 has at least 32 bytes (RFC 7518 §3.2)",
        ),
        (json!({"alg": "HS512", "secret": long}), "keys[0]: a secret for HS512 has at least 64 bytes (RFC 7518 §3.2)"),
        (json!({"alg": "HS256"}), "keys[0]: a key has exactly one of `secret`, `secret_base64`, `pem` and `jwk`"),
        (json!({"alg": "RS256", "pem": "no pem"}), "keys[0]: `pem` is not a public key known here"),
        (
            json!({"alg": "ES384", "pem": include_str!("../../testdata/ec.pub.pem")}),
            "keys[0]: the key does not fit ES384",
        ),
        (
            json!({"alg": "ES512", "pem": include_str!("../../testdata/p521.pub.pem")}),
            "keys[0]: ES512 takes a host that checks it by `verify_signature`, as Portcullis and Envoy do, and this one does not; \
             use ES256 or ES384",
        ),
        (
            json!({"alg": "ES512", "pem": include_str!("../../testdata/ec.pub.pem")}),
            "keys[0]: the key does not fit ES512",
        ),
        (
            json!({"alg": "HS256", "pem": include_str!("../../testdata/ec.pub.pem")}),
            "keys[0]: the key does not fit HS256",
        ),
    ] {
        assert_eq!(problem(&entry), want, "{entry}");
    }
}

#[test]
fn a_jwk_that_cannot_be_used_says_why() {
    let b64 = |length: usize| URL_SAFE_NO_PAD.encode(vec![0x87; length]);
    for (entry, want) in [
        (json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(31)}}), "keys[0]: an Ed25519 key has 32 bytes"),
        (
            json!({"jwk": {"kty": "EC", "crv": "P-256", "x": b64(32), "y": b64(31)}}),
            "keys[0]: `x` and `y` have to be 32 bytes long",
        ),
        (
            json!({"jwk": {"kty": "EC", "crv": "P-256", "x": b64(32), "y": b64(32)}}),
            "keys[0]: the key does not fit ES256",
        ),
        (
            json!({"jwk": {"kty": "RSA", "n": b64(128), "e": "AQAB"}}),
            "keys[0]: an RSA key has 2048 to 4096 bits and a small, odd exponent",
        ),
        (
            json!({"jwk": {"kty": "RSA", "n": b64(256), "e": "AQ"}}),
            "keys[0]: an RSA key has 2048 to 4096 bits and a small, odd exponent",
        ),
        (
            json!({"alg": "RS256", "jwk": {"kty": "RSA", "alg": "PS256", "n": b64(256), "e": "AQAB"}}),
            "keys[0]: `alg` is RS256, but PS256 in the jwk",
        ),
        (
            json!({"jwk": {"kty": "RSA", "use": "enc", "n": b64(256), "e": "AQAB"}}),
            "keys[0]: the key is not meant for verifying signatures",
        ),
        (
            json!({"jwk": {"kty": "RSA", "d": "AQ", "n": b64(256), "e": "AQAB"}}),
            "keys[0]: a private key is not needed here and does not belong here",
        ),
    ] {
        assert_eq!(problem(&entry), want, "{entry}");
    }
}

#[test]
fn a_jwks_document_is_taken_for_what_is_usable_in_it() {
    let b64 = |length: usize| URL_SAFE_NO_PAD.encode(vec![0x87; length]);
    let good = json!({"kty": "RSA", "kid": "a", "n": b64(256), "e": "AQAB", "x5c": ["…"], "note": 1});
    for (document, want) in [
        (json!({"keys": [good]}), Some(1)),
        (
            json!({"keys": [good, {"kty": "oct", "k": b64(32)}, {"kty": "X"}, 3, null, {"kty": "OKP", "x": "AA"}]}),
            Some(1),
        ),
        (json!({"keys": vec![good.clone(); 1000]}), Some(MAX_KEYS)),
        (json!({"keys": []}), None),
        (json!({"keys": 1}), None),
        (json!([]), None),
    ] {
        let keys =
            KeySet::from_jwks(document.to_string().as_bytes(), &Algorithms::default(), VerifySignature::default());
        assert_eq!(keys.ok().map(|keys| keys.len()), want);
    }
}

#[test]
fn a_key_that_does_not_say_what_it_is_for_is_for_what_its_issuer_offers() {
    let b64 = |length: usize| URL_SAFE_NO_PAD.encode(vec![0x87; length]);
    let rsa = |alg: Option<&str>| json!({"kty": "RSA", "alg": alg, "n": b64(256), "e": "AQAB"});
    for (key, allowed, offered, want) in [
        (rsa(None), &[][..], &[][..], Some("RS256")),
        (rsa(None), &[], &["RS256", "PS256"], Some("RS256")),
        (rsa(None), &[], &["none", "ES256", "PS256"], Some("PS256")),
        (rsa(None), &[], &["ES256"], None),
        (rsa(Some("PS512")), &[], &["RS256"], Some("PS512")),
        (rsa(None), &["PS384"], &["RS256"], Some("PS384")),
        (rsa(Some("RS256")), &["PS256"], &["RS256"], None),
        (rsa(Some("RS256")), &["PS256", "RS256"], &[], Some("RS256")),
    ] {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let algorithms = Algorithms { allowed: names(allowed), offered: names(offered) };
        let document = json!({"keys": [key]}).to_string();
        let keys = KeySet::from_jwks(document.as_bytes(), &algorithms, VerifySignature::default()).ok();
        let alg = keys.as_ref().map(|keys| keys.keys[0].algorithm.name());
        assert_eq!(alg, want, "{key} {allowed:?} {offered:?}");
    }
}

/// Example 3 of RFC 7520 (§3.1, §4.3).
const RFC_7520: (&str, &str) = (
    r#"{"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521",
        "x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}"#,
    "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.\
     SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBk\
     b24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.\
     AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kv\
     AD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
);

#[test]
fn es512_is_for_the_host_to_check_and_without_one_its_keys_are_passed_over() {
    let (jwk, token) = RFC_7520;
    let document = format!("{{\"keys\":[{jwk}]}}");
    let keys = |host| KeySet::from_jwks(document.as_bytes(), &Algorithms::default(), host);
    let missing = keys(VerifySignature::default()).err();
    assert_eq!(missing.as_deref(), Some("the JWKS document holds no usable key"));
    let keys = keys(VerifySignature::new(es512)).unwrap();
    assert!(check_signature(token, &keys).is_ok());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for (token, want) in [
        (token.replace("AE_R", "AE_S"), Refusal::Signature),
        (token.replace("SXTi", "SXTj"), Refusal::Signature),
        (format!("{signed}.{}", &signature[4..]), Refusal::Signature),
        (token.replace("eyJhbGciOiJFUzUxMiIs", "eyJhbGciOiJFUzM4NCIs"), Refusal::Algorithm),
    ] {
        assert_eq!(check_signature(&token, &keys).err(), Some(want), "{token}");
    }
}

/// Valid cases that are refused here on purpose: PS384 under a key bound to PS256; a key that says it is for `ES521`, which is no
/// algorithm; characters outside base64url.
const STRICTER: &[(u64, Refusal)] = &[
    (346, Refusal::Algorithm),
    (347, Refusal::UnknownKey),
    (350, Refusal::Algorithm),
    (351, Refusal::UnknownKey),
    (372, Refusal::Malformed),
    (373, Refusal::Malformed),
];

/// Called invalid, but letter for letter the token and key of case 357, which is called valid.
const CONTRADICTORY: &[u64] = &[367, 370];

/// Project Wycheproof's vectors in this file, where they are at hand.
fn wycheproof(file: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(file);
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("SKIPPED: no test vectors at {}", path.display());
        return None;
    };
    Some(serde_json::from_slice(&text).unwrap())
}

#[test]
fn wycheproof_signatures_are_told_apart() {
    let Some(vectors) = wycheproof("wycheproof-jws.json") else { return };
    let differing: Vec<_> = vectors["testGroups"].as_array().unwrap().iter().flat_map(differences).collect();
    assert_eq!(differing, STRICTER, "{differing:?}");
}

/// Sets of keys that Wycheproof wants refused as a whole, and of which the one good key is used here: secrets beside public keys, two
/// keys of one name. And a key with a weakness that its modulus shows (ROCA), which is not looked for.
const LENIENT: &[u64] = &[1, 4, 7];

#[test]
fn wycheproof_sets_of_keys_are_told_apart() {
    let Some(vectors) = wycheproof("wycheproof-jwk.json") else { return };
    let mut passed = Vec::new();
    for group in vectors["testGroups"].as_array().unwrap() {
        let set = group.get("public").unwrap_or(&group["private"]);
        let jwks = set["keys"].as_array().unwrap().iter().map(|jwk| {
            let mut jwk = jwk.clone();
            jwk.as_object_mut().unwrap().remove("d");
            serde_json::from_value::<Jwk>(jwk)
                .ok()
                .and_then(|jwk| jwk.key(None, None, &VerifySignature::default()).ok())
        });
        let keys = KeySet { keys: jwks.flatten().collect(), ..KeySet::default() };
        for case in group["tests"].as_array().unwrap() {
            let passes = check_signature(case["jws"].as_str().unwrap_or_default(), &keys).is_ok();
            let (id, valid) = (case["tcId"].as_u64().unwrap(), case["result"] == "valid");
            assert!(passes || !valid, "{case} must pass");
            passed.extend((passes && !valid).then_some(id));
        }
    }
    assert_eq!(passed, LENIENT);
}

/// The cases of a group that come out otherwise than Wycheproof says.
fn differences(group: &Value) -> Vec<(u64, Refusal)> {
    let mut jwk = group.get("public").unwrap_or(&group["private"]).clone();
    jwk.as_object_mut().unwrap().remove("d");
    let keys =
        serde_json::from_value::<Jwk>(jwk).ok().and_then(|jwk| jwk.key(None, None, &VerifySignature::default()).ok());
    let keys = KeySet { keys: keys.into_iter().collect(), ..KeySet::default() };
    let cases = group["tests"].as_array().unwrap().iter();
    cases
        .filter_map(|case| {
            let got = check_signature(case["jws"].as_str().unwrap_or_default(), &keys);
            let (id, valid) = (case["tcId"].as_u64().unwrap(), case["result"] == "valid");
            assert!(valid || got.is_err() || CONTRADICTORY.contains(&id), "{case} must not pass");
            got.err().filter(|_| valid).map(|why| (id, why))
        })
        .collect()
}
