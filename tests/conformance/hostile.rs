//! Rows 1 to 13 of the threat model, tenant against tenant: what a plugin does to itself, another tenant's requests do not notice.
//!
//! Both tenants' plugins run on the same worker, so that nothing but containment stands between them.

mod unasked;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::abi::{Function, Parameter, document};
use portcullis_tests::client::request;
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::Guest;
use portcullis_tests::origin::Origin;
use portcullis_tests::process::Start;
use portcullis_tests::raw::RawOrigin;

use crate::guest::{guest, guest_with, pairs};

const CONFIG: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
tenants:
  bad:
    hosts: [bad.test]
    plugins: { hostile: { module: "file:{hostile}", limits: { cpu: 20ms, memory: 2MiB } } }
    filters: [{ plugin: hostile, config: "" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
  good:
    hosts: [good.test]
    plugins: { kind: {kind} }
    filters: [{ plugin: kind, config: "" }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

/// A plugin that says it was there.
const KIND: &str = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $set (i32.const 0) 'x-kind' 'yes') (i32.const 0))"#;

/// Both tenants behind one gateway.
struct Pair {
    gateway: Gateway,
    origin: Origin,
    _guests: [Guest; 2],
}

impl Pair {
    fn of(hostile: &str) -> Self {
        Self::with(guest(hostile))
    }

    fn with(hostile: Guest) -> Self {
        let (origin, kind) = (Origin::plain(), guest(KIND));
        let path = hostile.path().display().to_string();
        let gateway = Gateway::start(CONFIG, &[("origin", &origin), ("hostile", &path), ("kind", &kind)]);
        Self { gateway, origin, _guests: [hostile, kind] }
    }

    /// What the bad tenant's client gets; 0 for a connection that was broken off.
    fn bad(&self) -> u16 {
        let mut client = self.gateway.client();
        client.send(request("POST", "/", &[("host", "bad.test")], "body"));
        client.0.message().map_or(0, |answer| answer.status())
    }

    /// The good tenant is served, by its own filter, at once.
    fn good(&self, what: &str) {
        let began = Instant::now();
        let mut client = self.gateway.client();
        client.send(request("GET", "/good", &[("host", "good.test")], ""));
        let answer = client.0.message().unwrap();
        assert_eq!(answer.status(), 200, "{what}");
        // The bad one's callouts come to the same origin.
        let seen = self.origin.seen();
        let own = seen.iter().rfind(|seen| seen.target() == "/good");
        assert_eq!(own.and_then(|seen| seen.get("x-kind")), Some("yes"), "{what}");
        // The bad tenant's budget is 20 ms a callback; a busy machine may take its time over the rest.
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
    }

    fn counted(&self, name: &str, with: &[&str]) -> f64 {
        self.gateway.metric(name, with)
    }
}

const TRAPS: [(&str, &str); 6] = [
    ("(loop $l (br $l))", "deadline"),
    ("(unreachable)", "panic"),
    ("(drop (call $deep (i32.const 0)))", "stack"),
    ("(drop (i32.load (i32.const -1)))", "memory"),
    ("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)", "oom"),
    ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "other"),
];

const DEEP: &str = "(func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))";

#[test]
fn whatever_kills_a_guest_in_whichever_callback_is_its_own_affair() {
    for (export, parameters, result) in [
        ("proxy_on_context_create", "i32 i32", ""),
        ("proxy_on_request_headers", "i32 i32 i32", "(i32.const 0)"),
        ("proxy_on_request_body", "i32 i32 i32", "(i32.const 0)"),
        ("proxy_on_response_headers", "i32 i32 i32", "(i32.const 0)"),
        ("proxy_on_response_body", "i32 i32 i32", "(i32.const 0)"),
        ("proxy_on_log", "i32", ""),
        ("proxy_on_done", "i32", "(i32.const 1)"),
        ("proxy_on_delete", "i32", ""),
    ] {
        for (harm, cause) in TRAPS {
            // Roots are spared: with them the configuration would be refused.
            let only_exchanges = if export == "proxy_on_context_create" {
                "(if (local.get 1) (then "
            } else {
                "(if (i32.const 1) (then "
            };
            let returns = if result.is_empty() { "" } else { "(result i32)" };
            let text = format!(
                r#"{DEEP}(func (export "{export}") (param {parameters}) {returns} {only_exchanges} {harm})) {result})"#
            );
            let pair = Pair::of(&text);
            let what = format!("{export} {harm}");
            pair.good(&what);
            let status = pair.bad();
            let after_answer =
                matches!(export, "proxy_on_response_body" | "proxy_on_log" | "proxy_on_done" | "proxy_on_delete");
            assert!(status == 503 || after_answer && (status == 200 || status == 0), "{what}: {status}");
            pair.good(&what);
            eventually(&what, || pair.counted("portcullis_filter_traps_total", &["hostile", "\"bad\"", cause]) >= 1.0);
            assert_eq!(pair.counted("portcullis_filter_traps_total", &["kind"]), 0.0, "{what}");
        }
    }
}

#[test]
fn a_vm_that_keeps_failing_rests_and_shows_it() {
    let pair = Pair::of(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)"#);
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(pair.bad(), 503);
        pair.good("a crash loop");
    }
    // After each of its rests, which are of a second and more, it is started once.
    let starts = pair.counted("portcullis_filter_starts_total", &["hostile"]);
    assert!(starts <= 3.0 + began.elapsed().as_secs_f64().floor(), "{starts}");
    eventually("it rests", || {
        assert_eq!(pair.bad(), 503);
        pair.counted("portcullis_filter_instances", &["hostile", "\"bad\"", "resting"]) == 1.0
    });
}

#[test]
fn floods_are_bounded_and_cost_the_others_nothing() {
    let head = pairs(&[(":method", "GET"), (":path", "/flood"), (":authority", "a")]);
    let call = format!("(drop (call $call 'origin' '{head}' '' '' (i32.const 5000) (i32.const 32)))");
    for (what, harm) in [
        ("log lines", "(drop (call $log (i32.const 4) 'flood\\0aforged\\1b[0m'))"),
        ("callouts", &*call),
        (
            "shared data",
            "(i32.store (i32.const 40) (local.get $n)) (drop (call $set_shared (i32.const 40) (i32.const 4) \
             (i32.const 0) (i32.const 60000) (i32.const 0)))",
        ),
        ("queue items", "(drop (call $enqueue (i32.const 1) (i32.const 0) (i32.const 60000)))"),
        (
            "properties",
            "(i32.store (i32.const 40) (local.get $n)) (drop (call $set_property (i32.const 40) (i32.const 4) 'v'))",
        ),
        ("header fields", "(drop (call $add_value (i32.const 0) 'x-flood' (i32.const 65536) (i32.const 10000)))"),
        ("large header values", "(drop (call $add_value (i32.const 0) 'x-flood' (i32.const 0) (i32.const 200000)))"),
    ] {
        // Without end: the budget is what ends it.
        let pair = Pair::of(&format!(
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $register 'q' (i32.const 32))) (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
                (loop $l {harm} (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $l)) (i32.const 0))"#
        ));
        pair.good(what);
        for _ in 0..3 {
            assert_eq!(pair.bad(), 503, "{what}");
            pair.good(what);
        }
        assert!(pair.counted("portcullis_filter_traps_total", &["hostile", "deadline"]) >= 1.0, "{what}");
        assert!(pair.origin.seen().iter().filter(|seen| seen.target() == "/flood").count() <= 256 * 3, "{what}");
    }
}

#[test]
fn timers_of_a_millisecond_that_never_rest_leave_room_for_others() {
    let pair = Pair::of(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $tick (i32.const 1))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) (local $n i32)
            (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $n) (i32.const 100000)))))"#,
    );
    for _ in 0..20 {
        pair.good("ticks");
        assert_eq!(pair.bad(), 200);
    }
    assert!(pair.counted("portcullis_filter_calls_total", &["hostile"]) > 20.0);
}

#[test]
fn malformed_pairs_and_strange_ids_are_answered_and_nothing_else() {
    let strange = ["-1", "0x7fffffff", "99", "3"];
    let become_all: String = strange
        .iter()
        .map(|id| format!("(drop (call $become (i32.const {id}))) (drop (call $continue (i32.const 0)))"))
        .collect();
    for (what, harm) in [
        ("a count that lies", "(drop (call $set_pairs (i32.const 0) '\\ff\\ff\\ff\\ff'))"),
        (
            "a length that lies",
            "(drop (call $set_pairs (i32.const 0) '\\01\\00\\00\\00\\ff\\ff\\ff\\7f\\01\\00\\00\\00a'))",
        ),
        ("no NUL", "(drop (call $set_pairs (i32.const 2) '\\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00abcd'))"),
        ("strange contexts", &*become_all),
        ("done twice", "(drop (call $done)) (drop (call $done))"),
        ("a stream that is none", "(drop (call $continue (i32.const 1))) (drop (call $continue (i32.const 77)))"),
        (
            "foreign tokens",
            "(drop (call $grpc_cancel (i32.const 5))) (drop (call $grpc_send (i32.const -1) 'x' (i32.const 1)))",
        ),
    ] {
        let pair = Pair::of(&format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {harm} (i32.const 0))
            (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {harm} (i32.const 0))"#
        ));
        let status = pair.bad();
        assert!([200, 400, 404, 502, 503].contains(&status), "{what}: {status}");
        assert_eq!(pair.counted("portcullis_filter_traps_total", &["hostile"]), 0.0, "{what}");
        pair.good(what);
    }
}

#[test]
fn a_guest_that_pauses_for_ever_is_nobody_elses_pause() {
    let pair = Pair::of(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#);
    let mut waiting = pair.gateway.client();
    waiting.send(request("GET", "/", &[("host", "bad.test")], ""));
    for _ in 0..5 {
        pair.good("a pause");
    }
}

/// A call of this function with arguments it can live with, but for one.
fn call_with(function: &Function, bad: usize, value: i32) -> String {
    let arguments = function.parameters.iter().enumerate().map(|(index, parameter)| match parameter {
        _ if index == bad => format!(" (i32.const {value})"),
        Parameter::Address => " (i32.const 1024)".to_owned(),
        Parameter::Length => " (i32.const 4)".to_owned(),
        // A place of its own each.
        Parameter::Out => format!(" (i32.const {})", 2048 + 64 * index),
        Parameter::Number => " (i32.const 1)".to_owned(),
        Parameter::Long => " (i64.const 1)".to_owned(),
    });
    let call = format!("(call ${}{})", function.name, arguments.collect::<String>());
    if function.returns { format!("(drop {call})") } else { call }
}

/// Row 5. What each call answers is `portcullis-vm`'s `abi::a_pointer_outside_memory`'s business.
#[test]
fn addresses_and_lengths_outside_memory_are_their_callers_affair() {
    let functions: Vec<Function> = document().into_iter().filter(Function::is_imported).collect();
    let imports: String = functions.iter().map(Function::import).collect();
    // Memory is one page: its last byte, beyond it, sums that wrap round, and the largest there are.
    for value in [0xffff, 0x1_0000, 0x7fff_ffff, -16, -1] {
        let is_place = |parameter: &Parameter| match parameter {
            Parameter::Address | Parameter::Length | Parameter::Out => true,
            Parameter::Number | Parameter::Long => false,
        };
        let calls: String = functions
            .iter()
            .flat_map(|function| {
                let places = function.parameters.iter().enumerate().filter(|(_, parameter)| is_place(parameter));
                places.map(|(index, _)| call_with(function, index, value))
            })
            .collect();
        let pair = Pair::with(Guest::of_text(&format!(
            r#"(module {imports} (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {calls} (i32.const 0)))"#
        )));
        for _ in 0..3 {
            let _whatever = pair.bad();
            pair.good(&format!("pointers of {value}"));
        }
        assert_eq!(pair.counted("portcullis_filter_traps_total", &["hostile"]), 0.0, "{value}");
        assert!(pair.counted("portcullis_filter_calls_total", &["hostile"]) >= 3.0, "{value}");
    }
}

/// Row 6.
#[test]
fn an_allocator_that_lies_hurts_only_its_own() {
    const ASKS: &str = r#"
        (drop (call $get_value (i32.const 0) ':path' out))
        (drop (call $get_pairs (i32.const 0) out))
        (drop (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 100) out))
        (drop (call $get_property 'plugin_name' out))
        (drop (call $set_shared 'key' 'value' (i32.const 0)))
        (drop (call $get_shared 'key' out (i32.const 24)))"#;
    for (what, body, cause) in [
        ("nothing", "(i32.const 0)", None),
        ("beyond memory", "(i32.const 0x7fffffff)", None),
        ("the last byte", "(i32.const 0x3ffff)", None),
        ("wrapping round", "(i32.const -1)", None),
        ("where the answer's address goes", "(i32.const 16)", None),
        ("an odd address", "(i32.const 4097)", None),
        ("always the same", "(i32.const 4096)", None),
        ("growing", "(drop (memory.grow (i32.const 1))) (i32.const 0x40000)", None),
        (
            "calling back",
            "(drop (call $get_property 'plugin_name' (i32.const 32) (i32.const 36))) (i32.const 4096)",
            None,
        ),
        ("replying", "(drop (call $reply (i32.const 200) '' 'x' '' (i32.const -1))) (i32.const 4096)", None),
        ("timers", "(drop (call $tick (i32.const 1))) (drop (call $done)) (i32.const 4096)", None),
        ("recursion", "(call $allocate (local.get 0))", Some("stack")),
        ("a loop", "(loop $l (br $l)) (i32.const 4096)", Some("deadline")),
        ("a trap", "unreachable", Some("panic")),
    ] {
        let allocator =
            format!(r#"(func $allocate (export "proxy_on_memory_allocate") (param i32) (result i32) {body})"#);
        let pair = Pair::with(guest_with(
            &allocator,
            &format!(
                r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {ASKS} (i32.const 0))
                (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {ASKS} (i32.const 0))"#
            ),
        ));
        for _ in 0..3 {
            let status = pair.bad();
            assert!(if cause.is_some() { status == 503 } else { status == 200 }, "{what}: {status}");
            pair.good(what);
        }
        let traps = |with: &[&str]| pair.counted("portcullis_filter_traps_total", &[&["hostile"], with].concat());
        match cause {
            Some(cause) => assert!(traps(&[cause]) >= 1.0, "{what}"),
            None => assert_eq!(traps(&[]), 0.0, "{what}"),
        }
    }
}

/// What does not end a VM must not grow it, nor the gateway, either.
#[test]
fn ten_thousand_hostile_requests_leave_nothing_behind() {
    let head = pairs(&[(":method", "GET"), (":path", "/flood"), (":authority", "a")]);
    let harm = format!(
        "(drop (call $call 'origin' '{head}' '' '' (i32.const 5000) (i32.const 32)))
        (drop (call $call 'nobody' '{head}' '' '' (i32.const 5000) (i32.const -4)))
        (drop (call $set_pairs (i32.const 0) '\\ff\\ff\\ff\\ff'))
        (drop (call $set_shared (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 60000) (i32.const 0)))
        (drop (call $enqueue (i32.const 1) (i32.const 0) (i32.const 60000)))
        (drop (call $set_property 'a' (i32.const 0) (i32.const 60000)))
        (drop (call $get_pairs (i32.const 0) (i32.const 16) (i32.const -1)))
        (drop (call $add_value (i32.const 0) 'x-flood' (i32.const 65536) (i32.const 2000)))
        (drop (call $become (i32.const 99))) (drop (call $done))"
    );
    let hostile = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $register 'q' (i32.const 32))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {harm} (i32.const 0))"#
    ));
    let (origin, kind) = (RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), guest(KIND));
    let path = hostile.path().display().to_string();
    let places: [(&str, &dyn std::fmt::Display); 3] = [("origin", &origin), ("hostile", &path), ("kind", &kind)];
    let process = Start::new(env!("CARGO_BIN_EXE_gateway"), CONFIG, &places).start();
    let ask = |times: usize| {
        let mut client = process.client();
        for _ in 0..times {
            client.send(request("POST", "/", &[("host", "bad.test")], "body"));
            assert!(client.0.message().is_ok());
        }
    };
    ask(1000);
    let before = process.resident_kib();
    ask(10_000);
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "ten thousand requests left {grown} KiB behind");
    assert_eq!(process.client().ask("GET", "/good", &[("host", "good.test")], "").status(), 200);
}

/// How long 99 of 100 of the good tenant's requests took at most, of so many, and all together; the bad tenant asks all the while,
/// if it shall.
fn p99(pair: &Pair, bad_asks: bool) -> (Duration, Duration) {
    const REQUESTS: usize = 400;
    let (over, began) = (AtomicBool::new(!bad_asks), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pair.bad();
            }
        });
        let mut client = pair.gateway.client();
        let mut times: Vec<Duration> = (0..REQUESTS)
            .map(|_| {
                let began = Instant::now();
                client.send(request("GET", "/good", &[("host", "good.test")], ""));
                assert_eq!(client.0.message().unwrap().status(), 200);
                began.elapsed()
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        times.sort_unstable();
        (times[REQUESTS * 99 / 100], began.elapsed())
    })
}

/// The processor rows of the threat model. How much the neighbour's slowest requests move is printed: on a machine that does other
/// things too it is no ground to fail on. The share of the worker's time that the guest can burn is.
#[test]
fn whoever_burns_the_processor_gets_little_of_it() {
    const BUDGET: Duration = Duration::from_millis(20);
    for (what, harm) in [
        ("an endless loop", "(loop $l (br $l))"),
        ("hostcalls without end", "(loop $l (drop (call $get_pairs (i32.const 0) out)) (br $l))"),
        (
            "memory without end",
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
        ),
        ("recursion without end", "(drop (call $deep (i32.const 0)))"),
    ] {
        let pair = Pair::of(&format!(
            r#"{DEEP}(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {harm} (i32.const 0))"#
        ));
        let (alone, _) = p99(&pair, false);
        let (beside, elapsed) = p99(&pair, true);
        let traps = pair.counted("portcullis_filter_traps_total", &["hostile"]);
        println!("{what}: {traps} traps in {elapsed:?}; the neighbour's p99 is {alone:?} alone, {beside:?} beside it");
        // The first two come at once; from then on it rests, for longer each time.
        let burnt = BUDGET.mul_f64(traps);
        assert!(traps >= 1.0 && burnt <= BUDGET * 3 + elapsed / 10, "{what}: {traps} traps in {elapsed:?}");
    }
}
