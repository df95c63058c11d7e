use serde_json::json;

use super::*;

fn holds(text: &str) -> bool {
    let claims = json!({
        "sub": "ann", "tenant": "acme", "level": 3, "email_verified": true, "nothing": null,
        "groups": ["dev", "team-a"], "realm_access": {"roles": ["admin", "ops"]}, "limits": [{"of": "a", "n": 1}, {"of": "b"}],
    });
    let header = |name: &str| match name {
        ":method" => Some("PUT"),
        ":path" => Some("/orders/7?dry=1#x"),
        ":authority" => Some("shop.acme.test"),
        "x-tenant" => Some("acme"),
        _ => None,
    };
    let expression = parse(text).map_err(|why| format!("{text}: {why}")).unwrap();
    let captures = [("id", "7"), ("tenant", "acme")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    expression.holds(&Scope { claims: claims.as_object().unwrap(), captures: &captures, header: &header })
}

#[test]
fn conditions_hold_or_not() {
    for (text, want) in [
        ("true", true),
        ("claims.tenant == 'acme'", true),
        ("claims.tenant == captures.tenant && claims['sub'] != \"bob\"", true),
        ("request.headers['x-tenant'] == claims.tenant", true),
        ("claims.level >= 3 && claims.level < 4 && claims.level + 1 == 4", true),
        ("claims.level > 3", false),
        ("'ops' in claims.realm_access.roles", true),
        ("'dev' in claims.realm_access.roles", false),
        ("claims.groups.exists(g, g.startsWith('team-'))", true),
        ("claims.groups.all(g, g.startsWith('team-'))", false),
        ("claims.groups.exists(a, claims.realm_access.roles.exists(b, a == b))", false),
        ("claims.groups.exists(a, ['x', 'dev'].exists(b, a == b))", true),
        ("claims.groups[1] == 'team-a' && size(claims.groups) == 2", true),
        ("claims.groups == ['dev', 'team-a'] && claims.groups != ['dev']", true),
        ("request.method in ['PUT', 'POST'] ? claims.email_verified : true", true),
        ("request.path == '/orders/7?dry=1#x' && request.url_path == '/orders/7' && request.query == 'dry=1'", true),
        ("request.host.endsWith('.acme.test') && request.host.contains('acme') && request.host.size() == 14", true),
        ("!(claims.sub == 'ann')", false),
        ("!!true && -1 < 0 && 'a' + 'b' == 'ab' && 'a' < 'b' && 'sub' in claims", true),
        ("has(claims.sub) && !has(claims.email) && has(claims.nothing)", true),
        ("has(claims.realm_access.roles) && claims.nothing == null", true),
        ("'it\\'s' == \"it's\" && '\\\\' != ''", true),
        ("1 == 1.0 && 1 != '1'", true),
        ("false || true && false", false),
        ("(false || true) && true", true),
    ] {
        assert_eq!(holds(text), want, "{text}");
    }
}

#[test]
fn what_has_no_value_does_not_hold_and_decides_nothing() {
    for (text, want) in [
        ("claims.email == 'a'", false),
        ("claims.email != 'a'", false),
        ("!(claims.email == 'a')", false),
        ("claims.sub", false),
        ("claims.sub && true", false),
        ("claims.sub < 1", false),
        ("1 + 'a' == 2", false),
        ("claims.groups[2] == 'x'", false),
        ("claims.groups[0.5] == 'dev'", false),
        ("claims.email.domain == 'x'", false),
        ("request.headers['x-none'] == ''", false),
        ("captures.none == ''", false),
        ("size(3) == 1", false),
        ("claims.email == 'a' || true", true),
        ("true || claims.email == 'a'", true),
        ("claims.email == 'a' || false", false),
        ("!(claims.email == 'a' && false)", true),
        ("claims.limits.exists(l, l.n == 1)", true),
        ("claims.limits.exists(l, l.n == 2)", false),
        ("!claims.limits.exists(l, l.n == 2)", false),
        ("!claims.limits.all(l, l.of == 'b')", true),
    ] {
        assert_eq!(holds(text), want, "{text}");
    }
}

#[test]
fn a_loop_in_a_loop_ends() {
    let many: Vec<u32> = (0..2000).collect();
    let claims = json!({ "many": many });
    for (text, want) in
        [("claims.many.all(a, a >= 0)", true), ("claims.many.all(a, claims.many.all(b, a + b >= 0))", false)]
    {
        let expression = parse(text).unwrap();
        let scope = Scope { claims: claims.as_object().unwrap(), captures: &[], header: &|_| None };
        assert_eq!(expression.holds(&scope), want, "{text}");
    }
}

#[test]
fn what_is_no_expression_says_where_and_why() {
    for (text, want) in [
        ("", "at character 1: a value was expected, not the end"),
        ("claims.tenant = 'a'", "at character 15: `=` means nothing here"),
        ("claims.tenant == ", "at character 18: a value was expected, not the end"),
        ("claims.tenant 'a'", "at character 15: an operator or the end was expected, not `'a'`"),
        ("(true", "at character 6: `)` was expected, not the end"),
        ("claims.", "at character 8: a name was expected, not the end"),
        ("'abc", "at character 1: a text does not end"),
        ("1.2.3 == 1", "at character 1: no number"),
        ("claim.sub == 'a'", "there is no `claim`; there are claims, captures and request"),
        ("request.port == 1", "there is no `request.port`; there are method"),
        ("claims.sub.matches('a')", "there is no `matches()`; there are startsWith"),
        ("has(claims)", "`has()` is asked of a member"),
        ("claims.a.exists(1, true)", "at character 17: the name of a variable was expected"),
        ("-claims.a == 1", "at character 2: a number was expected"),
    ] {
        let why = parse(text).unwrap_err();
        assert!(why.starts_with(want), "{text}: {why}");
    }
    assert!(parse(&format!("{}true{}", "(".repeat(100), ")".repeat(100))).unwrap_err().contains("levels deep"));
    assert!(parse(&" ".repeat(5000)).unwrap_err().contains("more than 4096 bytes"));
}
