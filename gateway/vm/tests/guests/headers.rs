//! Header maps, as a guest reads and writes them.

use portcullis_core::event::End;

use crate::harness::{Worker, logged};

fn in_request_headers(calls: &str) -> Worker {
    Worker::new(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {calls} (i32.const 0))"#
    ))
}

/// Gets a header of a map and logs the status and the value.
fn get(map: u32, name: &str) -> String {
    format!(
        "(call $given (call $proxy_get_header_map_value (i32.const {map}) '{name}' (i32.const 16) (i32.const 20)))\n"
    )
}

#[test]
fn get_answers_the_first_value_whatever_the_case_of_the_name() {
    let calls: String =
        ["x-one", "X-Two", ":path", ":authority", "x-none", "x-empty", "no token"].map(|name| get(0, name)).concat();
    let log = logged(|| {
        in_request_headers(&calls).head();
    });
    assert_eq!(log, "0 [1]\n0 [a]\n0 [/path?q=1]\n0 [acme.test]\n1 [acme.test]\n0 []\n1 []");
}

#[test]
fn a_value_of_no_bytes_is_address_zero_and_runs_no_allocator() {
    let log = logged(|| {
        Worker::new(
            r#"(func (export "proxy_on_memory_allocate") (param i32) (result i32) unreachable)
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (i32.store (i32.const 16) (i32.const 9)) (i32.store (i32.const 20) (i32.const 9))
                (call $n (call $proxy_get_header_map_value (i32.const 0) 'x-empty' (i32.const 16) (i32.const 20)))
                (call $n (i32.load (i32.const 16))) (call $n (i32.load (i32.const 20)))
                (call $n (call $proxy_get_header_map_pairs (i32.const 2) (i32.const 16) (i32.const 20)))
                (call $n (i32.load (i32.const 16))) (call $n (i32.load (i32.const 20)))
                (call $end) (i32.const 0))"#,
        )
        .head();
    });
    assert_eq!(log, "0 0 0 0 0 0 ");
}

#[test]
fn writes_change_what_is_forwarded() {
    let mut worker = in_request_headers(
        "(drop (call $proxy_add_header_map_value (i32.const 0) 'X-Two' 'c'))
        (drop (call $proxy_replace_header_map_value (i32.const 0) 'x-one' 'new'))
        (drop (call $proxy_replace_header_map_value (i32.const 0) ':path' '/other'))
        (drop (call $proxy_remove_header_map_value (i32.const 0) 'X-Empty'))
        (drop (call $proxy_remove_header_map_value (i32.const 0) 'x-none'))",
    );
    assert_eq!(
        worker.head(),
        "request :authority=acme.test :path=/other :method=GET :scheme=http x-one=new x-two=a x-two=b x-two=c end\n"
    );
}

#[test]
fn pairs_are_given_in_the_abis_form() {
    // The response map has one pair: 4 + 8 + 8 + 4 bytes, count 1, lengths 7 and 3.
    let log = logged(|| {
        let mut worker = Worker::new(
            r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                (call $n (call $proxy_get_header_map_pairs (i32.const 2) (i32.const 16) (i32.const 20)))
                (call $n (i32.load (i32.const 20)))
                (call $n (i32.load (i32.load (i32.const 16))))
                (call $n (i32.load offset=4 (i32.load (i32.const 16))))
                (call $n (i32.load offset=8 (i32.load (i32.const 16))))
                (call $text (i32.add (i32.load (i32.const 16)) (i32.const 12)) (i32.const 12))
                (call $n (call $proxy_get_header_map_size (i32.const 2) (i32.const 24)))
                (call $n (i32.load (i32.const 24)))
                (call $end) (i32.const 0))"#,
        );
        let id = worker.request(End::Yes);
        worker.respond(id);
    });
    assert_eq!(log, "0 24 1 7 3 :status\\u{0}200\\u{0}0 10 ");
}

#[test]
fn setting_pairs_replaces_the_whole_map() {
    let pairs =
        "\\02\\00\\00\\00\\05\\00\\00\\00\\02\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00:path\\00/n\\00a\\001\\00";
    let mut worker = in_request_headers(&format!("(drop (call $proxy_set_header_map_pairs (i32.const 0) '{pairs}'))"));
    assert_eq!(worker.head(), "request :path=/n :method=GET :scheme=http a=1 end\n");
}

#[test]
fn malformed_pairs_count_as_an_empty_list_and_are_logged() {
    let mut head = String::new();
    let log = logged(|| {
        head = in_request_headers(
            "(call $n (call $proxy_set_header_map_pairs (i32.const 0) '\\ff\\ff\\ff\\7f')) (call $end)",
        )
        .head();
    });
    assert_eq!(
        log,
        "# a malformed list of pairs counts as empty: TooLarge tenant=\"\" plugin=\"plugin\" \
         hostcall=\"proxy_set_header_map_pairs\"\n0 "
    );
    assert_eq!(head, "request :method=GET :scheme=http end\n");
}

#[test]
fn what_a_wire_cannot_carry_is_left_out_and_the_guest_hears_ok() {
    let mut head = String::new();
    let log = logged(|| {
        head = in_request_headers(
            "(call $n (call $proxy_add_header_map_value (i32.const 0) 'x-one' 'a\\0d\\0ab: c'))
            (call $n (call $proxy_replace_header_map_value (i32.const 0) 'transfer-encoding' 'chunked'))
            (call $end)",
        )
        .head();
    });
    let lines: Vec<&str> = log.lines().map(|line| line.split(" tenant=").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "# a header was left out: the value cannot be written on the wire",
            "# a header was left out: the field belongs to the connection, not to the message",
            "0 0 ",
        ]
    );
    assert!(!head.contains("b: c") && !head.contains("chunked"), "{head}");
}

/// Envoy answers `BadArgument` to a get, on which Rust's SDK aborts; no plugin can rely on that.
#[test]
fn a_map_that_is_not_there_is_not_found_to_readers_and_a_bad_argument_to_writers() {
    let all = (0..=8).map(|map| {
        format!(
            "(call $n (call $proxy_get_header_map_value (i32.const {map}) 'x' (i32.const 16) (i32.const 20)))
            (call $n (call $proxy_get_header_map_pairs (i32.const {map}) (i32.const 16) (i32.const 20)))
            (call $n (call $proxy_get_header_map_size (i32.const {map}) (i32.const 16)))
            (call $n (call $proxy_add_header_map_value (i32.const {map}) 'x' 'y'))
            (call $n (call $proxy_replace_header_map_value (i32.const {map}) 'x' 'y'))
            (call $n (call $proxy_remove_header_map_value (i32.const {map}) 'x'))
            (call $n (call $proxy_set_header_map_pairs (i32.const {map}) '\\00\\00\\00\\00'))
            (call $end)\n"
        )
    });
    let all: String = all.collect();
    let log = logged(|| {
        let functions =
            format!(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) {all} (i32.const 1))"#);
        let mut worker = Worker::new(&functions);
        worker.vms.warm_up(&mut worker.exchanges).unwrap();
    });
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..8], ["1 0 2 2 2 2 2 "; 8]);
    assert_eq!(lines[8], "2 2 2 2 2 2 2 ", "there is no such map");
}
