//! Telemetry as a whole: from records to the lines and numbers an operator reads.

use std::collections::HashSet;
use std::sync::mpsc;

use portcullis_core::reply::Failure;

use super::*;

/// The parts of a record that it only borrows.
pub(super) struct Sample {
    tenant: Arc<str>,
    route: Arc<str>,
    pattern: Arc<str>,
    upstream: Arc<str>,
    chain: Chain,
    pub(super) request: Chosen,
    pub(super) response: Chosen,
}

impl Sample {
    pub(super) fn new() -> Self {
        Self::of("acme", "/v1/orders/{id}")
    }

    fn of(tenant: &str, pattern: &str) -> Self {
        Self {
            tenant: tenant.into(),
            route: "orders".into(),
            pattern: pattern.into(),
            upstream: "orders".into(),
            chain: Chain::default(),
            request: Chosen::default(),
            response: Chosen::default(),
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
        Record {
            tenant: &self.tenant,
            route: &self.route,
            pattern: &self.pattern,
            upstream: &self.upstream,
            upstream_address: Some(([127, 0, 0, 1], 9001).into()),
            method: &Method::GET,
            host: b"acme.example.com",
            path: "/v1/orders/7?expand=lines",
            protocol: "HTTP/1.1",
            source: ([192, 0, 2, 7], 40312).into(),
            request_id: b"id-1",
            status: 200,
            reason: "via_upstream",
            request_bytes: 0,
            response_bytes: 512,
            duration: Duration::from_micros(3250),
            upstream_wait: Some(Duration::from_millis(3)),
            time: Time::from_nanos(1_772_368_496_789_000_000),
            user_agent: b"curl/8.5",
            trace: None,
            scheme: "http",
            tries: &[],
            attempts: 1,
            request_fields: &self.request,
            response_fields: &self.response,
            properties: &[],
            chain: &self.chain,
            timings: None,
        }
    }
}

/// Collects what is written to it.
struct Collector(mpsc::Sender<Vec<u8>>);

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn all() -> settings::AccessLog {
    settings::AccessLog::to(LogTarget::Stdout)
}

fn silent() -> Arc<Telemetry> {
    Telemetry::new(&settings::AccessLog::to(LogTarget::Off)).unwrap()
}

/// The value of a sample, named with its labels exactly as it is written.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(line.parse().expect("a value is a number"))
}

#[test]
fn every_line_is_written_by_the_time_the_last_holder_lets_go() {
    let (sent, written) = mpsc::channel();
    let telemetry = Telemetry::with_log(&all(), Some(Collector(sent)));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let telemetry = telemetry.clone();
            std::thread::spawn(move || {
                let (worker, sample) = (telemetry.worker(), Sample::new());
                for _ in 0..1000 {
                    worker.record(&sample.record());
                }
                worker.flush();
                worker.record(&sample.record());
            })
        })
        .collect();
    drop(telemetry);
    for worker in workers {
        worker.join().unwrap();
    }
    let written: Vec<u8> = written.try_iter().flatten().collect();
    let lines: Vec<serde_json::Value> =
        written.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(lines.len(), 4 * 1001);
    assert!(lines.iter().all(|line| line["route"] == "orders"));
}

#[test]
fn a_share_of_requests_is_written_and_every_failure() {
    let (sent, written) = mpsc::channel();
    let telemetry = Telemetry::with_log(&settings::AccessLog { sample: 0.1, ..all() }, Some(Collector(sent)));
    let (worker, sample) = (telemetry.worker(), Sample::new());
    for number in 0..2000 {
        let mut record = sample.record();
        record.status = if number % 10 == 0 { 503 } else { 204 };
        worker.record(&record);
    }
    drop((worker, telemetry));
    let lines = written.try_iter().flatten().filter(|byte| *byte == b'\n').count();
    assert!((200 + 110..200 + 260).contains(&lines), "{lines}");
}

#[test]
fn a_scrape_adds_up_what_workers_counted() {
    let telemetry = silent();
    let (one, other) = (telemetry.worker(), telemetry.worker());
    // The same names at other addresses: a later revision of the same configuration.
    let (sample, reloaded) = (Sample::new(), Sample::new());
    for (worker, sample) in [(&one, &sample), (&one, &reloaded), (&other, &sample)] {
        worker.began();
        worker.record(&sample.record());
    }
    other.ended();
    let connections = [one.connection(), other.connection()];
    drop(connections.into_iter().next());
    let _open = one.connection();
    let text = telemetry.render();
    let kind = "http_request_method=\"GET\",http_response_status_code=\"200\",http_route=\"/v1/orders/{id}\",\
                network_protocol_version=\"1.1\",portcullis_tenant=\"acme\",portcullis_upstream=\"orders\"";
    let target = "http_route=\"/v1/orders/{id}\",portcullis_tenant=\"acme\",portcullis_upstream=\"orders\"";
    for (sample, want) in [
        (format!("http_server_request_duration_seconds_bucket{{{kind},le=\"0.005\"}}"), 3.0),
        (format!("http_server_request_duration_seconds_count{{{kind}}}"), 3.0),
        (format!("http_server_request_duration_seconds_sum{{{kind}}}"), 0.009_75),
        (format!("portcullis_request_overhead_seconds_bucket{{{target},le=\"0.0001\"}}"), 0.0),
        (format!("portcullis_request_overhead_seconds_bucket{{{target},le=\"0.00025\"}}"), 3.0),
        (format!("http_server_response_body_size_bytes_sum{{{target}}}"), 1536.0),
        ("http_server_active_requests".to_owned(), 2.0),
        ("portcullis_connections_open".to_owned(), 1.0),
        ("portcullis_connections_total".to_owned(), 3.0),
        ("portcullis_access_log_dropped_total".to_owned(), 0.0),
    ] {
        assert_eq!(value(&text, &sample), Some(want), "{sample}\n{text}");
    }
}

#[test]
fn labels_come_from_fixed_sets() {
    let (telemetry, sample) = (silent(), Sample::of("", ""));
    let worker = telemetry.worker();
    let brew = Method::from_bytes(b"BREW\x7e").unwrap();
    let count = |status, reason: &str, method: &Method| {
        let mut record = sample.record();
        (record.status, record.reason, record.method) = (status, reason, method);
        worker.record(&record);
    };
    for (status, reason, method, want) in [
        (200, "via_upstream", &Method::GET, "http_request_method=\"GET\",http_response_status_code=\"200\",network"),
        (200, "via_upstream", &brew, "http_request_method=\"_OTHER\",http_response_status_code=\"200\",network"),
        (404, "via_upstream", &Method::PUT, "\"PUT\",http_response_status_code=\"404\",network"),
        (502, "via_upstream", &Method::GET, "http_response_status_code=\"502\",error_type=\"502\""),
        (0, "via_upstream", &Method::POST, "http_request_method=\"POST\",error_type=\"_OTHER\""),
        (404, Failure::NoRoute.code(), &Method::GET, "error_type=\"no_route\""),
        (0, Failure::ClientGone.code(), &Method::GET, "http_request_method=\"GET\",error_type=\"client_gone\""),
        (403, "my_own_words_17", &Method::GET, "http_response_status_code=\"403\",error_type=\"filter_reply\""),
        (200, "my_own_words_18", &Method::PATCH, "\"PATCH\",http_response_status_code=\"200\",network"),
    ] {
        count(status, reason, method);
        let text = telemetry.render();
        assert!(text.contains(want), "{want}\n{text}");
        assert!(!text.contains("my_own_words") && !text.contains("BREW"));
    }
}

#[test]
fn series_beyond_the_bound_are_counted_as_overflow_and_the_page_stays_below_5_mb() {
    let telemetry = silent();
    let worker = telemetry.worker();
    for tenant in 0..10 {
        for route in 0..400 {
            let sample = Sample::of(&format!("t{tenant}"), &format!("/{route}"));
            worker.record(&sample.record());
        }
    }
    let text = telemetry.render();
    assert!(text.len() < 5_000_000, "{}", text.len());
    let counts = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
    let all: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(all, 4000.0);
    let overflow = "http_server_request_duration_seconds_count{http_request_method=\"_OTHER\",http_response_status_code=\"200\",\
                    http_route=\"_overflow\",portcullis_tenant=\"_overflow\",portcullis_upstream=\"_overflow\"}";
    assert!(value(&text, overflow).is_some_and(|count| count > 1000.0));
}

/// What `promtool check metrics` asks of the format, so that tests need no promtool.
#[test]
fn the_text_is_what_prometheus_reads() {
    let telemetry = silent();
    telemetry.set_revision(3, "a\"b\\c\nd");
    let (worker, sample) = (telemetry.worker(), Sample::of("te\"na\\nt\n", "/a/{b}"));
    worker.record(&sample.record());
    let text = telemetry.render();
    assert!(text.ends_with('\n'));
    let (mut family, mut families, mut samples) = (String::new(), HashSet::new(), HashSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} appears twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        } else {
            assert!(line.starts_with(&family), "{line} stands under {family}");
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            assert!(samples.insert(sample.to_owned()), "{sample} appears twice");
            check_labels(sample);
        }
    }
}

fn check_labels(sample: &str) {
    let Some((_, labels)) = sample.split_once('{') else { return };
    let mut rest = labels.strip_suffix('}').unwrap();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{sample}");
        let mut escaped = false;
        let end = value.find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        rest = &value[end.unwrap() + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}
