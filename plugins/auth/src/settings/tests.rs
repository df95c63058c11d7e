use portcullis_sdk::parse_config;

use super::*;

/// Settings, in which `KEY` stands for a key of tokens and `DIGEST` for a SHA-256, and how what is wrong with them begins; nothing, if nothing is.
#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (text, want) in table {
        let json = text.replace("KEY", r#"{"alg":"HS256","secret":"0123456789abcdef0123456789abcdef"}"#);
        let json = json.replace("DIGEST", &"ab".repeat(32));
        let checked = parse_config::<Settings>(json.as_bytes())
            .and_then(|settings| settings.checked(&VerifySignature::default()).map(|_| ()));
        let why = checked.err().unwrap_or_default();
        assert!(why.starts_with(want) && why.is_empty() == want.is_empty(), "{text}: {why}");
    }
}

#[test]
fn settings_for_tokens_say_what_is_wrong_with_them() {
    check(&[
        (r#"{"keys":[KEY]}"#, ""),
        (r#"{"keys":[KEY],"audience":["a","b"],"leeway":5,"keep_token":false}"#, ""),
        (r#"{"keys":[]}"#, "`keys` is empty"),
        (r#"{"keys":[KEY],"audience":[]}"#, "`audience` is empty"),
        (r#"{"keys":[KEY],"required_claims":{"a":[]}}"#, "`required_claims.a` is empty"),
        (r#"{"keys":[KEY],"token_from":{"cookie":"a b"}}"#, "`token_from`: `a b` is not a name"),
        (r#"{"issuer":"a"}"#, "`keys`, `jwks`, `discovery` or `introspection` is needed beside"),
        (
            r#"{"keys":[KEY],"jwks":{"upstream":"idp","path":"/j"}}"#,
            "`keys`, `jwks` and `discovery` exclude each other",
        ),
        (r#"{"keys":[KEY],"algorithms":["HS256"]}"#, "`algorithms` is for keys that are fetched"),
        (
            r#"{"jwks":{"upstream":"idp","path":"/j"},"algorithms":["none"]}"#,
            "`none` is not a signature algorithm known here",
        ),
        (
            r#"{"jwks":{"upstream":"idp","path":"/j"},"algorithms":["ES512"]}"#,
            "`algorithms`: ES512 takes a host that checks it",
        ),
    ]);
}

#[test]
fn settings_of_what_is_asked_over_the_network_say_what_is_wrong_with_them() {
    check(&[
        (r#"{"issuer":"https://idp.example","jwks":{"upstream":"idp","path":"/jwks.json"}}"#, ""),
        (r#"{"jwks":{"upstream":"idp","path":"jwks"}}"#, "`jwks.path` has to be there, and to begin with `/`"),
        (r#"{"jwks":{"upstream":"idp"}}"#, "`jwks.path` has to be there"),
        (
            r#"{"issuer":"https://a","discovery":{"upstream":"idp","path":"/k"}}"#,
            "`discovery.path` is the issuer's to say",
        ),
        (
            r#"{"jwks":{"upstream":"idp","path":"/j","refresh":"10ms"}}"#,
            "`jwks.refresh` is at least 1s and `jwks.timeout` at least 1ms",
        ),
        (r#"{"issuer":"https://idp.example","discovery":{"upstream":"idp"},"algorithms":["ES256"]}"#, ""),
        (r#"{"discovery":{"upstream":"idp"}}"#, "`discovery` needs an `issuer`, and just one"),
        (r#"{"issuer":"idp","discovery":{"upstream":"idp"}}"#, "`issuer` is `idp`, which is no address"),
        (r#"{"issuer":"https://a","discovery":{"upstream":""}}"#, "`discovery.upstream` is empty"),
        (r#"{"introspection":{"upstream":"idp","path":"/i","client_id":"a","client_secret":"b"}}"#, ""),
        (
            r#"{"introspection":{"upstream":"idp","path":"i","client_id":"a","client_secret":"b"}}"#,
            "`introspection.path` has to begin with `/`",
        ),
        (
            r#"{"introspection":{"upstream":"idp","path":"/i","client_id":"","client_secret":"b"}}"#,
            "`introspection.upstream` or `introspection.client_id` is empty",
        ),
    ]);
}

#[test]
fn all_other_settings_say_what_is_wrong_with_them() {
    check(&[
        ("", "one of `keys`, `jwks`, `discovery`, `introspection` and `consumers` is needed"),
        (r#"{"keys":[KEY],"realm":"a\"b"}"#, "`realm` holds a quote"),
        (r#"{"keys":[KEY],"required_scopes":["a b"]}"#, "`a b` is not a scope"),
        (
            r#"{"keys":[KEY],"forward_claims":{"sub":"X-User"}}"#,
            "`forward_claims.sub`: `X-User` is not a header name in lower case",
        ),
        (r#"{"keys":[KEY],"share_claims":true}"#, ""),
        (r#"{"keys":[KEY],"share_claims":[]}"#, "`share_claims` is empty"),
        (r#"{"keyz":[]}"#, "unknown field `keyz`"),
        (r#"{"keys":[KEY],"order":["jwt","basic"]}"#, "`order` has to name each scheme"),
        (r#"{"keys":[KEY],"rules":[{"path":"orders"}]}"#, "rules[0]: `orders` is not a path"),
        (r#"{"keys":[KEY],"rules":[{"methods":["get"]}]}"#, "rules[0]: `get` is not a method"),
        (r#"{"keys":[KEY],"rules":[{},{"when":"claim.a"}]}"#, "rules[1]: `when`: there is no `claim`"),
    ]);
}

#[test]
fn settings_of_consumers_say_what_is_wrong_with_them() {
    check(&[
        (r#"{"consumers":[]}"#, "one of `keys`"),
        (r#"{"consumers":[{"id":"a"}]}"#, "consumers[0]: a consumer has `api_keys`, a `password` or `certificates`"),
        (r#"{"consumers":[{"id":"","password":"x"}]}"#, "consumers[0]: `id` is empty"),
        (r#"{"consumers":[{"id":"a:b","password":"x"}]}"#, "consumers[0]: `id` holds a colon"),
        (r#"{"consumers":[{"id":"a","password":"x"}]}"#, "consumers[0]: `password` is not pbkdf2"),
        (
            r#"{"consumers":[{"id":"a","certificates":[{"dns":"a"}]},{"id":"a","certificates":[{"dns":"b"}]}]}"#,
            "consumers[1]: there is another one of this `id`",
        ),
        (r#"{"consumers":[{"id":"a","certificates":[{"dns":"a"}]}]}"#, ""),
        (
            r#"{"consumers":[{"id":"a","certificates":[{"dns":"a","uri":"b"}]}]}"#,
            "consumers[0]: a certificate has exactly one of",
        ),
        (
            r#"{"consumers":[{"id":"a","certificates":[{"sha256":"b"}]}]}"#,
            "consumers[0]: a certificate's `sha256` has 64",
        ),
        (
            r#"{"api_key_from":{"header":"x-k"}}"#,
            "`api_key_from` needs a `header`, a `cookie` or a `query`, and consumers",
        ),
        (
            r#"{"consumers":[{"id":"a","api_keys":["abc"]}]}"#,
            "consumers[0]: an API key's SHA-256 has 64 hexadecimal digits",
        ),
        (
            r#"{"consumers":[{"id":"a","api_keys":["DIGEST"]}]}"#,
            "`api_key_from` is needed beside the `api_keys` of consumers",
        ),
        (r#"{"api_key_from":{},"consumers":[{"id":"a","api_keys":["DIGEST"]}]}"#, "`api_key_from` needs a `header`"),
        (r#"{"api_key_from":{"query":"k"},"consumers":[{"id":"a","api_keys":["DIGEST"]}]}"#, ""),
    ]);
}
