//! How many connections there may be, and what happens to those beyond.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portcullis_tests::client::{Client, request};
use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::limited::Child;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;

fn limited(origin: &Origin, top: &str, listener: &str) -> Gateway {
    Gateway::start(
        r#"
{top}
listeners:
  main: { bind: "127.0.0.1:0"{listener} }
  other: { bind: "127.0.0.1:0" }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", origin), ("top", &top), ("listener", &listener)],
    )
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_connections_refused_total", &[&format!("reason=\"{reason}\"")])
}

/// An origin that answers `/late` when the gate opens.
fn late(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| match seen.uri.path() {
        "/late" => Answer::ok("late").after(&gate),
        _ => Answer::ok("ok"),
    })
}

/// Whether a new connection is served.
fn is_served(address: SocketAddr) -> bool {
    let mut client = Client::connect(address);
    client.0.write(request("GET", "/", &[], "")).is_ok() && client.0.message().is_ok()
}

#[test]
fn beyond_its_limit_a_listener_refuses_and_serves_those_it_has() {
    let gate = Gate::default();
    let origin = late(&gate);
    let gateway = limited(&origin, "", ", max_connections: 2");
    let mut busy = [gateway.client(), gateway.client()];
    busy.iter_mut().for_each(|client| client.send(request("GET", "/late", &[], "")));
    origin.wait_for(2);
    for _ in 0..3 {
        assert!(gateway.client().0.is_closed(), "refused at once");
    }
    assert_eq!((refused(&gateway, "listener_limit"), refused(&gateway, "process_limit")), (3.0, 0.0));
    gate.open();
    busy.iter_mut().for_each(|client| assert_eq!(client.answer().status(), 200));
    drop(busy);
    eventually("there is room again", || is_served(gateway.address()));
}

#[test]
fn beyond_the_process_limit_every_listener_refuses() {
    let gate = Gate::default();
    let origin = late(&gate);
    let gateway = limited(&origin, "max_connections: 2", "");
    let addresses = gateway.listeners();
    let mut busy = [Client::connect(addresses[0]), Client::connect(addresses[1])];
    busy.iter_mut().for_each(|client| client.send(request("GET", "/late", &[], "")));
    origin.wait_for(2);
    for address in &addresses {
        assert!(Client::connect(*address).0.is_closed());
    }
    assert_eq!((refused(&gateway, "listener_limit"), refused(&gateway, "process_limit")), (0.0, 2.0));
    gate.open();
    busy.iter_mut().for_each(|client| assert_eq!(client.answer().status(), 200));
}

/// Idle ones do not keep others out: one leaves, long before its time.
#[test]
fn the_longest_idle_leaves_for_those_who_want_in() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "", ", max_connections: 2");
    let (mut first, mut second) = (gateway.client(), gateway.client());
    assert_eq!((first.get("/").status(), second.get("/").status()), (200, 200));
    eventually("a newcomer is served", || {
        // Busy now and then, so that the other one is the longest idle.
        assert_eq!(second.get("/").status(), 200);
        is_served(gateway.address())
    });
    assert!(first.0.is_closed());
    assert!(gateway.metric("portcullis_connections_timed_out_total", &["idle_early"]) >= 1.0);
}

/// Whoever has been served keeps the place, though idle, while there are some that never said a word: in the clear, and over HTTP/2
/// not after the preface.
#[test]
fn the_silent_leave_before_those_who_were_served() {
    let origin = Origin::plain();
    let gateway = limited(&origin, "", ", max_connections: 300");
    let mut served = gateway.client();
    assert_eq!(served.get("/").status(), 200);
    let mut silent = flood(gateway.address(), 299);
    for unused in silent.iter_mut().step_by(2) {
        unused.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    }
    assert!(gateway.client().0.is_closed(), "there is no place left");
    // A look lets go of as many as were turned away: far fewer than are silent.
    eventually("newcomers are served", || {
        std::thread::park_timeout(Duration::from_millis(50));
        is_served(gateway.address())
    });
    assert_eq!(served.get("/").status(), 200, "on the same connection");
    let early = |kind: &str| gateway.metric("portcullis_connections_timed_out_total", &[&format!("\"{kind}\"")]);
    assert!(early("silent_early") >= 1.0);
    assert_eq!(early("idle_early"), 0.0);
    drop(silent);
}

/// As many connections as there are, none of which says a word. Keeps them all, refused or not.
fn flood(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()).collect()
}

/// Five thousand silent connections against a process that may open 512 files.
#[test]
fn running_out_of_descriptors_harms_nobody_who_is_there_and_passes() {
    let gate = Gate::default();
    let origin = late(&gate);
    let child = Child::start(
        512,
        r#"
max_connections: 100000
listeners: { main: { bind: "127.0.0.1:{port}", timeouts: { header: 10s } } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let (mut early, mut busy) = (Client::connect(child.address), Client::connect(child.address));
    assert_eq!(early.get("/").status(), 200);
    busy.send(request("GET", "/late", &[], ""));
    origin.wait_for(2);
    let (began, before) = (Instant::now(), child.processor_time());
    let mut silent = Vec::new();
    // The one that is there is served all the while, and the admin listener answers.
    for round in 0..50 {
        let resting = Instant::now();
        silent.extend(flood(child.address, 100));
        let served = early.0.write(request("GET", "/", &[], "")).is_ok() && early.0.message().is_ok();
        // Who was idle for a second makes room. A machine that took so long for a hundred connections has shown nothing.
        assert!(served || resting.elapsed() > Duration::from_millis(900), "round {round}");
        if !served {
            silent.truncate(silent.len() / 2);
            eventually("there is room for another one", || {
                early = Client::connect(child.address);
                early.0.write(request("GET", "/", &[], "")).is_ok() && early.0.message().is_ok()
            });
        }
    }
    let page = child.metrics();
    // Some of the silent are let go for others meanwhile, but no more than a look may.
    assert!(child.metric("portcullis_connections_refused_total{reason=\"descriptors\"}") > 2000.0, "{page}");
    assert!(child.metric("portcullis_connections_open") < 512.0);
    gate.open();
    assert_eq!(busy.answer().status(), 200);
    std::thread::park_timeout(Duration::from_millis(500));
    let spent = child.processor_time() - before;
    assert!(spent < Duration::from_secs(3), "the accept loop spins: {spent:?}");
    eventually("the silent ones are gone and the next client is served", || is_served(child.address));
    let lines = child.log_lines("connections are refused");
    assert!(lines <= 8 + usize::try_from(began.elapsed().as_secs() / 5).unwrap(), "each refusal is logged");
}

/// Half of what the process may open, when nobody has said otherwise: each of these could have a connection to an upstream.
#[test]
fn by_default_half_of_the_descriptors_are_for_clients() {
    let origin = Origin::plain();
    let child = Child::start(
        400,
        r#"
listeners: { main: { bind: "127.0.0.1:{port}" } }
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let kept: Vec<Client> = (0..200).map(|_| Client::connect(child.address)).collect();
    assert!(Client::connect(child.address).0.is_closed());
    assert_eq!(child.metric("portcullis_connections_refused_total{reason=\"process_limit\"}"), 1.0);
    drop(kept);
    eventually("there is room again", || is_served(child.address));
}

/// Longer than it takes until the gateway holds nothing of a connection but its stream.
const RESTED: Duration = Duration::from_millis(2200);

#[test]
fn a_client_that_was_silent_for_long_is_served_however_its_bytes_come() {
    let origin = Origin::start(|seen| Answer::ok(seen.body.clone()));
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    std::thread::park_timeout(RESTED);
    let [whole, piecewise, pipelined, bad] = &mut clients[..] else { unreachable!() };
    assert_eq!(whole.ask("POST", "/", &[("host", "test")], "hello").text(), "hello");
    for byte in b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi" {
        piecewise.0.write([*byte]).unwrap();
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(piecewise.answer().text(), "hi");
    let post = |text: &str| format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    pipelined.send([post("first"), post("second")].concat());
    assert_eq!([pipelined.answer().text(), pipelined.answer().text()], ["first", "second"]);
    bad.send("GET / HTTP/1.1\nhost: test\n\n");
    assert_eq!(bad.answer().status(), 400);
    std::thread::park_timeout(RESTED);
    assert_eq!(whole.get("/").status(), 200, "and again");
    drop(clients);
    eventually("those who leave while they rest are gone", || {
        eprintln!("{:?}", gateway.metric("portcullis_connections_open", &[]));
        gateway.metric("portcullis_connections_open", &[]) == 0.0
    });
}

#[test]
fn a_client_that_was_silent_for_long_is_told_of_the_end() {
    let origin = Origin::plain();
    let gateway = Gateway::in_front_of(&origin, "[]");
    let mut client = gateway.client();
    assert_eq!(client.get("/").status(), 200);
    std::thread::park_timeout(RESTED);
    drop(gateway);
    assert!(client.0.is_closed());
}

/// Kept-alive connections without a request: what each costs, with room for a build without optimisation.
#[test]
fn thousands_of_idle_connections_cost_little_memory() {
    let origin = Origin::plain();
    let child = Child::start(
        6000,
        r#"
listeners: { main: { bind: "127.0.0.1:{port}", timeouts: { header: 5m } } }
max_connections: 5000
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    let ask = |count| {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(child.address)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
        clients
    };
    let _warm = ask(100);
    let before = child.memory();
    let _idle = ask(2000);
    let busy = child.memory();
    println!("{} bytes for each connection at work", busy.saturating_sub(before) / 2000);
    // What they give up when they rest serves the next; an allocator need not give it back to the system.
    std::thread::park_timeout(RESTED);
    eventually("all have given up what they can", || {
        let before = child.processor_time();
        std::thread::park_timeout(RESTED);
        child.processor_time() - before < Duration::from_millis(200)
    });
    let _more = ask(2000);
    let each = child.memory().saturating_sub(busy) / 2000;
    println!("{each} bytes for each of as many more");
    // Without a rest it is sixteen.
    assert!(each < 11 << 10, "{each} bytes each");
}
