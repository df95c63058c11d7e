//! Filters of the SDK on a running gateway. The module does it; its paths are in `plugins/exercise/src/lib.rs`.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

use crate::grpc::notes::Notes;

const EXERCISED: &str = r#"
upstreams: { origin: { endpoints: ["{origin}"] }, notes: { endpoints: ["{notes}"], protocol: http2 } }
plugins: { exercise: { module: "file:{file:exercise}", limits: { cpu: 5s }{more} } }
filters: [{ plugin: exercise, config: { notes: notes } }]
routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
"#;

fn exercised(origin: &Origin, notes: &Notes, more: &str) -> Gateway {
    Gateway::start(EXERCISED, &[("origin", origin), ("notes", notes), ("more", &more)])
}

#[test]
fn heads_are_held_while_bodies_are_read_as_the_manifest_asks() {
    let (origin, notes) = (Origin::always(Answer::ok("response")), Notes::start());
    let gateway = exercised(&origin, &notes, "");
    let answer = gateway.ask("POST", "/length", &[], "request!");
    assert_eq!((answer.status(), answer.text().as_str(), answer.get("x-length")), (200, "response", Some("8")));
    let seen = origin.last();
    assert_eq!((seen.get("x-length"), seen.get("content-length")), (Some("8"), Some("8")));
    let answer = gateway.ask("POST", "/length", &[], &"x".repeat(70_000));
    assert_eq!((answer.status(), origin.begun()), (413, 1), "what is refused never gets there");
}

#[test]
fn an_operator_may_have_heads_go_on_and_changes_come_too_late() {
    let (origin, notes) = (Origin::always(Answer::ok("response")), Notes::start());
    let gateway = exercised(&origin, &notes, ", allow_on_headers_stop_iteration: false");
    let answer = gateway.ask("POST", "/length", &[], "request!");
    assert_eq!((answer.status(), answer.text().as_str(), answer.get("x-length")), (200, "response", None));
    assert_eq!(origin.last().get("x-length"), None);
}

#[test]
fn grpc_calls_and_streams_are_spoken_to_a_real_service() {
    let (origin, notes) = (Origin::plain(), Notes::start());
    let gateway = exercised(&origin, &notes, "");
    for (path, want) in [("/say", "HELLO"), ("/chat", "ONE TWO true application/grpc 0"), ("/count", "100")] {
        assert_eq!(gateway.get(path).status(), 200);
        assert_eq!(origin.last().get("x-said"), Some(want), "{path}");
    }
    assert_eq!(gateway.get("/fail").status(), 200);
    let said = origin.last();
    assert!(said.get("x-said").is_some_and(|said| said.starts_with("gRPC status 9: no: ")), "{said:?}");
}

#[test]
fn the_end_of_an_exchange_is_told_with_what_the_client_got() {
    let (origin, notes) = (Origin::always(Answer::ok("").header("server", "pot")), Notes::start());
    let gateway = exercised(&origin, &notes, "");
    assert_eq!(gateway.get("/a").status(), 200);
    assert_eq!(gateway.get("/last").text(), "/a 200 via_upstream pot");
}
