//! Bodies, configurations, local replies, pausing and closing, properties.

use bytes::Bytes;
use portcullis_core::event::{End, Event, Part};

use crate::harness::{Worker, logged};

fn get(buffer: u32, start: i32, max: i32) -> String {
    format!(
        "(call $given (call $proxy_get_buffer_bytes (i32.const {buffer}) (i32.const {start}) (i32.const {max})
            (i32.const 16) (i32.const 20)))\n"
    )
}

fn body(worker: &mut Worker, chunks: &[(&'static str, End)]) -> String {
    let id = worker.request(End::No);
    for (chunk, end) in chunks {
        worker.feed(id, Event::Request(Part::Body(Bytes::from_static(chunk.as_bytes()), *end)));
    }
    let effects = worker.effects(id);
    effects.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_body_is_read_by_ranges_that_are_clamped() {
    let calls = [get(0, 0, 5), get(0, 2, 2), get(0, 1, -1), get(0, 5, 9), get(0, -1, -1), get(0, 0, 0)].concat();
    let log = logged(|| {
        let mut worker = Worker::new(&format!(
            r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) {calls}
                (call $n (call $proxy_get_buffer_status (i32.const 0) (i32.const 16) (i32.const 20)))
                (call $n (i32.load (i32.const 16))) (call $n (i32.load (i32.const 20))) (call $end) (i32.const 0))"#
        ));
        body(&mut worker, &[("hello", End::Yes)]);
    });
    assert_eq!(log, "0 [hello]\n0 [ll]\n0 [ello]\n0 []\n0 []\n0 []\n0 5 0 ");
}

#[test]
fn a_paused_body_accumulates_and_is_replaced_as_a_whole() {
    let log = logged(|| {
        let mut worker = Worker::new(&format!(
            r#"(func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                {}
                (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
                (drop (call $proxy_set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const -1) 'new body'))
                (i32.const 0))"#,
            get(0, 0, 99)
        ));
        let effects = body(&mut worker, &[("ab", End::No), ("cd", End::No), ("", End::Yes)]);
        assert_eq!(effects, "request b\"new body\" end\n");
    });
    assert_eq!(log, "0 [ab]\n0 [abcd]\n0 [abcd]");
}

#[test]
fn configurations_are_read_at_any_time_and_callouts_only_while_they_are_delivered() {
    let calls: String = [6, 7, 4, 2, 5, 8, 9].map(|buffer| get(buffer, 0, 99)).concat();
    let set = "(call $n (call $proxy_set_buffer_bytes (i32.const 7) (i32.const 0) (i32.const 0) 'x')) (call $end)";
    let log = logged(|| {
        let mut worker = Worker::new(&format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {calls} {set} (i32.const 0))"#
        ));
        worker.head();
    });
    assert_eq!(log.lines().map(|line| &line[..2]).collect::<String>(), "0 0 1 0 0 0 2 2 ");
    assert!(log.starts_with("0 [vm!]\n0 [settings]\n"));
}

const REPLY: &str = "(drop (call $proxy_send_local_response (i32.const 403) 'who are you' 'go away'
    '\\01\\00\\00\\00\\04\\00\\00\\00\\01\\00\\00\\00X-Re\\00y\\00' (i32.const -1)))";

#[test]
fn a_local_response_is_sent_when_the_callback_has_returned() {
    let mut worker = Worker::new(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {REPLY}
            (drop (call $proxy_send_local_response (i32.const 500) 'late' 'late' '' (i32.const -1)))
            (i32.const 0))"#
    ));
    assert_eq!(
        worker.head(),
        "response :status=403 x-re=y content-length=7 content-type=text/plain\nresponse b\"go away\" end\n"
    );
}

#[test]
fn a_pause_holds_the_request_until_another_context_resumes_it() {
    let mut worker = Worker::new(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $proxy_set_tick_period_milliseconds (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (drop (call $proxy_set_effective_context (i32.const 2)))
            (drop (call $proxy_add_header_map_value (i32.const 0) 'x-ticked' '1'))
            (drop (call $proxy_continue_stream (i32.const 0))))"#,
    );
    let id = worker.request(End::Yes);
    assert_eq!(worker.effects(id), "");
    worker.wait(std::time::Duration::from_millis(10));
    worker.vms.tick(&mut worker.exchanges);
    assert_eq!(worker.exchanges.next_woken(), Some(id));
    worker.feed(id, Event::Woken);
    assert!(worker.effects(id).ends_with("x-ticked=1 end\n"));
}

#[test]
fn closing_a_stream_breaks_it_off() {
    let mut worker = Worker::new(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $n (call $proxy_close_stream (i32.const 4))) (call $end)
            (drop (call $proxy_close_stream (i32.const 0))) (i32.const 0))"#,
    );
    let mut head = String::new();
    let log = logged(|| head = worker.head());
    assert_eq!(log, "2 ");
    assert!(head.contains("abort FilterClosed"), "{head}");
}

fn property(path: &str) -> String {
    format!("(call $given (call $proxy_get_property '{path}' (i32.const 16) (i32.const 20)))\n")
}

#[test]
fn properties_are_read_and_set() {
    let calls: String = [
        property("request\\00path"),
        property("source\\00address"),
        property("plugin_root_id"),
        property("request\\00headers\\00x-two"),
        "(call $n (call $proxy_set_property 'my\\00own' 'value')) (call $end)".to_owned(),
        property("my\\00own"),
        property("no\\00such"),
        property("request"),
    ]
    .concat();
    let log = logged(|| {
        Worker::new(&format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {calls} (i32.const 0))"#
        ))
        .head();
    });
    let statuses: Vec<&str> = log.lines().collect();
    assert_eq!(statuses[..6], ["0 [/path?q=1]", "0 [192.0.2.7:4000]", "0 [root]", "0 [a,b]", "0 ", "0 [value]"]);
    assert!(statuses[6].starts_with("1 ") && statuses[7].starts_with("3 "));
}

#[test]
fn a_root_knows_its_name_while_it_is_created() {
    let log = logged(|| {
        let functions =
            format!(r#"(func (export "proxy_on_context_create") (param i32 i32) {})"#, property("plugin_root_id"));
        let mut worker = Worker::new(&functions);
        worker.vms.warm_up(&mut worker.exchanges).unwrap();
    });
    assert_eq!(log, "0 [root]");
}
