//! The end of a process that serves.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::load::{Load, Refused};
use portcullis_tests::origin::{Answer, Origin};
use portcullis_tests::pieces::Gate;
use portcullis_tests::process::{Process, Start};
use portcullis_tests::wire::Message;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

const PLAIN: &str = r#"
access_log: off
drain: {drain}
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins: { probe: {guest:probe} }
filters: [{ plugin: probe, config: "log" }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn start(origin: &Origin, drain: &str) -> Process {
    Start::new(GATEWAY, PLAIN, &[("origin", origin), ("drain", &drain)]).start()
}

fn is_right(answer: &Message) -> Result<(), String> {
    let right = answer.status() == 200 && answer.text() == "ok";
    if right { Ok(()) } else { Err(format!("{}: {}", answer.status(), answer.text())) }
}

#[test]
fn an_order_to_end_under_load_fails_no_request() {
    let origin = Origin::plain();
    for _ in 0..3 {
        let mut process = start(&origin, "{ deadline: 1m }");
        let load = Load::start(process.address, 8, Refused::IsTheEnd, is_right);
        load.more(100);
        process.signal("TERM");
        assert!(process.wait().success(), "{}", process.log());
        eventually("all clients have found out", || load.is_over());
        let answered = load.finish();
        assert!(answered > 100, "{answered}");
        assert!(process.log().contains("probe: on_done root"), "the guest's root was told");
        assert!(!process.log().contains("cut off"), "{}", process.log());
    }
}

#[test]
fn it_says_that_it_is_not_ready_before_it_stops_accepting() {
    let gate = Gate::default();
    let origin = Origin::always(Answer::ok("ok").after(&gate));
    let mut process = start(&origin, "{ delay: 4s, deadline: 1m }");
    let (mut slow, mut idle) = (process.client(), process.client());
    slow.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    origin_has_begun(&origin);
    process.signal("TERM");
    eventually("it is not ready", || process.page("/ready").status() == 503);
    assert!(process.page("/ready").text().contains("draining"));
    let mut late = process.client();
    late.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("it accepts no more", || TcpStream::connect(process.address).is_err());
    assert_eq!(process.page("/ready").status(), 503, "its own pages are still there");
    assert!(idle.0.message().is_err(), "an idle connection is closed");
    gate.open();
    for client in [&mut slow, &mut late] {
        let answer = client.answer();
        assert_eq!((answer.status(), answer.get("connection")), (200, Some("close")));
    }
    assert!(process.wait().success());
}

#[test]
fn what_outlasts_the_deadline_is_cut_off_and_counted() {
    let origin = Origin::always(Answer::ok("ok").after(&Gate::default()));
    let mut process = start(&origin, "{ deadline: 500ms }");
    let mut clients: Vec<Client> = (0..3).map(|_| process.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually("all have begun", || origin.begun() == 3);
    let began = Instant::now();
    process.signal("TERM");
    assert!(process.wait().success());
    let took = began.elapsed();
    assert!(took > Duration::from_millis(450) && took < Duration::from_secs(15), "{took:?}");
    assert!(process.log().contains("cut off"), "{}", process.log());
    for client in &mut clients {
        assert!(client.0.message().is_err());
    }
}

#[test]
fn a_second_order_to_end_is_obeyed_at_once() {
    let origin = Origin::always(Answer::ok("ok").after(&Gate::default()));
    for drain in ["{ deadline: 1h }", "{ delay: 1h, deadline: 1h }"] {
        let mut process = start(&origin, drain);
        let mut client = process.client();
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        origin_has_begun(&origin);
        process.signal("TERM");
        eventually("it drains", || process.page("/ready").status() == 503);
        assert!(process.runs());
        let began = Instant::now();
        process.signal("INT");
        assert_eq!(process.wait().code(), Some(1));
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        assert!(process.log().contains("ending at once"), "{}", process.log());
    }
}

#[test]
fn the_service_manager_is_told_of_everything() {
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(portcullis_tests::PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut process = Start::new(GATEWAY, PLAIN, &[("origin", &origin), ("drain", &"{ deadline: 1s }")])
        .variable("NOTIFY_SOCKET", &path.to_string_lossy())
        .variable("WATCHDOG_USEC", "400000")
        .start();
    let next = || loop {
        match hear() {
            word if word == "WATCHDOG=1" => {}
            word => return word,
        }
    };
    assert!(next().starts_with("READY=1\n"));
    eventually("the watchdog is fed", || hear() == "WATCHDOG=1");
    process.signal("HUP");
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1\nSTATUS=serving revision 2");
    process.signal("TERM");
    assert!(next().starts_with("STOPPING=1\n"));
    assert!(process.wait().success());
}

fn origin_has_begun(origin: &Origin) {
    let before = origin.begun();
    eventually("the origin has a request", || origin.begun() > before || before > 0);
}
