//! Upstreams that are killed, swallow everything, are slow or refuse everything: row 34 of the threat model. The rest is served.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::process::free_address;

use crate::upstream_timeouts::BlackHole;

/// An origin that is a process of its own, and can be killed.
struct Process(Child);

impl Process {
    /// It listens when this returns.
    fn start(address: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mortal_origin"));
        let mut child = command.arg(address.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), address.to_string());
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn upstreams_in_trouble_leave_the_others_alone() {
    let hole = BlackHole::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = Origin::always(Answer::ok("late").after(&Gate::default()));
    let busy = Origin::start(|_| Answer::status(503));
    let good = Origin::plain();
    let gateway = Arc::new(Gateway::start(
        r#"
upstreams:
  hole: { endpoints: ["{hole}"], timeouts: { connect: 2s }, retries: { attempts: 1, on: [connect_failure] } }
  silent: { endpoints: ["{silent}"], timeouts: { response: 2s } }
  slow: { endpoints: ["{slow}"], timeouts: { response: 2s }, limits: { requests: 8 } }
  busy: { endpoints: ["{busy}"], retries: { attempts: 3, on: [5xx], backoff: { base: 5ms, max: 20ms } } }
  good: { endpoints: ["{good}"] }
routes:
  - { name: hole, match: { path: /hole }, upstream: hole }
  - { name: silent, match: { path: /silent }, upstream: silent }
  - { name: slow, match: { path: /slow }, upstream: slow }
  - { name: busy, match: { path: /busy }, upstream: busy }
  - { name: good, match: { path: /good }, upstream: good }
"#,
        &[
            ("hole", &hole.address),
            ("silent", &silent.local_addr().unwrap()),
            ("slow", &slow),
            ("busy", &busy),
            ("good", &good),
        ],
    ));
    const TROUBLE: [&str; 4] = ["/hole", "/silent", "/slow", "/busy"];
    let stop = Arc::new(AtomicBool::new(false));
    let asked: Arc<[AtomicUsize; 4]> = Arc::default();
    let trouble: Vec<_> = (0..4)
        .flat_map(|which| [which; 6])
        .map(|which| {
            let (gateway, stop, asked, path) = (gateway.clone(), stop.clone(), asked.clone(), TROUBLE[which]);
            thread::spawn(move || {
                let mut client = gateway.client();
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let status = client.get(path).status();
                    assert!(matches!(status, 503 | 504), "{path}: {status}");
                    assert!(began.elapsed() < Duration::from_secs(20), "{path} took {:?}", began.elapsed());
                    asked[which].fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut client = gateway.client();
    let mut times = Vec::new();
    // All that is in trouble has been waited for.
    while asked.iter().any(|count| count.load(Ordering::SeqCst) < 12) || times.len() < 300 {
        let began = Instant::now();
        assert_eq!(client.get("/good").text(), "ok");
        times.push(began.elapsed());
        assert!(trouble.iter().all(|thread| !thread.is_finished()));
    }
    stop.store(true, Ordering::SeqCst);
    trouble.into_iter().for_each(|thread| thread.join().unwrap());
    times.sort_unstable();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    // Each of those in trouble waits for two seconds or more. What waits behind one of them would show that.
    assert!(p99 < Duration::from_millis(1500), "median {median:?}, 99th percentile {p99:?}");
    let tries = busy.seen().len();
    let retries = gateway.metric("portcullis_upstream_retries_total", &["busy", "status"]);
    assert!(retries > 0.0 && tries > 0, "{retries} retries among {tries} tries");
}

#[test]
fn an_upstream_that_is_killed_and_comes_back_costs_only_its_own_requests() {
    // It comes back to the same one.
    let address = free_address();
    let mut process = Process::start(address);
    let good = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { killed: { endpoints: ["{killed}"] }, good: { endpoints: ["{good}"] } }
routes:
  - { name: killed, match: { path: /killed }, upstream: killed }
  - { name: good, match: { path: /good }, upstream: good }
"#,
        &[("killed", &address), ("good", &good)],
    );
    let (mut killed, mut spared) = (gateway.client(), gateway.client());
    assert_eq!(killed.get("/killed").text(), "ok");
    // One request is on its way when the process is killed.
    killed.send("GET /killed?hold HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(spared.get("/good").text(), "ok");
    process.kill();
    let status = killed.answer().status();
    assert!(matches!(status, 502 | 503), "the request that was on its way: {status}");
    for _ in 0..50 {
        assert!(matches!(killed.get("/killed").status(), 502 | 503));
        assert_eq!(spared.get("/good").text(), "ok");
    }
    let _process = Process::start(address);
    eventually("it is used again", || killed.get("/killed").status() == 200);
}
