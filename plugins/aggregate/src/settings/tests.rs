use super::*;
use portcullis_sdk::parse_config;

fn read(json: &str) -> Result<crate::plan::Plan, String> {
    parse_config::<Settings>(json.as_bytes()).and_then(Settings::checked)
}

fn calls(calls: &str) -> Result<crate::plan::Plan, String> {
    read(&format!("{{\"endpoints\":[{{\"path\":\"/a/{{id}}\",\"calls\":[{calls}]}}]}}"))
}

#[test]
fn a_call_that_cannot_be_made_is_refused_with_its_setting() {
    for (more, want) in [
        (r#""name":"a b""#, "`calls[0]`: `name` is `a b`: write letters"),
        (r#""upstream":"""#, "`calls[0]`: `upstream` is empty"),
        (r#""path":"/a b""#, "`calls[0]`: `path`: template, character 1: a path may not hold this text"),
        (r#""path":"/${captures.uid}""#, "`calls[0]`: `path`: template, character 2: `path` has no `{uid}`"),
        (r#""path":"/${env.KEY}""#, "`calls[0]`: `path`: template, character 2: `KEY` is not under `env`"),
        (r#""path":"/${calls.z.body}""#, "`calls[0]`: `path`: template, character 2: there is no call `z`"),
        (r#""path":"/${calls.a.body.id}""#, "`calls[0]`: `path`: template, character 2: `id` is not a JSON Pointer"),
        (r#""path":"/${calls.a.id}""#, "`calls[0]`: `path`: template, character 2: of a call write `.status`"),
        (r#""path":"/${response.status}""#, "`calls[0]`: `path`: template, character 2: `response.status` is nothing"),
        (
            r#""path":"/${item}""#,
            "`calls[0]`: `path`: template, character 2: `item` is there only in a call with `each`",
        ),
        (r#""query":{"q":[]}"#, "`calls[0]`: `query.q` is not a text"),
        (r#""headers":{"x-a":"${env.X}"}"#, "`calls[0]`: `headers.x-a`: template, character 1: `X` is not under `env`"),
        (r#""headers":{"range":"bytes=0-1"}"#, "`calls[0]`: `headers`: with `range`, answers would come in a form"),
        (r#""forward_headers":["accept-encoding"]"#, "`calls[0]`: `forward_headers`: with `accept-encoding`, answers"),
        (r#""method":"get""#, "`calls[0]`: `method` is `get`: write a word in upper case"),
        (r#""body":{},"text":"x""#, "`calls[0]`: `body` and `text` are both there"),
        (r#""body":{"a":["${x}"]}"#, "`calls[0]`: `body`: template, character 1: `x` is nothing a template can name"),
        (r#""timeout":0"#, "`calls[0]`: `timeout` is at least 1ms"),
        (r#""retry":{"times":6}"#, "`calls[0]`: `retry.times` is 1 to 5"),
        (r#""method":"POST","retry":{"times":1}"#, "`calls[0]`: `retry`: a POST made twice may do twice as much"),
        (r#""after":["z"]"#, "`calls[0]`: `after`: there is no call `z`"),
        (r#""when":{"value":"","is":[],"is_not":[]}"#, "`calls[0]`: `when.is` and `when.is_not` are both there"),
        (r#""each":{"of":"x${env.X}"}"#, "`calls[0]`: `each.of`: template, character 2: `X` is not under `env`"),
        (r#""each":{"of":"a ${captures.id}"}"#, "`calls[0]`: `each.of` is one value, such as"),
        (r#""each":{"of":"${item}"}"#, "`calls[0]`: `each.of`: template, character 1: `item` is there only"),
        (r#""each":{"of":"${captures.id}","max_items":129}"#, "`calls[0]`: `each.max_items` is 1 to 128"),
        (r#""optional":true,"default":null"#, "`calls[0]`: `optional` and `default` are both there"),
        (r#""max_depth":101"#, "`calls[0]`: `max_depth` is 1 to 100"),
        (r#""statuses":{"404":200}"#, "`calls[0]`: `statuses` has 200, and a refusal's status is 400 to 599"),
        (r#""shape":[{"take":"a"}]"#, "`calls[0]`: `shape[0]`: `a` is not a JSON Pointer"),
        (r#""shape":[{"take":""},{"drop":["/~"]}]"#, "`calls[0]`: `shape[1]`: `/~` is not a JSON Pointer"),
        (r#""place":"/a","hidden":true"#, "`calls[0]`: `place` and `hidden` are both there"),
        (r#""place":"/*/a""#, "`calls[0]`: `place` is one place; it has no `*`"),
        (r#""place":"/1/2/3/4/5/6/7/8/9""#, "`calls[0]`: `place` has more than 8 names"),
        (r#""after":["a"]"#, "calls wait for each other: `a` for `a`"),
        (r#""path":"/${calls.a.body./id}""#, "calls wait for each other: `a` for `a`"),
    ] {
        let usual = [("name", "\"a\""), ("upstream", "\"u\""), ("path", "\"/\"")];
        let usual = usual.iter().filter(|(key, _)| !more.starts_with(&format!("\"{key}\"")));
        let usual: String = usual.map(|(key, value)| format!("\"{key}\":{value},")).collect();
        let why = calls(&format!("{{{usual}{more}}}")).err().unwrap_or_default();
        assert!(why.starts_with(&format!("`endpoints[0]`: {want}")), "{more}: {why}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_served_is_refused_with_its_setting() {
    let call = r#"{"name":"a","upstream":"u","path":"/"}"#;
    let endpoint = |more: &str| format!("{{\"calls\":[{call}]{more}}}");
    for (endpoints, want) in [
        (String::new(), "`endpoints` is empty"),
        (endpoint(r#","path":"a""#), "`endpoints[0]`: `path`: `a` is not a path such as"),
        (endpoint(r#","methods":[]"#), "`endpoints[0]`: `methods` are words in upper case"),
        (r#"{"calls":[]}"#.to_owned(), "`endpoints[0]`: `calls` has 1 to 16 entries"),
        (format!("{{\"calls\":[{}]}}", [call; 17].join(",")), "`endpoints[0]`: `calls` has 1 to 16 entries"),
        (format!("{{\"calls\":[{call},{call}]}}"), "`endpoints[0]`: `calls[1]`: the name `a` is taken"),
        (endpoint(r#","forward_headers":["range"]"#), "`endpoints[0]`: `forward_headers`: with `range`, answers"),
        (endpoint(r#","deadline":0"#), "`endpoints[0]`: `deadline` is at least 1ms"),
        (endpoint(r#","max_calls":129"#), "`endpoints[0]`: `max_calls` is 1 to 128"),
        (endpoint(r#","reply":{"status":204}"#), "`endpoints[0]`: `reply`: `status` is 204, and that of a reply"),
        (endpoint(r#","reply":{"partial":"a"}"#), "`endpoints[0]`: `reply`: `partial`: the call `a` has the field `a`"),
        (endpoint(r#","reply":{"shape":[{"melt":"/a"}]}"#), "`endpoints[0].reply.shape[0]"),
        (
            [endpoint(""), endpoint(r#","path":"/*""#)].join(","),
            "`endpoints[1]`: another endpoint has this path and method",
        ),
        (
            [r#","path":"/{a}","methods":["PUT","GET"]"#, r#","path":"/{b}""#].map(endpoint).join(","),
            "`endpoints[1]`: another endpoint has this path and method",
        ),
    ] {
        let why = read(&format!("{{\"endpoints\":[{endpoints}]}}")).err().unwrap_or_default();
        assert!(why.starts_with(want), "{endpoints}: {why}");
    }
}

#[test]
fn a_cycle_of_calls_is_refused_with_its_names() {
    let why = calls(
        r#"{"name":"user","upstream":"u","path":"/${calls.cart.body./user}"},
           {"name":"log","upstream":"u","path":"/","after":["user"]},
           {"name":"cart","upstream":"u","path":"/","each":{"of":"${calls.price.body}"}},
           {"name":"price","upstream":"u","path":"/","when":{"value":"${calls.user.status}"}}"#,
    );
    let want = "`endpoints[0]`: calls wait for each other: `user` for `cart` for `price` for `user`";
    assert_eq!(why.err().as_deref(), Some(want));
}
