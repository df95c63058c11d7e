//! Traces that cross the gateway: W3C Trace Context in and out.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Origin, Seen};
use portcullis_tests::process::Start;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const ROUTES: &str = r#"
{top}
listeners: { main: { bind: "127.0.0.1:0", trusted_proxies: [{proxies}] } }
upstreams:
  origin: { endpoints: ["{origin}"] }
  h2: { endpoints: ["{origin}"], protocol: http2 }
  helper: { endpoints: ["{helper}"] }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "" }]
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: h2, match: { path: "/h2/*" }, upstream: h2 }
"#;

fn gateway(origin: &Origin, helper: &Origin, top: &str, proxies: &str) -> Gateway {
    Gateway::start(ROUTES, &[("origin", origin), ("helper", helper), ("top", &top), ("proxies", &proxies)])
}

fn told(seen: &Seen, name: &str) -> Vec<String> {
    seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// The parts of the one `traceparent` that was seen.
fn parts(seen: &Seen) -> Vec<String> {
    let [one] = &told(seen, "traceparent")[..] else { panic!("{:?}", told(seen, "traceparent")) };
    one.split('-').map(str::to_owned).collect()
}

#[test]
fn where_nothing_is_traced_what_clients_say_is_passed_on_as_it_is() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, &origin, "", "");
    let odd = [("traceparent", "nonsense"), ("traceparent", PARENT), ("tracestate", "==,"), ("baggage", "a=b;c, d=e")];
    for path in ["/", "/h2/"] {
        assert_eq!(gateway.ask("GET", path, &odd, "").status(), 200);
        let seen = origin.last();
        assert_eq!(told(&seen, "traceparent"), ["nonsense", PARENT], "{path}");
        assert_eq!(
            (told(&seen, "tracestate"), told(&seen, "baggage")),
            (vec!["==,".into()], vec!["a=b;c, d=e".into()])
        );
        assert_eq!(gateway.get(path).status(), 200);
        assert_eq!(told(&origin.last(), "traceparent"), [""; 0], "{path}");
    }
}

#[test]
fn a_trusted_callers_trace_goes_on_with_a_span_for_the_gateway() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, &origin, "tracing: { sample: 0 }", "127.0.0.1");
    let given = [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("baggage", "user=7")];
    for path in ["/", "/h2/"] {
        for http2 in [false, true] {
            let status = if http2 {
                gateway.h2().ask("GET", path, &given, []).unwrap().status
            } else {
                gateway.ask("GET", path, &given, "").status()
            };
            assert_eq!(status, 200);
            let seen = origin.last();
            let parts = parts(&seen);
            assert_eq!([&*parts[0], &*parts[1], &*parts[3]], ["00", "0af7651916cd43dd8448eb211c80319c", "01"]);
            assert_ne!(parts[2], "b7ad6b7169203331", "the caller's span is not ours");
            assert_eq!(
                (told(&seen, "tracestate"), told(&seen, "baggage")),
                (vec!["a=1,b=2".into()], vec!["user=7".into()])
            );
        }
    }
}

#[test]
fn a_strangers_trace_ends_at_the_gateway_and_a_new_one_begins() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, &origin, "tracing: { sample: 0 }", "");
    let given = [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "user=7")];
    let mut traces = Vec::new();
    for given in [&given[..], &[], &[("traceparent", "00-nonsense")]] {
        assert_eq!(gateway.ask("GET", "/", given, "").status(), 200);
        let seen = origin.last();
        let parts = parts(&seen);
        assert_eq!((parts[0].len(), parts[1].len(), parts[2].len(), &*parts[3]), (2, 32, 16, "02"), "not recorded");
        assert!(told(&seen, "tracestate").is_empty());
        traces.push(parts[1].clone());
    }
    traces.push("0af7651916cd43dd8448eb211c80319c".to_owned());
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 4, "each has its own");
}

#[test]
fn callouts_belong_to_the_trace_of_the_exchange_they_are_made_for() {
    let (origin, helper) = (Origin::plain(), Origin::plain());
    let gateway = gateway(&origin, &helper, "tracing: { parents: any }", "");
    let given = [("traceparent", PARENT), ("x-probe", "callout=helper")];
    assert_eq!(gateway.ask("GET", "/", &given, "").status(), 200);
    let (called, sent) = (parts(&helper.last()), parts(&origin.last()));
    assert_eq!((&*called[1], &*sent[1]), ("0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c"));
    assert!(called[2] != sent[2] && called[2] != "b7ad6b7169203331", "in a span of its own");
}

#[test]
fn the_access_log_names_the_trace_and_the_gateways_span() {
    let origin = Origin::plain();
    let text: String =
        ROUTES.lines().filter(|line| !line.starts_with("listeners:")).map(|line| format!("{line}\n")).collect();
    let text = format!("access_log: stdout\n{text}");
    let places: [(&str, &dyn std::fmt::Display); 4] =
        [("origin", &origin), ("helper", &origin), ("top", &"tracing: { parents: any, sample: 0 }"), ("proxies", &"")];
    let process = Start::new(env!("CARGO_BIN_EXE_gateway"), &text, &places).start();
    assert_eq!(process.client().ask("GET", "/traced", &[("traceparent", PARENT)], "").status(), 200);
    let line = process.logged(&["/traced"]);
    let span = &parts(&origin.last())[2];
    let ids = format!("\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"span_id\":\"{span}\"");
    assert!(line.contains(&ids), "{ids}: {line}");
}
