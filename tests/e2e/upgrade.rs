//! Sockets that outlive the process that accepts on them.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::load::{Load, Refused};
use portcullis_tests::origin::Origin;
use portcullis_tests::process::{Process, Start, free_address, signal};
use portcullis_tests::wire::Message;
use serde_json::Value;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const PLAIN: &str = r#"
workers: {workers}
access_log: off
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { banner: {guest:banner} }
filters: [{ plugin: banner, config: { header: x-revision, value: "{value}" } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn is_right(answer: &Message) -> Result<(), String> {
    let right = answer.status() == 200 && answer.text() == "ok";
    if right { Ok(()) } else { Err(format!("{}: {}", answer.status(), answer.text())) }
}

/// A successor; it is killed when dropped.
struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        let _gone = Command::new("kill").args(["-s", "KILL", &self.0.to_string()]).status();
    }
}

/// Has a process start a successor, and waits until it has been told which that is.
fn succeed(process: &Process) -> Successor {
    let known = process.log().lines().count();
    process.signal("USR2");
    let mut id = None;
    eventually("a successor is started", || {
        let log = process.log();
        let told = log.lines().skip(known).filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut told = told.filter(|line| line["message"] == "a successor is being started");
        id = told.next().and_then(|line| line["process"].as_u64());
        id.is_some()
    });
    Successor(u32::try_from(id.unwrap()).unwrap())
}

#[test]
fn a_successor_takes_over_under_load_and_no_request_fails() {
    let origin = Origin::plain();
    // More workers, and fewer: every socket must have somebody who accepts on it.
    for (before, after) in [("2", "2"), ("3", "1"), ("1", "2")] {
        let places: [(&str, &dyn std::fmt::Display); 3] =
            [("origin", &origin), ("value", &"old"), ("workers", &before)];
        let mut process = Start::new(GATEWAY, PLAIN, &places).argument("--no-watch").start();
        let load = Load::start(process.address, 6, Refused::IsAFailure, is_right);
        load.more(100);
        process.configure(PLAIN, &[("origin", &origin), ("value", &"new"), ("workers", &after)]);
        let successor = succeed(&process);
        assert!(process.wait().success(), "{}", process.log());
        load.more(100);
        for _ in 0..10 {
            assert_eq!(process.client().get("/").get("x-revision"), Some("new"));
        }
        assert_eq!(process.page("/ready").status(), 200, "its own pages were taken over too");
        assert!(load.finish() > 200);
        signal(successor.0, "TERM");
        eventually("the successor ends like any other", || TcpStream::connect(process.address).is_err());
    }
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let origin = Origin::plain();
    let places: [(&str, &dyn std::fmt::Display); 3] = [("origin", &origin), ("value", &"old"), ("workers", &"1")];
    let mut process = Start::new(GATEWAY, PLAIN, &places).argument("--no-watch").start();
    let load = Load::start(process.address, 2, Refused::IsAFailure, is_right);
    process.configure(&PLAIN.replace("upstream: origin }", "upstream: orign }"), &places);
    let _failed = succeed(&process);
    eventually("it is noticed", || process.log().contains("the successor does not serve"));
    assert!(process.log().contains("`orign`, which does not exist"), "{}", process.log());
    load.more(50);
    assert!(process.runs());
    assert_eq!(process.page("/ready").status(), 200);
    // And the next one may do better.
    process.configure(PLAIN, &places);
    let _successor = succeed(&process);
    assert!(process.wait().success());
    load.more(50);
    assert!(load.finish() > 100);
}

/// What systemd does: sockets from descriptor 3 on, named, for the process that has this id.
const ACTIVATE: &str = r"
import os, socket, sys
host, ports, names, program = sys.argv[1], sys.argv[2].split(','), sys.argv[3], sys.argv[4:]
sockets = [socket.create_server((host, int(port)), backlog=128) for port in ports]
ready = open(program.pop(0), 'w')
for number, own in enumerate(sockets):
    os.dup2(own.fileno(), 100 + number)
for number in range(len(sockets)):
    os.dup2(100 + number, 3 + number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=names)
sys.stdin.readline()
os.execv(program[0], program)
";

#[test]
fn systemds_sockets_are_accepted_on_and_what_waited_there_is_served() {
    use std::io::Write as _;
    use std::process::Stdio;
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    // The first socket's address is not in the configuration: it is known by its name.
    let (named, by_address, admin) = (free_address(), free_address(), free_address());
    let text = format!(
        "version: 1\nworkers: 2\naccess_log: off\nadmin: {{ bind: \"{admin}\" }}\n\
         listeners: {{ web: {{ bind: \"127.0.0.1:1\" }}, other: {{ bind: \"{by_address}\" }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{origin}\"] }} }}\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: origin }}]\n"
    );
    let config = folder.path().join("portcullis.yaml");
    fs::write(&config, text).unwrap();
    let started = Command::new("python3")
        .args(["-c", ACTIVATE, "127.0.0.1"])
        .arg(format!("{},{},{}", named.port(), by_address.port(), admin.port()))
        .arg("web:unknown:admin")
        .arg(folder.path().join("bound"))
        .args([GATEWAY, "run"])
        .arg(&config)
        .stdin(Stdio::piped())
        .stderr(fs::File::create(folder.path().join("stderr")).unwrap())
        .spawn();
    let Ok(mut child) = started else {
        eprintln!("SKIPPED: python3 is not installed");
        return;
    };
    let _kill = Successor(child.id());
    eventually("the sockets are bound", || folder.path().join("bound").exists());
    let mut early: Vec<Client> = [named, by_address, named, by_address].map(Client::connect).into();
    early.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n"));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    for client in &mut early {
        assert_eq!(client.answer().status(), 200, "it waited in the queue");
    }
    for _ in 0..10 {
        assert_eq!(Client::connect(named).get("/").status(), 200);
        assert_eq!(Client::connect(by_address).get("/").status(), 200);
    }
    assert_eq!(Client::connect(admin).ask("GET", "/live", &[("host", &admin.to_string())], "").status(), 200);
    signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
}
