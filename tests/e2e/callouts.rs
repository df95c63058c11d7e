//! Calls that guests make to upstreams while an exchange waits.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::process::free_address;
use portcullis_tests::raw::RawOrigin;

/// A gateway whose probe can call `helper` (and `helper2`, over HTTP/2), beside the origin.
fn with_helper(origin: &Origin, helper: &dyn std::fmt::Display) -> Gateway {
    Gateway::start(
        r#"
upstreams:
  origin: { endpoints: ["{origin}"] }
  helper: { endpoints: ["{helper}"], timeouts: { connect: 500ms } }
  helper2: { endpoints: ["{helper}"], protocol: http2, timeouts: { connect: 500ms } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("helper", helper)],
    )
}

#[test]
fn an_exchange_waits_for_a_callout_and_goes_on_with_its_answer() {
    let origin = Origin::plain();
    let helper = Origin::start(|seen| Answer::ok(format!("{} {}", seen.method, seen.target())).header("x-own", "1"));
    let gateway = with_helper(&origin, &helper);
    for upstream in ["helper", "helper2"] {
        let answer = gateway.ask("POST", "/", &[("x-probe", &format!("callout={upstream}"))], "body");
        assert_eq!(answer.status(), 200);
        let seen = origin.last();
        assert_eq!((seen.get("x-probe-callout"), seen.body.as_ref()), (Some("200 GET /probe-callout"), &b"body"[..]));
        let script = format!("callout={upstream}@response_headers");
        let answer = gateway.ask("GET", "/", &[("x-probe", &script)], "");
        assert_eq!((answer.get("x-probe-callout"), answer.text().as_str()), (Some("200 GET /probe-callout"), "ok"));
    }
    let authority = helper.last().uri.authority().map(ToString::to_string);
    assert_eq!(authority.as_deref(), Some("helper2"), "the guest said so");
}

#[test]
fn a_guest_hears_of_every_way_a_callout_can_fail() {
    let nobody = free_address();
    let silent = Origin::always(Answer::ok("late").after(&Gate::default()));
    let breaking = RawOrigin::start(|wire, _| {
        let _request = wire.message();
    });
    let truncated = RawOrigin::start(|wire, _| {
        let _request = wire.message();
        let _gone = wire.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
    });
    let large = Origin::always(Answer::ok(vec![b'x'; 2 << 20]));
    let origin = Origin::plain();
    for (what, helper, want) in [
        ("nobody", &nobody as &dyn std::fmt::Display, "503 "),
        ("no answer in time", &silent, "504 "),
        ("broken off", &breaking, "503 "),
        ("truncated", &truncated, "none"),
        ("too large", &large, "none"),
    ] {
        let gateway = with_helper(&origin, helper);
        let answer = gateway.ask("GET", "/", &[("x-probe", "callout=helper")], "");
        assert_eq!(answer.status(), 200, "{what}");
        let told = origin.last().get("x-probe-callout").unwrap_or_default().to_owned();
        assert!(told.starts_with(want), "{what}: {told}");
    }
}

#[test]
fn an_upstream_that_does_not_exist_is_refused_at_once() {
    let origin = Origin::plain();
    let gateway = with_helper(&origin, &origin);
    let answer = gateway.ask("GET", "/", &[("x-probe", "callout=nowhere")], "");
    assert_eq!((answer.status(), answer.text().as_str()), (502, "probe: callout refused: BadArgument\n"));
}

#[test]
fn many_callouts_are_out_at_once() {
    let gate = Gate::default();
    let held = gate.clone();
    let helper = Origin::start(move |_| Answer::ok("free").after(&held));
    let origin = Origin::plain();
    let gateway = with_helper(&origin, &helper);
    let mut clients: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\nx-probe: callout=helper\r\n\r\n");
    }
    helper.wait_for(20);
    assert_eq!(gateway.get("/").status(), 200, "nobody else waits");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().status(), 200);
    }
}

#[test]
fn a_client_that_leaves_during_a_callout_hurts_nobody() {
    let gate = Gate::default();
    let held = gate.clone();
    let helper = Origin::start(move |_| Answer::ok("free").after(&held));
    let origin = Origin::plain();
    let gateway = with_helper(&origin, &helper);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\nx-probe: callout=helper\r\n\r\n");
    helper.wait_for(1);
    drop(client);
    eventually("the exchange has ended", || gateway.metric("http_server_active_requests", &[]) == 0.0);
    gate.open();
    let answer = gateway.ask("GET", "/", &[("x-probe", "callout=helper")], "");
    assert_eq!(answer.status(), 200);
    assert_eq!(gateway.metric("portcullis_filter_traps_total", &[]), 0.0);
}

#[test]
fn a_reply_is_sent_once_the_callout_is_back() {
    let origin = Origin::plain();
    let gateway = with_helper(&origin, &origin);
    let answer = gateway.ask("GET", "/", &[("x-probe", "callout=helper reply=401@callout")], "");
    assert_eq!((answer.status(), answer.get("x-probe-reply")), (401, Some("callout")));
}
