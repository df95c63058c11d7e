//! What becomes of the bytes once a connection has left HTTP, and how it ends.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use portcullis_tests::process::Start;
use portcullis_tests::raw::RawOrigin;
use portcullis_tests::tunnel::{Connect, Echo, switched};
use portcullis_tests::wire::Wire;
use portcullis_tests::{PATIENCE, eventually};

use super::{ROUTES, gateway, open, opening};

#[test]
fn each_side_can_close_before_the_other() {
    let origin = opening(|wire, _| {
        let all = wire.rest();
        let _sent = wire.write(format!("got {} and closed", all.len()));
    });
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    client.send("four");
    client.0.finish_sending();
    assert_eq!(client.0.rest(), b"got 4 and closed");
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = opening(move |wire, _| {
        let _sent = wire.write("last words");
        wire.finish_sending();
        let _test_is_over = told.lock().unwrap().send(wire.rest());
    });
    let gateway = super::gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    assert_eq!(client.0.rest(), b"last words");
    client.send("answered all the same");
    client.0.finish_sending();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"answered all the same");
    eventually("the tunnel is closed", || gateway.metric("portcullis_connections_open", &[]) == 0.0);
}

#[test]
fn what_the_upstream_says_together_with_its_answer_arrives() {
    let origin = RawOrigin::start(|wire, _| {
        let Ok(_) = wire.head() else { return };
        let _sent = wire.write(switched("") + "hello at once");
        let _waits = wire.rest();
    });
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    assert_eq!(client.0.exactly(13).unwrap(), b"hello at once");
}

#[test]
fn a_side_that_leaves_is_missed_at_once() {
    let gone = Arc::new(AtomicBool::new(false));
    let seen = gone.clone();
    let origin = opening(move |wire, _| seen.store(wire.is_closed(), Ordering::SeqCst));
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    drop(client);
    eventually("the upstream hears of it", || gone.load(Ordering::SeqCst));
    let origin = opening(|_, _| {});
    let gateway = super::gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    assert!(client.0.is_closed());
}

/// Fills a connection until it takes no more for a while; returns how much it took.
fn fill(wire: &Wire) -> usize {
    let mut stream = wire.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let piece = vec![7; 64 << 10];
    let mut sent = 0;
    while let Ok(size) = stream.write(&piece) {
        sent += size;
        assert!(sent < 256 << 20, "all of it is taken");
    }
    sent
}

#[test]
fn a_side_that_does_not_read_stops_the_other_and_its_bytes_are_kept() {
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = opening(move |wire, _| {
        let filled = fill(wire);
        let _test_is_over = told.lock().unwrap().send(filled);
        let _waits = wire.rest();
    });
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    let filled = heard.recv_timeout(PATIENCE).unwrap();
    assert!(filled < 32 << 20, "{filled} bytes for a client that does not read");
    let all = client.0.exactly(filled).unwrap();
    assert!(all.iter().all(|byte| *byte == 7));
    drop(client);
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = opening(move |wire, _| {
        let _released = held.lock().unwrap().recv();
        let mut all = Vec::new();
        let _broken = wire.stream().read_to_end(&mut all);
        let _test_is_over = told.lock().unwrap().send(all.len());
    });
    let gateway = super::gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    let filled = fill(&client.0);
    assert!(filled < 32 << 20, "{filled} bytes for an upstream that does not read");
    drop(release);
    client.0.finish_sending();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), filled);
}

#[test]
fn a_silent_tunnel_ends_and_a_busy_one_does_not() {
    let origin = Echo::start();
    let gateway = gateway(&origin, "[]");
    let mut silent = gateway.client();
    let mut busy = gateway.client();
    open(&mut silent, "/brief/a");
    open(&mut busy, "/brief/b");
    // Together they take longer than the tunnel may be silent, and one takes not nearly as long.
    for _ in 0..35 {
        busy.send("x");
        assert_eq!(busy.0.exactly(1).unwrap(), b"x");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(silent.0.is_closed());
    assert!(busy.0.is_closed(), "once it is silent it ends too");
}

#[test]
fn a_tunnel_is_one_line_in_the_access_log_when_it_ends() {
    let origin = Echo::start();
    let text = format!("access_log: stdout\n{ROUTES}");
    let process = Start::new(env!("CARGO_BIN_EXE_gateway"), &text, &[("origin", &origin), ("filters", &"[]")]).start();
    let mut client = process.client();
    open(&mut client, "/ws/closed");
    client.send("twelve bytes");
    assert_eq!(client.0.exactly(12).unwrap(), b"twelve bytes");
    client.0.finish_sending();
    assert_eq!(client.0.rest(), b"");
    let line = process.logged(&["/ws/closed"]);
    for told in [
        "\"status\":101,",
        "\"reason\":\"via_upstream\"",
        "\"request_bytes\":12,",
        "\"response_bytes\":12,",
        "\"method\":\"GET\"",
    ] {
        assert!(line.contains(told), "{told}: {line}");
    }
    let mut client = process.client();
    open(&mut client, "/brief/idle");
    assert!(client.0.is_closed());
    let line = process.logged(&["/brief/idle"]);
    assert!(line.contains("\"status\":101,") && line.contains("\"reason\":\"idle_timeout\""), "{line}");
    let connect = Connect::to(process.address).unwrap();
    let (.., tunnel) = connect.ask("websocket", "/ws/two", &[]).unwrap();
    let mut tunnel = tunnel.unwrap();
    tunnel.send(b"abc");
    assert_eq!(tunnel.exactly(3), b"abc");
    tunnel.finish_sending();
    assert_eq!(tunnel.rest(), b"");
    let line = process.logged(&["/ws/two"]);
    for told in ["\"status\":101,", "\"request_bytes\":3,", "\"response_bytes\":3,", "\"protocol\":\"HTTP/2\""] {
        assert!(line.contains(told), "{told}: {line}");
    }
}

#[test]
fn a_tunnel_counts_as_an_open_connection_and_its_upstream_is_not_used_again() {
    let origin = Echo::start();
    let gateway = gateway(&origin, "[]");
    let mut client = gateway.client();
    open(&mut client, "/ws/a");
    assert_eq!(gateway.get("/plain").status(), 403);
    eventually("the tunnel alone is open", || gateway.metric("portcullis_connections_open", &[]) == 1.0);
    assert_eq!(gateway.metric("http_server_active_requests", &[]), 1.0);
    client.0.stream().shutdown(Shutdown::Both).unwrap();
    eventually("nothing is open", || gateway.metric("portcullis_connections_open", &[]) == 0.0);
    assert_eq!(gateway.metric("http_server_active_requests", &[]), 0.0);
}
