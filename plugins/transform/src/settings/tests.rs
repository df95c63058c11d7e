use super::*;
use portcullis_sdk::parse_config;

#[test]
fn settings_say_what_is_wrong_with_them() {
    for (json, want) in [
        ("", ""),
        (r#"{"request":{"headers":{"set":{"x-a":"1"}}},"max_bytes":10}"#, ""),
        (r#"{"request":{"body":{"set":{"/a":{"b":[1]}},"rename":{"/x":"y"},"remove":["/z"]}}}"#, ""),
        (
            r#"{"request":{"headers":{"set":{"X-A":"1"}}}}"#,
            "`request.headers.set.X-A`: `X-A` is not a header name in lower case",
        ),
        (
            r#"{"response":{"headers":{"remove":["content-length"]}}}"#,
            "`response.headers.remove[0]`: `content-length` belongs to the connection, not to the message",
        ),
        (
            r#"{"request":{"headers":{"append":{"x":"\n"}}}}"#,
            "`request.headers.append.x`: a header value may not hold control characters",
        ),
        (
            r#"{"request":{"headers":{"set":{"x":"${request.nothing}"}}}}"#,
            "request[0]: headers.set.x: template, character 1: `request.nothing` is nothing a template can name",
        ),
        (
            r#"{"request":{"headers":{"set":{"x":"${env.A}"}}}}"#,
            "request[0]: headers.set.x: template, character 1: `A` is not",
        ),
        (r#"{"env":{"A":"1"},"request":{"headers":{"set":{"x":"${env.A}"}}}}"#, ""),
        (r#"{"rewrite":[{"from":"a","to":"/"}]}"#, "rewrite[0]: from: `a` is not a path such as"),
        (
            r#"{"rewrite":[{"from":"/a","to":"b"}]}"#,
            "rewrite[0]: to: template, character 1: a path begins with one `/`",
        ),
        (
            r#"{"rewrite":[{"from":"/a","to":"//b"}]}"#,
            "rewrite[0]: to: template, character 1: a path begins with one `/`",
        ),
        (r#"{"rewrite":[{"from":"/a","to":""}]}"#, "rewrite[0]: to: template, character 1: a path begins with one `/`"),
        (
            r#"{"rewrite":[{"from":"/a/{id}","to":"/${captures.is}"}]}"#,
            "rewrite[0]: to: template, character 2: no path here has `{is}`: what is captured is id",
        ),
        (
            r#"{"response":{"headers":{"set":{"x":"${captures.id}"}}}}"#,
            "response[0]: headers.set.x: template, character 1: no path here has `{id}`: neither",
        ),
        (
            r#"{"rewrite":[{"from":"/a/{id}","to":"/${captures.id}"}],"request":{"when":{"path":"/*"},
                "headers":{"set":{"x":"${captures.id}${captures.rest}"}}}}"#,
            "",
        ),
        (r#"{"rewrite":[{"from":"/a","to":"/${claims.sub}"}]}"#, ""),
        (r#"{"request":[{"when":{"methods":["GET"]},"method":{"GET":"POST"}},{"query":{"remove":["a"]}}]}"#, ""),
        (r#"{"request":[{},{"when":{"status":404}}]}"#, "request[1]: when: status: a request has none"),
        (r#"{"request":[{"body":{"sett":{}}}]}"#, "unknown field `sett`"),
        (r#"{"request":{"method":{"GET":"HEAD"}}}"#, "request[0]: method.GET: methods are words in capitals"),
        (r#"{"request":{"headers":{"rename":{"x-*":"y"}}}}"#, "request[0]: headers.rename.x-*: with `*` at the end"),
        (r#"{"response":{"status":{"404":200,"5xx":503}}}"#, ""),
        (r#"{"response":{"status":{"4":200}}}"#, "response[0]: `4` is not a status such as"),
        (r#"{"response":{"status":{"404":204}}}"#, "response[0]: status.404: 204 is no status"),
        (r#"{"response":3}"#, "`response`: invalid type: integer `3`, expected one or a list of them"),
        (
            r#"{"response":{"body":{"remove":["a.b"]}}}"#,
            "response[0]: body[0]: remove: `a.b` is neither a JSON Pointer",
        ),
        (
            r#"{"response":{"body":[{},{"set":{"$.a[":1}}]}}"#,
            "response[0]: body[1]: set: `$.a[`, character 5: expected a",
        ),
        (r#"{"response":{"body":{"each":{"/a":{"sett":1}}}}}"#, "unknown field `sett`"),
        (
            r#"{"response":{"body":{"each":{"/a":{"move":{"b":"/c"}}}}}}"#,
            "response[0]: body[0]: each./a[0]: move: `b` is not",
        ),
        (r#"{"response":{"body":{"set":{"/a":["${env.B}"]}}}}"#, "response[0]: body[0]: set./a: template, character 1"),
        (r#"{"response":{"body":{"default":{"$.a[*]":1}}}}"#, "response[0]: body[0]: default.$.a[*]: a query for"),
    ] {
        let got = parse_config::<Settings>(json.as_bytes()).and_then(|settings| settings.checked().map(|_| ()));
        let why = got.err().unwrap_or_default();
        assert!(why.starts_with(want) && why.is_empty() == want.is_empty(), "{json}: {why}");
    }
}
