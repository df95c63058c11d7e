use portcullis_sdk::start;
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request};

use super::*;

/// What a program makes of a document, or why it makes nothing of it.
fn made(code: &str, document: &str) -> Result<String, Failure> {
    let program = Program::compile(code, 10_000).map_err(Failure::Failed)?;
    let made = program.run(document.as_bytes(), [Val::Null, Val::Null], 1000);
    made.map(|json| String::from_utf8(json).unwrap())
}

fn failed<T>(why: &str) -> Result<T, Failure> {
    Err(Failure::Failed(why.to_owned()))
}

#[test]
fn programs_are_jq() {
    for (code, document, want) in [
        (".", r#"{"b":1.50,"a":[12345678901234567890]}"#, r#"{"b":1.50,"a":[12345678901234567890]}"#),
        (
            ".items |= map({id, total: (.price * .count)})",
            r#"{"items":[{"id":1,"price":2,"count":3,"x":0}]}"#,
            r#"{"items":[{"id":1,"total":6}]}"#,
        ),
        ("del(..|.secret?)", r#"{"secret":1,"a":[{"secret":2,"b":3}]}"#, r#"{"a":[{"b":3}]}"#),
        (
            "[.[] | select(.n > 1)] | group_by(.k) | map({(.[0].k): length}) | add",
            r#"[{"k":"a","n":2},{"k":"b","n":3},{"k":"a","n":4},{"k":"c","n":1}]"#,
            r#"{"a":2,"b":1}"#,
        ),
        ("def f: if . > 3 then . else . + 1 | f end; f", "0", "4"),
        ("reduce range(10) as $x (0; . + $x)", "null", "45"),
        (".a // \"none\"", "{}", r#""none""#),
        ("try error(\"x\") catch .", "1", r#""x""#),
        ("walk(if type == \"string\" then ascii_upcase else . end)", r#"{"a":["b"]}"#, r#"{"a":["B"]}"#),
        ("to_entries | map(.value) | @base64 \"\\(.)\"", r#"{"a":1}"#, r#""WzFd""#),
        (".t | fromdate", r#"{"t":"2026-01-02T03:04:05Z"}"#, "1767323045"),
        ("test(\"^a+$\")", r#""aaa""#, "true"),
        (". as {a: $x, b: [$y]} | {$x, $y}", r#"{"a":1,"b":[2]}"#, r#"{"x":1,"y":2}"#),
        ("(.a, .b) |= . + 1 | .c[1:] = [9]", r#"{"a":1,"b":2,"c":[1,2,3]}"#, r#"{"a":2,"b":3,"c":[1,9]}"#),
        ("first(range(1000000000))", "0", "0"),
        ("path(..) | select(length > 1)", "[[1]]", "[0,0]"),
        ("label $out | foreach .[] as $x (0; . + $x; if . > 3 then ., break $out else empty end)", "[1,2,3,4]", "6"),
    ] {
        assert_eq!(made(code, document).as_deref(), Ok(want), "{code}");
    }
}

#[test]
fn a_program_that_does_not_end_is_stopped_whatever_it_catches() {
    for code in [
        "def f: f; f",
        "def f: 1 + f; f",
        "def f: [f]; f",
        "[repeat(1)]",
        "last(range(1000000000000))",
        "[range(1000000000)] | length",
        "reduce range(1e12) as $x (0; .)",
        "until(false; .)",
        "first(range(1000000000) | select(false))",
        "try (def f: f; f) catch 1",
        "def f: try f catch f; f",
        "def f: (f)?, f; f",
        "(range(1e12) | empty) // 1",
        "[limit(1; range(1e12) | empty)]",
        "isempty(range(1e12) | empty)",
        "[range(300)] | [.[] + .[] + .[]] | length",
        "[range(200)] | [(.[]|.[]?)?, (combinations(3))] | length",
        "{a: range(1e12)} | empty",
        "if range(1e12) < 0 then 1 else empty end",
        ".[range(1e12) | tostring]? | empty",
        "\"\\(range(1e12))\" | empty",
        "[recurse(. + 1)]",
    ] {
        assert_eq!(made(code, "1"), Err(Failure::Steps), "{code}");
    }
    assert_eq!(made(".", "1").as_deref(), Ok("1"), "the next one has all its steps");
}

#[test]
fn what_is_no_json_is_neither_read_nor_written() {
    for document in ["", "{", "1 2", "NaN", "# a\n1", "+1", "b\"x\"", "[1,]", &"[".repeat(101), "\"\u{1}\""] {
        assert_eq!(made(".", document), Err(Failure::Malformed), "{document}");
    }
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(made("walk(.)", &deep).as_deref(), Ok(&*deep));
    for code in ["infinite", "nan", "{(1 | tostring): 1} | .[\"1\"] = infinite"] {
        assert_eq!(made(code, "1"), failed("its result is no JSON"), "{code}");
    }
    assert_eq!(made("[range(600)]", "1"), Err(Failure::TooLarge));
}

#[test]
fn failures_say_what_happened_and_where() {
    for (code, why) in [
        (".a |\n  foo(1)", "line 2, column 3: there is no filter `foo` of 1 arguments"),
        (". | $x", "line 1, column 5: there is no variable `$x`"),
        ("{a: }", "line 1, column 5: term is expected, and here is `}`"),
        ("[1", "line 1, column 3: closing bracket is expected here"),
        ("import \"a\" as a; .", "it imports a, and there are no modules"),
    ] {
        let said = Program::compile(code, 1).err().unwrap_or_default();
        assert!(said.starts_with(why), "{code}: {said}");
    }
    assert_eq!(made("error(\"no\")", "1"), failed("\"no\""));
    assert_eq!(made("empty", "1"), failed("it gives no result"));
    assert_eq!(made("1, 2", "1"), failed("it gives more than one result"));
    for code in ["halt", "env", "$ENV", "stderr", "input"] {
        assert!(made(code, "1").is_err(), "{code}");
    }
}

const SETTINGS: &str = r#"{
    "request": ".seen = $request.path + $request.headers[\"x-a\"]",
    "response": "if .bad then error(\"bad\") else {made: ., status: $response.status, by: $request.method} end",
    "max_bytes": 100
}"#;

fn passed(settings: &str, request: Request, reply: Reply) -> Outcome {
    let plugin = Plugin::new("jq", start::<Jq>).config(settings).holds_headers();
    Gateway::new().origin(move |_| reply.clone()).plugin(plugin).start().send(request)
}

fn json() -> Request {
    Request::post("/a?b=1").header("content-type", "application/json").header("x-a", "x").header("x-a", "y")
}

#[test]
fn bodies_go_through_their_programs_both_ways() {
    let reply = Reply::json(r#"{"n":1.50}"#).header("etag", "\"v\"");
    let outcome = passed(SETTINGS, json().header("accept-encoding", "gzip").body("{}"), reply);
    let seen = outcome.at_upstream();
    assert_eq!((seen.text(), seen.header("accept-encoding")), (r#"{"seen":"/ax, y"}"#.into(), None));
    let want = r#"{"made":{"n":1.50},"status":200,"by":"POST"}"#;
    assert_eq!(outcome.reply.text(), want);
    assert_eq!(outcome.reply.header("content-length"), Some(want.len().to_string().as_str()));
    assert_eq!(outcome.reply.header("etag"), None);
    let other = passed(SETTINGS, Request::post("/").body("{"), Reply::ok("plain").header("etag", "\"v\""));
    assert_eq!((other.at_upstream().text(), other.reply.text()), ("{".into(), "plain".into()));
    assert_eq!(other.reply.header("etag"), Some("\"v\""));
}

#[test]
fn a_body_that_no_program_changes_goes_no_further_unless_it_may_pass() {
    let long = format!("\"{}\"", "a".repeat(100));
    for (request, reply, want) in [
        (json().body("{"), Reply::ok(""), (400, "body_malformed")),
        (json().body(long.clone()), Reply::ok(""), (413, "body_too_large")),
        (json().header("content-encoding", "gzip").body("x"), Reply::ok(""), (415, "body_encoded")),
        (json().body("5"), Reply::ok(""), (400, "program_failed")),
        (json().body("{}"), Reply::json("{"), (502, "response_malformed")),
        (json().body("{}"), Reply::json(long.clone()), (502, "response_too_large")),
        (json().body("{}"), Reply::json("x").header("content-encoding", "br"), (502, "response_encoded")),
        (json().body("{}"), Reply::json(r#"{"bad":true}"#), (502, "program_failed")),
    ] {
        let outcome = passed(SETTINGS, request.clone(), reply.clone());
        assert_eq!((outcome.status(), outcome.details.as_str()), want);
        let lenient =
            SETTINGS.replace("100\n", r#"100, "on_overflow": "pass", "on_invalid": "pass", "on_failure": "pass""#);
        assert_eq!(passed(&lenient, request, reply).status(), 200, "{want:?}");
    }
}

#[test]
fn settings_say_what_is_wrong_with_them() {
    for (settings, want) in [
        ("{}", "there is no program: write `request`, `response` or both"),
        (r#"{"response":".a |"}"#, "`response`: line 1, column 5: "),
    ] {
        let plugin = Plugin::new("jq", start::<Jq>).config(settings);
        let why = Gateway::new().plugin(plugin).try_start().err().map(|why| format!("{why:?}")).unwrap_or_default();
        assert!(why.contains(want), "{settings}: {why}");
    }
}
