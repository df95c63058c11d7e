//! Filters that fail, and hosts that do.

use portcullis_sdk::{
    Bodies, Filter, Host, Next, NoConfig, Request, Response, StartError, Upstream, ms, shared, sleep, start,
};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent};

/// Panics where the path says.
struct Panics;

impl Filter for Panics {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, request: Request, next: Next) -> Response {
        let path = request.path();
        assert!(path != "/request", "asked to, at the request");
        if path == "/later" {
            sleep(ms(10)).await;
            panic!("asked to, later");
        }
        let response = next.run(request).await;
        assert!(path != "/response", "asked to, at the response");
        response
    }
}

#[test]
fn a_panic_costs_its_own_exchange_and_the_filter_starts_anew() {
    let mut gateway = Gateway::new().plugin(Plugin::new("panics", start::<Panics>)).start();
    for path in ["/request", "/response", "/later"] {
        let outcome = gateway.send(Sent::get(path));
        assert_eq!((outcome.status(), outcome.details.as_str()), (503, "filter_failed"), "{path}");
        assert!(outcome.log.iter().any(|line| line.level == "critical" && line.text.contains("failures.rs")), "{path}");
        assert_eq!(gateway.send(Sent::get("/")).status(), 200);
    }
    let open = Plugin::new("panics", start::<Panics>).fails_open();
    let outcome = Gateway::new().plugin(open).start().send(Sent::get("/request"));
    assert_eq!((outcome.status(), outcome.at_upstream().target()), (200, "/request"));
}

/// Uses everything that there is.
struct Busy;

impl Filter for Busy {
    type Config = NoConfig;
    const BODIES: Bodies = Bodies::BOTH;

    async fn start(_: NoConfig, host: &Host) -> Result<Self, StartError> {
        host.counter("busy").increment();
        host.gauge("busy_gauge").set(host.counter("busy").get());
        host.histogram("busy_histogram").record(1);
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let _ = (request.client_ip(), request.method(), request.authority(), request.query(), request.headers().all());
        let _ = request.property::<u64>(&["connection", "id"]);
        request.set_property("busy", "1");
        request.headers_mut().append("x-a", "1");
        request.headers_mut().remove("x-b");
        let _ = shared::Cell::<String>::new("busy").update(|_| Some("x".to_owned()));
        let _ = Upstream::from("side").get("/").send().await;
        sleep(ms(1)).await;
        if let Ok(body) = request.body_mut().collect(100).await {
            let _ = request.body_mut().set(body);
        }
        let mut response = next.run(request).await;
        let _ = (response.status(), response.headers().get_all("x-a"));
        response.set_status(201);
        if let Ok(body) = response.body_mut().collect(100).await {
            let _ = response.body_mut().set([&body[..], b"!"].concat());
        }
        response
    }
}

fn busy() -> portcullis_testing::Running {
    Gateway::new().upstream("side", |_| Reply::ok("")).plugin(Plugin::new("busy", start::<Busy>)).start()
}

#[test]
fn the_busy_filter_works_when_nothing_fails() {
    let outcome = busy().send(Sent::post("/?q").body("body"));
    assert_eq!((outcome.status(), outcome.reply.text().as_str()), (201, "ok!"));
    assert_eq!(outcome.at_upstream().text(), "body");
}

#[test]
fn no_status_of_any_hostcall_makes_the_sdk_panic() {
    let hostcalls = [
        "proxy_get_header_map_value",
        "proxy_get_header_map_pairs",
        "proxy_replace_header_map_value",
        "proxy_add_header_map_value",
        "proxy_remove_header_map_value",
        "proxy_get_buffer_bytes",
        "proxy_set_buffer_bytes",
        "proxy_get_property",
        "proxy_set_property",
        "proxy_get_shared_data",
        "proxy_set_shared_data",
        "proxy_define_metric",
        "proxy_increment_metric",
        "proxy_record_metric",
        "proxy_get_metric",
        "proxy_get_current_time_nanoseconds",
        "proxy_set_tick_period_milliseconds",
        "proxy_continue_stream",
    ];
    // All that the ABI has, those that it warns of, and some that are none.
    let statuses = (1..=13).chain([255, u32::MAX]);
    for (hostcall, status) in hostcalls.iter().flat_map(|call| statuses.clone().map(move |status| (*call, status))) {
        for times in [1, 2, 1000] {
            let mut gateway = busy();
            gateway.fail(hostcall, status, times);
            let outcome = gateway.send(Sent::post("/").body("body"));
            assert_ne!(outcome.details, "filter_failed", "{hostcall} {status} {times}: {:?}", outcome.log);
            assert!(!outcome.log.iter().any(|line| line.level == "critical"), "{hostcall} {status} {times}");
        }
    }
}

#[test]
fn callouts_take_the_statuses_that_hosts_have_for_them() {
    for status in [2, 10] {
        let mut gateway = busy();
        gateway.fail("proxy_http_call", status, 1);
        assert_eq!(gateway.send(Sent::post("/").body("body")).status(), 201);
    }
}
