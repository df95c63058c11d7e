//! §6.3 and §7.3, buffers, pausing and what body callbacks answer.

use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;

use crate::guest::{gateway, guest};

/// A guest that drops the length of responses and has this response-body callback: `$size` and `$end` are its arguments.
fn on_body(body: &str) -> String {
    format!(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $remove (i32.const 2) 'content-length') (i32.const 0))
           (func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $end i32) (result i32) {body})"#
    )
}

/// An origin that sends `ab`, `cd` and `ef`, each on its own, so that the gateway sees three pieces.
fn in_pieces() -> Origin {
    Origin::start(|_| {
        let open = || {
            let gate = Gate::default();
            gate.open();
            gate
        };
        Answer::status(200).data("ab").wait(&open()).data("cd").wait(&open()).data("ef")
    })
}

#[test]
fn a_buffer_is_written_at_its_front_at_its_end_and_in_between() {
    for (start, size, want) in [
        ("0", "0", "<>hello"),
        ("0", "5", "<>"),
        ("0", "-1", "<>"),
        ("0", "2", "<>llo"),
        ("5", "0", "hello<>"),
        ("-1", "0", "hello<>"),
        // Envoy answers BadArgument here; the specification says what we do.
        ("2", "1", "he<>lo"),
        ("2", "0", "he<>llo"),
    ] {
        let origin = Origin::always(Answer::ok("hello"));
        let set = format!("(drop (call $set_buffer (i32.const 1) (i32.const {start}) (i32.const {size}) '<>'))");
        let body = on_body(&format!("(if (local.get $size) (then {set})) (i32.const 0)"));
        let answer = gateway(&origin, &body).get("/");
        assert_eq!((answer.status(), answer.text().as_str(), answer.complete), (200, want, true), "{start}, {size}");
    }
}

#[test]
fn pause_holds_the_body_and_shows_all_of_it_until_it_goes_on() {
    // Each piece is held; at the end the whole is marked.
    let body = on_body(
        "(if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
         (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) '<'))
         (drop (call $set_buffer (i32.const 1) (i32.const -1) (i32.const 0) '>'))
         (i32.const 0)",
    );
    let origin = in_pieces();
    let gateway = gateway(&origin, &body);
    for path in ["/", "/h2/"] {
        assert_eq!(gateway.get(path).text(), "<abcdef>", "{path}");
        assert_eq!(gateway.h2().get(path).text(), "<abcdef>", "{path}");
    }
}

#[test]
fn what_is_stopped_without_a_buffer_is_dropped() {
    let body = on_body("(if (result i32) (local.get $end) (then (i32.const 0)) (else (i32.const 3)))");
    let answer = gateway(&in_pieces(), &body).get("/");
    assert!(answer.complete && answer.text().len() <= 2, "{:?}", answer.text());
}

#[test]
fn what_is_stopped_with_a_watermark_is_sent_whole_in_order() {
    let body = on_body("(if (result i32) (local.get $end) (then (i32.const 0)) (else (i32.const 2)))");
    assert_eq!(gateway(&in_pieces(), &body).get("/").text(), "abcdef");
}

#[test]
fn there_is_never_an_empty_piece_that_is_not_the_end() {
    let body = on_body("(if (i32.eqz (i32.or (local.get $size) (local.get $end))) (then unreachable)) (i32.const 0)");
    let origin = in_pieces();
    let gateway = gateway(&origin, &body);
    for path in ["/", "/h2/"] {
        assert_eq!(gateway.get(path).text(), "abcdef");
    }
}

#[test]
fn messages_without_a_body_end_with_their_head() {
    let guest = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $digit (i32.const 0) 'x-ends' (local.get 2)) (i32.const 0))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $digit (i32.const 2) 'x-ends' (local.get 2)) (i32.const 0))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let origin = Origin::start(|seen| match seen.uri.path() {
        "/204" => Answer::status(204),
        "/304" => Answer::status(304),
        _ => Answer::ok("body"),
    });
    let gateway = gateway(&origin, guest);
    for (method, path, body, want) in [
        ("GET", "/", "", ("1", "0")),
        ("POST", "/", "body", ("0", "0")),
        ("HEAD", "/", "", ("1", "1")),
        ("GET", "/204", "", ("1", "1")),
        ("GET", "/304", "", ("1", "1")),
    ] {
        let answer = gateway.ask(method, path, &[], body);
        let told =
            (origin.last().get("x-ends").unwrap_or("-").to_owned(), answer.get("x-ends").unwrap_or("-").to_owned());
        assert_eq!((told.0.as_str(), told.1.as_str()), want, "{method} {path}");
    }
}

#[test]
fn a_body_that_no_longer_fits_its_length_never_spills_into_the_next_message() {
    // §12.3: the length stays, the body grows.
    let guest = r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (drop (call $set_buffer (i32.const 0) (i32.const -1) (i32.const 0) 'POST /smuggled HTTP/1.1\0d\0ahost: x\0d\0a\0d\0a')) (i32.const 0))"#;
    let origin = Origin::plain();
    let gateway = gateway(&origin, guest);
    let mut client = gateway.client();
    for _ in 0..3 {
        client.send("POST /outer HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
        if client.0.message().is_err() {
            client = gateway.client();
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.uri.path() == "/outer"), "{:?}", origin.seen());
}

#[test]
fn headers_can_be_held_back_alone_where_the_plugin_says_so() {
    // What the headers callback pauses, the body callback may still change; with the option off it is not called at all.
    let guest = guest(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32) (param $size i32) (param $end i32) (result i32)
            (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
            (call $digit (i32.const 0) 'x-size' (local.get $size))
            (i32.const 0))"#,
    );
    let origin = Origin::plain();
    let entry = format!(
        "{{ module: \"file:{}\", limits: {{ cpu: 5s }}, allow_on_headers_stop_iteration: true }}",
        guest.path().display()
    );
    let gateway =
        portcullis_tests::gateway::Gateway::start(crate::guest::CONFIG, &[("origin", &origin), ("wat", &entry)]);
    let answer = gateway.ask("POST", "/", &[], "seven..");
    assert_eq!((answer.status(), origin.last().get("x-size")), (200, Some("7")));
    assert_eq!(origin.last().body, "seven..");
}
