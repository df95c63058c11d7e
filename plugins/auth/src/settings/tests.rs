use portcullis_sdk::parse_config;

use super::*;

/// Settings, in which `KEY` stands for a key of tokens, and how what is wrong with them begins; nothing, if nothing is.
#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (text, want) in table {
        let json = text.replace("KEY", r#"{"alg":"HS256","secret":"0123456789abcdef0123456789abcdef"}"#);
        let checked = parse_config::<Settings>(json.as_bytes()).and_then(|settings| settings.checked().map(|_| ()));
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
    ]);
}

#[test]
fn settings_of_what_is_asked_over_the_network_say_what_is_wrong_with_them() {
    check(&[
        (r#"{"issuer":"https://idp.example","jwks":{"upstream":"idp","path":"/jwks.json"}}"#, ""),
        (r#"{"jwks":{"upstream":"idp","path":"jwks"}}"#, "`jwks.path` has to begin with `/`"),
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
        (
            "",
            "one of `keys`, `jwks`, `discovery`, `introspection`, `api_keys`, `basic` and `client_certificate` is needed",
        ),
        (r#"{"basic":{"users":[]}}"#, "`basic.users` is empty"),
        (r#"{"api_keys":{"keys":[]}}"#, "`api_keys` needs a `header`"),
        (
            r#"{"api_keys":{"header":"x-api-key","keys":[{"id":"a","sha256":"abc"}]}}"#,
            "api_keys.keys[0]: `sha256` has 64 hexadecimal digits",
        ),
        (
            r#"{"client_certificate":{"consumers":[{"id":"a","dns":"a","uri":"b"}]}}"#,
            "client_certificate.consumers[0]: a client certificate has exactly one of",
        ),
        (r#"{"keys":[KEY],"order":["jwt","basic"]}"#, "`order` has to name each scheme"),
        (r#"{"keys":[KEY],"rules":[{"path":"orders"}]}"#, "rules[0]: `orders` is not a path"),
        (r#"{"keys":[KEY],"rules":[{"methods":["get"]}]}"#, "rules[0]: `get` is not a method"),
        (r#"{"keys":[KEY],"realm":"a\"b"}"#, "`realm` holds a quote"),
        (r#"{"keys":[KEY],"required_scopes":["a b"]}"#, "`a b` is not a scope"),
        (
            r#"{"keys":[KEY],"forward_claims":{"sub":"X-User"}}"#,
            "`forward_claims.sub`: `X-User` is not a header name in lower case",
        ),
        (r#"{"keyz":[]}"#, "unknown field `keyz`"),
    ]);
}
