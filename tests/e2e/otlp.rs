//! What a collector gets: spans and log records by OTLP, and what becomes of requests while there is none.
//!
//! Messages are read by declarations of the test's own, made after `opentelemetry-proto`.

use std::time::Duration;

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin, Seen};
use prost::Message;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const CONFIG: &str = r#"
tracing: { sample: 1 }
otlp: { upstream: collector, service: edge, headers: { x-key: secret } }
access_log: { to: "off", otlp: true }
listeners: { main: { bind: "127.0.0.1:0", trusted_proxies: [127.0.0.1] } }
upstreams:
  origin: { endpoints: ["{origin}"] }
  collector: { endpoints: ["{collector}"], timeouts: { connect: 300ms } }
routes: [{ name: items, match: { path: "/items/{id}" }, upstream: origin, retries: { attempts: 1, statuses: [503] } }]
"#;

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    trace: Vec<u8>,
}

/// `ScopeSpans` and `ScopeLogs`, which have the same numbers.
#[derive(Clone, PartialEq, Message)]
struct Scoped {
    #[prost(bytes = "vec", repeated, tag = "2")]
    items: Vec<Vec<u8>>,
}

/// `ResourceSpans` and `ResourceLogs`.
#[derive(Clone, PartialEq, Message)]
struct Resourced {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scoped: Vec<Scoped>,
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resourced: Vec<Resourced>,
}

fn get<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    get(attributes, key).and_then(|value| value.text.clone()).unwrap_or_default()
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    get(attributes, key)?.number
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What has come at this path so far, and what it says of its sender.
fn received<T: Message + Default>(collector: &Origin, path: &str) -> (Vec<T>, Vec<KeyValue>) {
    let requests: Vec<Seen> = collector.seen().into_iter().filter(|seen| seen.target() == path).collect();
    let (mut items, mut sender) = (Vec::new(), Vec::new());
    for request in &requests {
        assert_eq!(request.get("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.get("x-key"), Some("secret"));
        for resourced in Export::decode(&request.body[..]).unwrap().resourced {
            sender = resourced.resource.unwrap_or_default().attributes;
            let scoped = resourced.scoped.into_iter().flat_map(|scoped| scoped.items);
            items.extend(scoped.map(|item| T::decode(&item[..]).unwrap()));
        }
    }
    (items, sender)
}

fn gateway(origin: &Origin, collector: &dyn std::fmt::Display) -> Gateway {
    Gateway::start(CONFIG, &[("origin", origin), ("collector", collector)])
}

#[test]
fn a_request_is_a_span_with_one_for_each_try_and_a_log_record() {
    let collector = Origin::always(Answer::ok(""));
    let origin = Origin::start(|seen| match seen.target() {
        "/items/9" => Answer::status(503),
        _ => Answer::ok("ok"),
    });
    let gateway = gateway(&origin, &collector);
    assert_eq!(gateway.ask("GET", "/items/7", &[("traceparent", PARENT)], "").status(), 200);
    let told = origin.last().get("traceparent").unwrap().to_owned();
    assert_eq!(gateway.ask("GET", "/items/9", &[], "").status(), 503);
    eventually("all spans have come", || received::<Span>(&collector, "/v1/traces").0.len() >= 5);
    let (spans, sender) = received::<Span>(&collector, "/v1/traces");
    assert_eq!(text(&sender, "service.name"), "edge");
    let (ours, theirs): (Vec<_>, Vec<_>) = spans.iter().partition(|span| hex(&span.trace) == PARENT[3..35]);
    let server = ours.iter().find(|span| span.kind == 2).unwrap();
    let client = ours.iter().find(|span| span.kind == 3).unwrap();
    assert_eq!((hex(&server.parent), &client.parent), (PARENT[36..52].to_owned(), &server.span));
    assert_eq!(told, format!("{}{}-01", &PARENT[..36], hex(&client.span)), "upstreams are told of the try");
    assert_eq!(server.name, "GET /items/{id}");
    assert!(server.start <= client.start && client.start <= client.end && client.end <= server.end);
    for (key, want) in [("http.request.method", "GET"), ("http.route", "/items/{id}"), ("url.scheme", "http")] {
        assert_eq!(text(&server.attributes, key), want, "{key}");
    }
    assert_eq!(number(&server.attributes, "http.response.status_code"), Some(200));
    let mut tries: Vec<_> = theirs.iter().filter(|span| span.kind == 3).collect();
    tries.sort_by_key(|span| span.start);
    let resent: Vec<_> = tries.iter().map(|span| number(&span.attributes, "http.request.resend_count")).collect();
    assert_eq!(resent, [None, Some(1)]);
    eventually("the log records have come", || received::<LogRecord>(&collector, "/v1/logs").0.len() >= 2);
    let (records, _) = received::<LogRecord>(&collector, "/v1/logs");
    assert!(records.iter().any(|record| hex(&record.trace) == PARENT[3..35]), "{records:?}");
    assert!(gateway.metric("portcullis_otlp_items_total", &["traces", "sent"]) >= 5.0);
}

#[test]
fn without_a_collector_requests_are_served_and_what_is_lost_is_counted() {
    let origin = Origin::plain();
    let nobody = portcullis_tests::process::free_address();
    let gateway = gateway(&origin, &nobody);
    let timed = |_| {
        let began = std::time::Instant::now();
        assert_eq!(gateway.get("/items/1").status(), 200);
        began.elapsed()
    };
    let mut times: Vec<Duration> = (0..50).map(timed).collect();
    times.sort_unstable();
    // A machine that does other things too may keep a few of them.
    assert!(times[40] < Duration::from_secs(2), "{times:?}");
    eventually("the loss is counted", || gateway.metric("portcullis_otlp_items_total", &["traces", "failed"]) >= 100.0);
}

#[test]
fn each_part_that_a_filter_takes_in_a_sampled_request_is_a_span() {
    let (collector, origin) = (Origin::always(Answer::ok("")), Origin::plain());
    let text = CONFIG.replace("routes:", "plugins: { probe: {guest:probe} }\nroutes:").replace(
        "retries:",
        "filters: [{ plugin: probe, config: headers }, { plugin: probe, config: reply@request_headers }], retries:",
    );
    let gateway = Gateway::start(&text, &[("origin", &origin), ("collector", &collector)]);
    let unsampled = format!("{}00", &PARENT[..53]);
    assert_eq!(gateway.ask("GET", "/items/0", &[("traceparent", &unsampled)], "").status(), 418);
    assert_eq!(gateway.ask("GET", "/items/7", &[("traceparent", PARENT)], "").status(), 418);
    let all = || received::<Span>(&collector, "/v1/traces").0;
    eventually("the spans have come", || all().iter().any(|span| span.kind == 2));
    let spans = all();
    assert_eq!(spans.iter().filter(|span| span.kind == 2).count(), 1, "of the sampled one alone");
    let server = spans.iter().find(|span| span.kind == 2).unwrap();
    let mut filters: Vec<&Span> = spans.iter().filter(|span| span.kind == 1).collect();
    filters.sort_by_key(|span| (span.start, number(&span.attributes, "portcullis.filter.index")));
    let told: Vec<_> = filters
        .iter()
        .map(|span| {
            assert_eq!((&span.parent, &span.trace), (&server.span, &server.trace));
            assert!(server.start <= span.start && span.start <= span.end);
            assert_eq!(text_of(span, "portcullis.plugin"), "probe");
            let index = number(&span.attributes, "portcullis.filter.index").unwrap_or_default();
            (index, text_of(span, "portcullis.filter.phase"), text_of(span, "portcullis.decision"))
        })
        .collect();
    let part = |index, phase: &str, decision: &str| (index, phase.to_owned(), decision.to_owned());
    assert_eq!(
        told.iter().filter(|(_, phase, _)| phase != "end").cloned().collect::<Vec<_>>(),
        [
            part(0, "request", "next"),
            part(1, "request", "reply"),
            part(1, "response", "next"),
            part(0, "response", "next")
        ]
    );
    assert_eq!(filters[0].name, "filter probe request");
}

fn text_of(span: &Span, key: &str) -> String {
    text(&span.attributes, key)
}
