use portcullis_sdk::{ms, start};
use portcullis_testing::{Gateway, Outcome, Plugin, Reply, Request, Running};

use super::*;

fn gateway(config: &str) -> Running {
    Gateway::new().plugin(Plugin::new("limit", start::<RateLimit>).config(config)).start()
}

fn told(outcome: &Outcome) -> (u16, Option<&str>, Option<&str>) {
    (outcome.status(), outcome.reply.header("ratelimit"), outcome.reply.header("retry-after"))
}

#[test]
fn a_burst_passes_then_the_rate_and_every_response_says_where_its_bucket_stands() {
    let mut gateway = gateway(r#"{"rate":"2/s"}"#);
    assert_eq!(told(&gateway.send(Request::get("/"))), (200, Some("\"default\";r=1;t=1"), None));
    assert_eq!(told(&gateway.send(Request::get("/"))), (200, Some("\"default\";r=0;t=1"), None));
    let refused = gateway.send(Request::get("/"));
    assert_eq!(told(&refused), (429, Some("\"default\";r=0;t=1"), Some("1")));
    assert_eq!((refused.details.as_str(), refused.upstream), ("rate_limited", None));
    assert_eq!(refused.reply.header("ratelimit-policy"), Some("\"default\";q=2;w=1"));
    gateway.advance(ms(500));
    assert_eq!(gateway.send(Request::get("/")).status(), 200);
}

#[test]
fn keys_have_buckets_of_their_own_and_leaving_the_key_out_is_no_way_around() {
    let mut gateway = gateway(r#"{"rate":"1/m","key":{"header":"x-key"}}"#);
    let mut status = |request: Request| gateway.send(request).status();
    let keyed = |key: &str| Request::get("/").header("x-key", key);
    assert_eq!([status(keyed("a")), status(keyed("a")), status(keyed("b"))], [200, 429, 200]);
    let elsewhere = Request::get("/").from(([198, 51, 100, 1], 1).into());
    assert_eq!([status(Request::get("/")), status(Request::get("/")), status(elsewhere)], [200, 429, 200]);
}

#[test]
fn a_segment_of_the_path_is_counted_by_itself() {
    let mut gateway = gateway(r#"{"rate":"1/m","key":{"segment":2}}"#);
    let mut statuses = |paths: [&str; 4]| paths.map(|path| gateway.send(Request::get(path)).status());
    assert_eq!(statuses(["/accounts/7/a", "/accounts/7?x", "/accounts/8", "/b/8/"]), [200, 429, 200, 429]);
    assert_eq!(statuses(["/accounts", "/accounts/", "/", "/a//b"]), [200, 429, 429, 429], "without one, by address");
}

/// Stands in for `auth`: leaves what headers say.
struct Identifies;

impl Filter for Identifies {
    type Config = portcullis_sdk::NoConfig;

    async fn start(_: portcullis_sdk::NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: portcullis_sdk::Request, next: Next) -> Response {
        for (header, property) in [("x-consumer", plugin_common::CONSUMER), ("x-claims", plugin_common::CLAIMS)] {
            let value = request.headers().text(header);
            value.into_iter().for_each(|value| assert!(request.set_property(property, value)));
        }
        next.run(request).await
    }
}

/// The statuses of two requests each with these headers; every other thing that could tell their clients apart is the same.
fn twice<const N: usize>(config: &str, headers: [(&str, &str); N]) -> [[u16; 2]; N] {
    let identifies = Plugin::new("auth", start::<Identifies>);
    let limit = Plugin::new("limit", start::<RateLimit>).config(config);
    let mut gateway = Gateway::new().plugin(identifies).plugin(limit).start();
    let mut status = |(name, value)| gateway.send(Request::get("/").header(name, value)).status();
    headers.map(|header| [status(header), status(header)])
}

#[test]
fn whoever_was_let_in_has_a_bucket() {
    let headers = [("x-consumer", "ann"), ("x-consumer", "bob"), ("x-none", "a"), ("x-none", "b")];
    assert_eq!(twice(r#"{"rate":"1/m","key":"consumer"}"#, headers), [[200, 429], [200, 429], [200, 429], [429, 429]]);
    let headers = [("x-claims", r#"{"org":{"id":7}}"#), ("x-claims", r#"{"org":{"id":8}}"#)];
    assert_eq!(twice(r#"{"rate":"1/m","key":{"claim":"org.id"}}"#, headers), [[200, 429]; 2]);
}

#[test]
fn what_a_token_says_that_nobody_has_verified_is_no_key() {
    // {"sub":"ann"} and {"sub":"bob"}
    let tokens = ["Bearer e30.eyJzdWIiOiJhbm4ifQ.sig", "Bearer e30.eyJzdWIiOiJib2IifQ.sig"];
    let headers = tokens.map(|token| ("authorization", token));
    assert_eq!(twice(r#"{"rate":"1/m","key":{"claim":"sub"}}"#, headers), [[200, 429], [429, 429]], "by address");
    let claims = ("x-claims", "no JSON");
    assert_eq!(twice(r#"{"rate":"1/m","key":{"claim":"sub"}}"#, [claims]), [[200, 429]]);
}

#[test]
fn a_claim_says_which_plan_it_is() {
    let config = r#"{"limits":[{"rate":"1/h","key":"consumer","plans":{"claim":"plan","rates":{"gold":"2/h"}}}]}"#;
    let [gold, other] = twice(config, [("x-claims", r#"{"plan":"gold"}"#), ("x-claims", r#"{"plan":"x"}"#)]);
    assert_eq!([gold, other], [[200, 200], [200, 429]]);
}

#[test]
fn requests_pass_when_the_store_takes_nothing() {
    let mut gateway = gateway(r#"{"rate":"1/m"}"#);
    gateway.fail("proxy_set_shared_data", 8, 32);
    let outcome = gateway.send(Request::get("/"));
    assert_eq!(told(&outcome), (200, None, None));
    assert!(outcome.logged("a limit was not stored, and the request passes"));
    assert_eq!([gateway.send(Request::get("/")).status(), gateway.send(Request::get("/")).status()], [200, 429]);
}

#[test]
fn several_limits_are_taken_from_together_and_all_are_told() {
    let limits = r#"{"limits":[
        {"name":"burst","rate":"60/m","burst":2},
        {"name":"daily","quota":"3/day","key":{"header":"x-key"}},
        {"name":"trial","rate":"1/h","shadow":true}
    ]}"#;
    let mut gateway = gateway(limits);
    let mut send = |key: &str| gateway.send(Request::get("/").header("x-key", key));
    let first = send("a");
    let both = |outcome: &Outcome| outcome.reply.header("ratelimit").map(str::to_owned).unwrap_or_default();
    assert!(both(&first).starts_with("\"burst\";r=1;t=1, \"daily\";r=2;t="), "{}", both(&first));
    assert_eq!(first.reply.header("ratelimit-policy"), Some("\"burst\";q=60;w=60, \"daily\";q=3;w=86400"));
    assert_eq!(send("a").status(), 200);
    let refused = send("a");
    assert_eq!((refused.status(), refused.reply.header("retry-after")), (429, Some("1")));
    assert!(both(&refused).starts_with("\"burst\";r=0;t=2, \"daily\";r=1;t="), "{}", both(&refused));
    gateway.advance(ms(1000));
    assert_eq!(gateway.send(Request::get("/").header("x-key", "a")).status(), 200);
    gateway.advance(ms(1000));
    let quota = gateway.send(Request::get("/").header("x-key", "a"));
    assert_eq!(quota.status(), 429);
    assert!(quota.reply.header("retry-after").unwrap().parse::<u32>().unwrap() > 60, "not before the day ends");
    let other = gateway.send(Request::get("/").header("x-key", "b"));
    assert_eq!(other.status(), 200, "what the quota refused has cost the other limit nothing");
    let counts = ["rate_limit_refused.burst", "rate_limit_refused.daily", "rate_limit_would_refuse.trial"];
    assert_eq!(counts.map(|name| gateway.metric(name)), [Some(1), Some(1), Some(5)]);
}

#[test]
fn calendars_are_those_of_a_place() {
    let limits = r#"{"limits":[
        {"name":"daily","quota":"9/day","zone":"Europe/Berlin"},
        {"name":"monthly","quota":"9/month","zone":"Europe/Berlin"}
    ]}"#;
    let mut gateway = gateway(limits);
    let mut until = |unix_time: u64| {
        let ahead = unix_time - gateway.unix_time();
        gateway.advance(ms(ahead * 1000));
        gateway.send(Request::get("/")).reply.header("ratelimit").map(str::to_owned)
    };
    // 2023-11-15T12:00:00+01:00; 2024-03-31T00:00:00+01:00, which is the day that has no three o'clock, and ends at +02:00.
    let told = [until(1_700_046_000), until(1_711_839_600), until(1_711_839_600 + 23 * 3600)];
    let want = [
        "\"daily\";r=8;t=43200, \"monthly\";r=8;t=1339200",
        "\"daily\";r=8;t=82800, \"monthly\";r=8;t=82800",
        "\"daily\";r=8;t=86400, \"monthly\";r=8;t=2592000",
    ];
    assert_eq!(told.map(Option::unwrap_or_default), want);
}

#[test]
fn a_plan_has_its_own_rate() {
    let limits = r#"{"limits":[{"rate":"1/h","plans":{"header":"x-plan","rates":{"gold":"3/h"}}}]}"#;
    let mut gateway = gateway(limits);
    let mut passed =
        |plan: &str| (0..5).filter(|_| gateway.send(Request::get("/").header("x-plan", plan)).status() == 200).count();
    assert_eq!([passed("gold"), passed("other"), passed("gold")], [3, 1, 0]);
}

#[test]
fn what_a_response_has_cost_is_settled() {
    let limits = r#"{"limits":[{"rate":"10/h","cost":5,"settle":{"header":"x-cost"}}]}"#;
    let mut costs = ["1", "9", "none"].into_iter();
    let mut gateway = Gateway::new()
        .origin(move |_| Reply::ok("ok").header("x-cost", costs.next().unwrap_or("1")))
        .plugin(Plugin::new("limit", start::<RateLimit>).config(limits))
        .start();
    let mut left = || {
        let outcome = gateway.send(Request::get("/"));
        (outcome.status(), outcome.reply.header("ratelimit").unwrap().split(';').nth(1).unwrap().to_owned())
    };
    // Told is what is left while the cost is only reserved.
    assert_eq!(left(), (200, "r=5".to_owned()));
    assert_eq!(left(), (200, "r=4".to_owned()));
    assert_eq!(left(), (429, "r=0".to_owned()));
}

/// What is left after a request that was answered with this, where 10 were reserved of 1000.
fn left_after(reply: Reply) -> String {
    let limits = r#"{"limits":[{"name":"tokens","rate":"1000/h","cost":10,"settle":{"json":"/usage/total"}}]}"#;
    let mut replies = [Reply::ok("{}"), reply].into_iter();
    let mut last = move || replies.next_back().unwrap_or_else(|| Reply::ok("{}"));
    let mut gateway =
        Gateway::new().origin(move |_| last()).plugin(Plugin::new("limit", start::<RateLimit>).config(limits)).start();
    assert_eq!(gateway.send(Request::get("/")).status(), 200);
    let second = gateway.send(Request::get("/"));
    let unsettled = gateway.metric("rate_limit_unsettled.tokens").unwrap_or(0);
    let left = told(&second).1.unwrap().split(';').nth(1).unwrap().to_owned();
    format!("{left} {unsettled}")
}

#[test]
fn a_number_in_the_body_is_what_a_request_has_cost() {
    let json = |body: &str| Reply::ok(body).header("content-type", "application/json");
    // The second reserves ten more, and is answered without JSON.
    assert_eq!(left_after(json(r#"{"usage":{"total":40}}"#)), "r=950 1");
    assert_eq!(left_after(json(r#"{"usage":{"total":4}}"#)), "r=986 1");
    assert_eq!(left_after(json("{}")), "r=980 2");
    assert_eq!(left_after(json(r#"{"usage":{"total":40}}"#).header("content-encoding", "gzip")), "r=980 2");
    let events = "data: {\"usage\":{\"total\":1}}\n\ndata: {\"usage\":{\"total\":40}}\n\ndata: [DONE]\n\n";
    assert_eq!(left_after(Reply::ok(events).header("content-type", "text/event-stream")), "r=950 1");
}

#[test]
fn bytes_are_paid_when_the_exchange_is_over() {
    for (of, left) in [("request", 991), ("response", 993), ("both", 984)] {
        let limits = format!(r#"{{"limits":[{{"rate":"1000/h","settle":{{"bytes":"{of}"}}}}]}}"#);
        let mut gateway = Gateway::new()
            .origin(|_| Reply::ok("seven b"))
            .plugin(Plugin::new("limit", start::<RateLimit>).config(limits))
            .start();
        assert_eq!(gateway.send(Request::post("/").body("nine byte")).status(), 200);
        let second = gateway.send(Request::get("/"));
        // One is reserved.
        assert_eq!(told(&second).1.unwrap().split(';').nth(1), Some(format!("r={}", left - 1).as_str()), "{of}");
    }
}

#[test]
fn a_service_counts_for_all_and_is_left_alone_when_it_fails() {
    let config = |on_failure: &str| {
        format!(r#"{{"rate":"1/h","global":{{"upstream":"limits","domain":"edge","on_failure":"{on_failure}"}}}}"#)
    };
    // A verdict: `OVER_LIMIT`, nothing left, for 7 s.
    let over = || Reply::grpc(b"\x08\x02\x12\x08\x08\x02\x18\x00\x22\x02\x08\x07");
    let plugin = |on_failure: &str| Plugin::new("limit", start::<RateLimit>).config(config(on_failure));
    let mut gateway = Gateway::new().upstream("limits", move |_| over()).plugin(plugin("local")).start();
    assert_eq!(told(&gateway.send(Request::get("/"))), (429, Some("\"default\";r=0;t=7"), Some("7")));
    assert_eq!(gateway.calls().len(), 1);
    for (on_failure, want) in [("local", [200, 429]), ("allow", [200, 200]), ("refuse", [503, 503])] {
        let broken = Gateway::new().upstream("limits", |_| Reply::grpc_status(14, "down"));
        let mut gateway = broken.plugin(plugin(on_failure)).start();
        let statuses = [(); 2].map(|()| gateway.send(Request::get("/")).status());
        assert_eq!((statuses, gateway.calls().len()), (want, 1), "{on_failure}");
        gateway.advance(ms(1001));
        gateway.send(Request::get("/"));
        assert_eq!(gateway.calls().len(), 1, "it is asked again after a second");
        assert_eq!(gateway.metric("rate_limit_service_failures"), Some(2));
    }
}

/// What a service was told that answers settlements with this: the method, how many hits, and whether they are given back.
fn told_of(settled: fn() -> Reply, cost: &'static str) -> Vec<String> {
    let limits = r#"[{"rate":"9/h","cost":5,"settle":{"header":"x-cost"}}]"#;
    let config = format!(r#"{{"limits":{limits},"global":{{"upstream":"limits","domain":"edge"}}}}"#);
    let mut gateway = Gateway::new()
        .origin(move |_| Reply::ok("ok").header("x-cost", cost))
        .upstream("limits", move |call| match call.header(":path") {
            Some(path) if path.ends_with("/Settle") => settled(),
            // `OK`, and nothing more.
            _ => Reply::grpc(b"\x08\x01"),
        })
        .plugin(Plugin::new("limit", start::<RateLimit>).config(config))
        .start();
    assert_eq!(gateway.send(Request::get("/")).status(), 200);
    gateway.advance(ms(100));
    let told = |call: &portcullis_testing::Call| {
        let message = &call.request.body[..];
        let mut told = call.request.header(":path").unwrap().rsplit('/').next().unwrap().to_owned();
        let fields = |bytes: &[u8], wanted| {
            let found = portcullis_abi::protobuf::Fields::of(bytes).map(Result::unwrap).filter(|(at, _)| *at == wanted);
            found.map(|(_, value)| format!("{value:?}")).collect::<String>()
        };
        for field in portcullis_abi::protobuf::Fields::of(message).map(Result::unwrap) {
            if let (2, portcullis_abi::protobuf::Value::Bytes(descriptor)) = field {
                told += &format!(" {}{}", fields(descriptor, 3), fields(descriptor, 4));
            }
        }
        told
    };
    gateway.calls().iter().map(told).collect()
}

#[test]
fn a_service_is_told_what_was_owed_or_asked_again_if_it_knows_no_such_thing() {
    let (ours, other) = (|| Reply::grpc(b""), || Reply::grpc_status(12, "unknown"));
    let first = "ShouldRateLimit Bytes([8, 5])";
    assert_eq!(told_of(ours, "7"), [first, "Settle Bytes([8, 2])"]);
    assert_eq!(told_of(ours, "1"), [first, "Settle Bytes([8, 4])Number(1)"]);
    assert_eq!(told_of(ours, "5"), [first]);
    assert_eq!(told_of(other, "7"), [first, "Settle Bytes([8, 2])", "ShouldRateLimit Bytes([8, 2])"]);
    assert_eq!(told_of(other, "1"), [first, "Settle Bytes([8, 4])Number(1)"]);
}
