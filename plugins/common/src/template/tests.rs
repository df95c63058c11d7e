use super::*;

fn value(path: &[String]) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(match path.join(".").as_str() {
        "request.headers.x-a" => "Ab \"c\"\\",
        "request.headers.x-evil" => "a\r\nx-admin: 1",
        "request.path" => "/v1/a%20b",
        "request.query.q" => "a&b=c/d?#é",
        "captures.up" => "..",
        "captures.dot" => ".",
        "captures.empty" => "",
        "claims.https://idp.example/roles" => "admin",
        "env.TOKEN" => "${request.path}",
        _ => return None,
    }))
}

fn rendered(text: &str, target: Target) -> Result<String, Refused> {
    Template::compile(text, target, &http).unwrap().render(&value)
}

#[test]
fn values_stand_in_their_places() {
    for (text, target, want) in [
        ("", Target::Text, ""),
        ("plain $ { } $x", Target::Text, "plain $ { } $x"),
        ("a ${request.headers.x-a} b", Target::Header, "a Ab \"c\"\\ b"),
        ("${request.headers.x-none}|", Target::Header, "|"),
        ("${ request.headers.x-none | default(\"a \\\"b\\\\ }\") | upper }", Target::Header, "A \"B\\ }"),
        ("${captures.empty | default(\"x\")}", Target::Header, ""),
        ("${request.headers.x-a | lower}", Target::Header, "ab \"c\"\\"),
        ("{\"a\":${request.headers.x-evil | json}}", Target::Text, r#"{"a":"a\u000d\u000ax-admin: 1"}"#),
        ("${request.headers.x-evil | urlencode}", Target::Header, "a%0D%0Ax-admin%3A%201"),
        ("${claims.\"https://idp.example/roles\"}", Target::Header, "admin"),
        (
            "/x/${request.query.q}?q=${request.query.q}",
            Target::Path,
            "/x/a%26b%3Dc%2Fd%3F%23%C3%A9?q=a%26b%3Dc%2Fd%3F%23%C3%A9",
        ),
        ("/api${request.path | raw}", Target::Path, "/api/v1/a%20b"),
        ("/${request.headers.x-evil}", Target::Path, "/a%0D%0Ax-admin%3A%201"),
    ] {
        assert_eq!(rendered(text, target).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn a_template_says_which_values_it_needs_and_which_it_lacks() {
    for (text, paths, sole, missing) in [
        ("plain", vec![], None, None),
        ("${env.TOKEN}", vec!["env.TOKEN"], Some("env.TOKEN"), None),
        ("${env.TOKEN | lower}", vec!["env.TOKEN"], None, None),
        ("a${captures.empty}${env.NONE}", vec!["captures.empty", "env.NONE"], None, Some("env.NONE")),
        ("${env.NONE | default(\"x\")}", vec!["env.NONE"], None, None),
    ] {
        let template = Template::compile(text, Target::Text, &http).unwrap();
        assert_eq!(template.paths().map(|path| path.join(".")).collect::<Vec<_>>(), paths, "{text}");
        assert_eq!(template.sole_path().map(|path| path.join(".")).as_deref(), sole, "{text}");
        assert_eq!(template.missing(&value).map(|path| path.join(".")).as_deref(), missing, "{text}");
    }
}

#[test]
fn no_value_ends_a_header_or_climbs_in_a_path() {
    for (text, target, want) in [
        ("${request.headers.x-evil}", Target::Header, Refused::Character),
        ("/${request.headers.x-evil | raw}", Target::Path, Refused::Character),
        ("/${request.query.q | raw}", Target::Path, Refused::Character),
        ("/a/${captures.up}/b", Target::Path, Refused::Path),
        ("/a/${captures.dot}${captures.dot}", Target::Path, Refused::Path),
        ("/a/%2E${captures.dot}", Target::Path, Refused::Path),
        ("/${captures.empty}/evil.example", Target::Path, Refused::Path),
        ("/${request.path | raw}", Target::Path, Refused::Path),
        ("${captures.dot}a", Target::Path, Refused::Path),
    ] {
        assert_eq!(rendered(text, target), Err(want), "{text}");
    }
}

#[test]
fn a_value_and_the_whole_are_bounded() {
    let rendered = |text: &str, bytes: usize| {
        let template = Template::compile(text, Target::Header, &http).unwrap();
        template.render(&|_| Some(Cow::Owned("a".repeat(bytes)))).map(|made| made.len())
    };
    let max = Target::Header.max_bytes();
    assert_eq!(rendered("${env.A}", max), Ok(max));
    assert_eq!(rendered("${env.A}", max + 1), Err(Refused::TooLong));
    assert_eq!(rendered("${env.A}${env.B}", max / 2 + 1), Err(Refused::TooLong));
}

#[test]
fn the_configurations_secrets_and_the_places_here_do_not_collide() {
    // What the gateway leaves of `$${x}`, and of `$$${env:X}`.
    assert_eq!(rendered("$${request.path}", Target::Text).as_deref(), Ok("${request.path}"));
    assert_eq!(rendered("$${env:X}", Target::Text).as_deref(), Ok("${env:X}"));
    // A value is never read as a template.
    assert_eq!(rendered("${env.TOKEN}", Target::Header).as_deref(), Ok("${request.path}"));
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    for (text, target, want) in [
        ("é ${request.path", Target::Text, "character 3: `${` has no closing brace; write `$${`"),
        ("${env:X}", Target::Text, "character 1: `${env:…}` and `${file:…}` are secrets"),
        ("a ${requst.path}", Target::Text, "character 3: `requst.path` is nothing a template can name; write request."),
        ("${request.headers.X-A}", Target::Text, "character 1: header names are written in lower case: `x-a`"),
        ("${}", Target::Text, "character 3: expected a name"),
        ("${env.A B}", Target::Text, "character 9: expected `.`, `|` or `}`"),
        ("${env.A | lowr}", Target::Text, "character 11: `lowr` is no function; write default"),
        ("${env.A | default(x)}", Target::Text, "character 19: expected a text in quotes"),
        ("${env.A | default(\"x)}", Target::Text, "character 19: the quote is not closed"),
        ("${env.A | default(\"\\n\")}", Target::Text, "character 19: in quotes, only"),
        ("${env.A | default(\"x\"}", Target::Text, "character 22: expected `)`"),
        ("${env.A | raw}", Target::Header, "character 11: `raw` is for paths"),
        ("/${env.A | urlencode}", Target::Path, "character 12: values in a path are encoded already"),
        ("a\n${env.A}", Target::Header, "character 1: a header value may not hold control characters"),
        ("/a b", Target::Path, "character 1: a path may not hold this text"),
        ("/$${x}", Target::Path, "character 1: a path has no `{`"),
        ("", Target::Path, "character 1: a path begins with one `/`"),
        ("a/${env.A}", Target::Path, "character 1: a path begins with one `/`"),
        ("//a", Target::Path, "character 1: a path begins with one `/`"),
    ] {
        let why = Template::compile(text, target, &http).unwrap_err().to_string();
        assert!(why.starts_with(&format!("template, {want}")), "{text}: {why}");
    }
}

#[test]
fn no_text_and_no_value_make_it_panic_or_break_its_promises() {
    let words = [
        "${",
        "}",
        "$",
        "\"",
        "\\",
        "env.A",
        "|",
        "raw",
        "json",
        "default(\"",
        ")",
        "é",
        "\n",
        "/",
        "..",
        "%2e",
        "?",
        " ",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut made = 0;
    for round in 0..40_000 {
        let mut text = |count: u64| {
            let mut text = String::new();
            for _ in 0..count {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text.push_str(words[usize::try_from(state % words.len() as u64).unwrap()]);
            }
            text
        };
        let (front, back, value) = (text(round % 3), text(round % 8), text(round % 5));
        for target in [Target::Header, Target::Path, Target::Text] {
            for written in
                [format!("{front}{back}"), format!("/{front}${{env.A}}"), format!("/${{env.A | raw}}{front}")]
            {
                let Ok(template) = Template::compile(&written, target, &|_| Ok(())) else { continue };
                let Ok(text) = template.render(&|_| Some(Cow::Borrowed(value.as_str()))) else { continue };
                made += 1;
                match target {
                    Target::Header => assert!(!text.bytes().any(|byte| byte.is_ascii_control()), "{written} {value}"),
                    Target::Path => {
                        assert!(text.is_ascii() && !text.contains([' ', '\n', '#']), "{written} {value}");
                        assert!(!text.split(['/', '?']).take(1).any(|first| !first.is_empty()), "{written} {value}");
                        assert!(!text.split('?').next().unwrap().split('/').any(|part| part == ".."), "{text}");
                    }
                    Target::Text => {}
                }
            }
        }
    }
    assert!(made > 10_000, "only {made} were rendered");
}
