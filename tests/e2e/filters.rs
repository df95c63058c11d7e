//! What filters do to passing messages. The probe does it; its words are in `plugins/probe/src/script.rs`.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::{Piece, fields};

#[test]
fn headers_are_changed_on_both_ways_over_both_protocols() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "headers");
    for path in ["/", "/h2/"] {
        assert_eq!(gateway.get(path).get("x-probe-response"), Some("seen"));
        assert_eq!(origin.last().get("x-probe-request"), Some("seen"));
        assert_eq!(gateway.h2().get(path).get("x-probe-response"), Some("seen"));
        assert_eq!(origin.last().get("x-probe-request"), Some("seen"));
    }
}

#[test]
fn requests_go_through_filters_in_order_and_responses_in_reverse() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ name: a, plugin: banner, config: { header: x-last, value: outer } }]
routes:
  - name: all
    match: { path: "/*" }
    filters: [{ name: b, plugin: banner, config: { header: x-last, value: inner } }]
    upstream: origin
"#,
        &[("origin", &origin)],
    );
    assert_eq!(gateway.get("/").get("x-last"), Some("outer"));
    assert_eq!(origin.last().get("x-last"), Some("inner"));
}

#[test]
fn a_filter_has_the_route_chosen_again_among_those_with_its_filters() {
    let (first, second) = (Origin::plain(), Origin::plain());
    let gateway = Gateway::start(
        r#"
upstreams: { first: { endpoints: ["{first}"] }, second: { endpoints: ["{second}"] } }
plugins: { probe: {guest:probe}, banner: {guest:banner} }
tenants:
  own:
    hosts: [own.test]
    filters: [{ plugin: probe }]
    routes:
      - { name: same, match: { path: "/same" }, upstream: second }
      - name: guarded
        match: { path: "/guarded" }
        filters: [{ plugin: banner, config: { header: x-guard, value: "on" } }]
        upstream: second
      - { name: rest, match: { path: "/*" }, upstream: first }
  other:
    hosts: [other.test]
    filters: [{ plugin: probe }]
    routes: [{ name: all, match: { path: "/*" }, upstream: second }]
"#,
        &[("first", &first), ("second", &second)],
    );
    let ask = |script: &str| {
        let (before, there) = (first.begun(), second.begun());
        let answer = gateway.ask("GET", "/", &[("host", "own.test"), ("x-probe", script)], "");
        (answer.status(), first.begun() - before, second.begun() - there)
    };
    assert_eq!(ask("path=/same"), (200, 1, 0), "a path alone does not choose");
    assert_eq!(ask("path=/same reroute"), (200, 0, 1));
    assert_eq!(second.last().target(), "/same");
    assert_eq!(ask("reroute path=/same"), (200, 0, 1), "it is chosen when all filters have seen the request");
    assert_eq!(ask("path=/guarded reroute"), (200, 1, 0), "a filter that it has not been through stands there");
    let there = second.begun();
    assert_eq!(
        gateway.ask("GET", "/", &[("host", "own.test"), ("x-probe", "path=/same reroute callout=second")], "").status(),
        200,
        "a filter that waits meanwhile does not lose it"
    );
    assert_eq!(second.begun() - there, 2, "the callout's and its own");
}

#[test]
fn a_filter_answers_in_the_place_of_the_origin() {
    for (script, method, want) in [
        ("reply=403@request_headers", "GET", (403, "probe: reply from request_headers\n")),
        ("reply=403@request_body", "POST", (403, "probe: reply from request_body\n")),
        ("reply=451@response_headers", "GET", (451, "probe: reply from response_headers\n")),
        ("reply=204@request_headers", "GET", (204, "")),
        ("reply=200@request_headers", "HEAD", (200, "")),
    ] {
        let origin = Origin::plain();
        let gateway = Gateway::probed(&origin, script);
        let body = if method == "POST" { "body" } else { "" };
        for path in ["/", "/h2/"] {
            let mut client = gateway.client();
            let answer = client.ask(method, path, &[], body);
            assert_eq!((answer.status(), answer.text().as_str()), want, "{script}");
            assert_eq!(client.ask(method, path, &[], body).status(), want.0, "{script}: the connection is in step");
            let pieces = (!body.is_empty()).then(|| Piece::Data(body.into()));
            let answer = gateway.h2().ask(method, path, &[], pieces).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), want, "{script} over HTTP/2");
        }
        if script.contains("request_headers") {
            assert_eq!(origin.begun(), 0, "{script}");
        }
    }
}

#[test]
fn a_reply_after_the_head_has_gone_out_breaks_the_response_off() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "reply=403@response_body");
    for path in ["/", "/h2/"] {
        let answer = gateway.ask("GET", path, &[], "");
        assert!(answer.status() == 403 || !answer.complete, "{answer:?}");
        let answer = gateway.h2().ask("GET", path, &[], []);
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 403 || !answer.complete));
    }
}

#[test]
fn whole_bodies_are_held_and_replaced_and_their_length_is_right() {
    let origin = Origin::start(|seen| {
        Answer::status(200).data(format!("you sent {} of ", seen.body.len())).data(seen.body.clone())
    });
    let gateway = Gateway::probed(&origin, "upper@request_body upper@response_body");
    for path in ["/", "/h2/"] {
        let answer = gateway.ask("POST", path, &[], "hello");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "YOU SENT 5 OF HELLO"), "{path}");
        assert!(answer.complete);
        let seen = origin.last();
        assert!(seen.complete && seen.body == "HELLO");
        if let Some(length) = seen.get("content-length") {
            assert_eq!(length, "5");
        }
        let mut client = gateway.client();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"));
        for piece in ["so", "me", " body"] {
            client.0.write_chunk(piece).unwrap();
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.answer().text(), "YOU SENT 9 OF SOME BODY");
        let body = ["some", " body"].map(|piece| Piece::Data(piece.into()));
        assert_eq!(gateway.h2().ask("POST", path, &[], body).unwrap().text(), "YOU SENT 9 OF SOME BODY");
    }
}

#[test]
fn chunks_are_replaced_as_they_pass() {
    let origin = Origin::start(|seen| Answer::ok(format!("{:?}", seen.body)));
    let gateway = Gateway::probed(&origin, "chunks@request_body chunks@response_body");
    let answer = gateway.ask("POST", "/", &[], "hello");
    assert_eq!((origin.last().body.as_ref(), answer.text().as_str()), (&b"[5]"[..], "[6]"));
    assert_eq!(answer.complete, answer.get("content-length").is_none_or(|length| length == "3"));
}

#[test]
fn trailers_are_seen_and_added_to() {
    let origin = Origin::always(
        Answer::status(200).header("trailer", "x-own, x-probe-trailer").data("ok").trailers(&[("x-own", "1")]),
    );
    let gateway = Gateway::probed(&origin, "headers");
    let body = [Piece::Data("body".into()), Piece::Trailers(fields(&[("x-mine", "2")]))];
    let answer = gateway.h2().ask("POST", "/h2/", &[("te", "trailers")], body).unwrap();
    assert_eq!(answer.trailers, Some(fields(&[("x-own", "1"), ("x-probe-trailer", "seen")])));
    assert_eq!(origin.last().trailers, Some(fields(&[("x-mine", "2"), ("x-probe-trailer", "seen")])));
}

#[test]
fn bodies_too_large_to_be_held_are_refused() {
    let size = 3 << 20;
    let origin = Origin::start(move |seen| match seen.uri.path() {
        "/large" => Answer::ok(vec![b'x'; size]),
        _ => Answer::ok("ok"),
    });
    let gateway = Gateway::in_front_of(&origin, "[{ plugin: probe, config: \"\" }]");
    let mut client = gateway.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\nx-probe: upper@request_body\r\ncontent-length: {size}\r\n\r\n"
    ));
    let mut head = client.0.head().unwrap();
    if head.status() == 100 {
        // The gateway may close before all of it is sent.
        let _refused = client.0.write(vec![b'x'; size]);
        head = client.0.head().unwrap();
    }
    assert_eq!(head.status(), 413);
    let answer = gateway.ask("GET", "/large", &[("x-probe", "upper@response_body")], "");
    assert!(answer.status() == 502 || !answer.complete, "{} {}", answer.status(), answer.body.len());
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn a_filter_that_closes_the_stream_leaves_the_client_without_an_answer() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "");
    for script in ["close@request_headers", "close@response_headers"] {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nhost: test\r\nx-probe: {script}\r\n\r\n"));
        assert!(client.0.is_closed(), "{script}");
        let h2 = gateway.h2();
        assert!(h2.ask("GET", "/", &[("x-probe", script)], []).is_err(), "{script} over HTTP/2");
        assert_eq!(h2.get("/").status, 200, "{script}: only the one stream is reset");
    }
}

#[test]
fn a_client_that_leaves_a_paused_exchange_is_forgotten() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "pause");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the request is paused", || gateway.metric("http_server_active_requests", &[]) > 0.0);
    drop(client);
    eventually("nothing is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
    assert_eq!(origin.begun(), 0);
}

#[test]
fn shared_data_is_shared_by_all_workers() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "count=requests" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let count = |_| gateway.get("/").get("x-probe-count").unwrap().parse::<u32>().unwrap();
    assert_eq!((0..40).map(count).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
}

#[test]
fn timers_tick_whether_or_not_there_are_requests() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "tick=5 count=ticks@tick count=ticks@request_headers");
    let mut asked = 0;
    eventually("more was counted than asked", || {
        asked += 1;
        gateway.get("/").get("x-probe-count").unwrap().parse::<u32>().unwrap() > asked + 3
    });
}

#[test]
fn properties_tell_what_the_gateway_knows() {
    let origin = Origin::plain();
    let gateway = Gateway::probed(&origin, "");
    let numbers: &[u8] = &[0xc8, 0, 0, 0, 0, 0, 0, 0];
    for (path, want) in [
        ("request.path", "/a?b=c".as_bytes()),
        ("request.url_path", b"/a"),
        ("request.query", b"b=c"),
        ("request.method", b"GET"),
        ("request.host", b"test"),
        ("request.scheme", b"http"),
        ("request.protocol", b"HTTP/1.1"),
        ("request.headers.x-mine", b"yes"),
        ("request.useragent", b"tests"),
        ("plugin_name", b"probe"),
        ("xds.route_name", b"all"),
        ("xds.cluster_name", b"origin"),
        ("nothing.of.the.kind", b"-"),
        ("response.code@response_headers", numbers),
        ("upstream.address@response_headers", origin.address.to_string().as_bytes()),
    ] {
        let (name, at) = path.split_once('@').unwrap_or((path, "request_headers"));
        let script = format!("property={name}@{at}");
        let mut client = gateway.client();
        client.send(format!(
            "GET /a?b=c HTTP/1.1\r\nhost: test\r\nx-mine: yes\r\nuser-agent: tests\r\nx-probe: {script}\r\n\r\n"
        ));
        let answer = client.answer();
        let got = answer.get("x-probe-property").map(str::as_bytes);
        if name == "response.code" {
            // A number's bytes are no field value: the probe's attempt leaves none, and the request is served.
            assert_eq!((answer.status(), want), (200, numbers), "{path}: {got:?}");
        } else {
            assert_eq!(got, Some(want), "{path}: {answer:?}");
        }
    }
}

#[test]
fn pipelined_requests_keep_their_filters_apart() {
    let origin = Origin::start(|seen| Answer::ok(seen.get("x-probe-callout").unwrap_or("none").to_owned()));
    let gateway = Gateway::probed(&origin, "");
    let mut client = gateway.client();
    let one = |script: &str| format!("GET / HTTP/1.1\r\nhost: test\r\nx-probe: {script}\r\n\r\n");
    client.send([one("callout=origin"), one("reply=418"), one("headers"), one("upper@response_body")].concat());
    let answers: Vec<_> = (0..4).map(|_| client.answer()).map(|answer| (answer.status(), answer.text())).collect();
    let text = |text: &str| text.to_owned();
    assert_eq!(
        answers,
        [
            (200, text("200 none")),
            (418, text("probe: reply from request_headers\n")),
            (200, text("none")),
            (200, text("NONE")),
        ]
    );
}
