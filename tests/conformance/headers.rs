//! §6.2, header maps.

use portcullis_tests::origin::{Answer, Origin};

use crate::guest::{gateway, pairs};

/// A request-headers callback that does this and goes on.
fn on_request(body: &str) -> String {
    format!(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body} (i32.const 0))"#)
}

fn on_response(body: &str) -> String {
    format!(r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {body} (i32.const 0))"#)
}

#[test]
fn add_appends_replace_takes_the_place_of_all_and_remove_takes_all() {
    let origin = Origin::plain();
    let gateway = gateway(
        &origin,
        &on_request(
            "(call $add (i32.const 0) 'X-Twice' 'two')
             (call $set (i32.const 0) 'x-many' 'one')
             (call $remove (i32.const 0) 'X-Gone')
             (call $set (i32.const 0) 'x-empty' '')",
        ),
    );
    let sent = [("x-twice", "one"), ("x-many", "a"), ("x-many", "b"), ("x-gone", "1"), ("X-GONE", "2")];
    assert_eq!(gateway.ask("GET", "/", &sent, "").status(), 200);
    let seen = origin.last();
    let all = |name: &str| seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("x-twice"), ["one", "two"]);
    assert_eq!(all("x-many"), ["one"]);
    assert_eq!(all("x-gone"), [""; 0]);
    assert_eq!(all("x-empty"), [""]);
}

#[test]
fn pseudo_headers_decide_what_is_asked() {
    let origin = Origin::start(|seen| Answer::ok(format!("{} {}", seen.method, seen.target())));
    let gateway = gateway(
        &origin,
        &on_request(
            "(call $set (i32.const 0) ':path' '/other?x=y')
             (call $set (i32.const 0) ':method' 'PUT')
             (call $set (i32.const 0) ':authority' 'else.test')",
        ),
    );
    for path in ["/", "/h2/"] {
        assert_eq!(gateway.get(path).text(), "PUT /other?x=y", "{path}");
        let seen = origin.last();
        let host = seen.uri.authority().map(ToString::to_string).or(seen.get("host").map(str::to_owned));
        assert_eq!(host.as_deref(), Some("else.test"), "{path}");
    }
}

#[test]
fn a_response_without_its_old_status_has_the_new_one() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, &on_response("(call $set (i32.const 2) ':status' '418')"));
    assert_eq!(gateway.get("/").status(), 418);
    assert_eq!(gateway.h2().get("/h2/").status, 418);
}

#[test]
fn a_request_whose_path_was_removed_has_no_route() {
    let origin = Origin::plain();
    let gateway = gateway(&origin, &on_request("(call $remove (i32.const 0) ':path')"));
    assert_eq!(gateway.get("/").status(), 404);
    assert_eq!(origin.begun(), 0);
}

#[test]
fn setting_all_pairs_leaves_no_others() {
    let origin = Origin::plain();
    let all = pairs(&[(":status", "201"), ("x-b", "1"), ("X-A", "2"), ("x-b", "3")]);
    let gateway = gateway(&origin, &on_response(&format!("(drop (call $set_pairs (i32.const 2) '{all}'))")));
    let answer = gateway.get("/");
    assert_eq!((answer.status(), answer.head.all("x-b"), answer.get("x-a")), (201, vec!["1", "3"], Some("2")));
    assert_eq!(answer.get("content-type"), None);
}

#[test]
fn host_is_authority_and_names_are_found_in_any_case() {
    let origin = Origin::plain();
    let gateway = gateway(
        &origin,
        &on_request(
            "(drop (call $get_value (i32.const 0) 'HOST' out))
             (call $set (i32.const 0) 'x-host' (i32.load (i32.const 16)) (i32.load (i32.const 20)))
             (call $digit (i32.const 0) 'x-absent' (call $get_value (i32.const 0) 'no-such' out))
             (call $digit (i32.const 0) 'x-no-map' (call $get_value (i32.const 2) 'no-such' out))
             (call $digit (i32.const 0) 'x-bad-map' (call $get_value (i32.const 9) 'no-such' out))
             (call $digit (i32.const 0) 'x-bad-memory' (call $get_value (i32.const 0) (i32.const -8) (i32.const 64) out))",
        ),
    );
    assert_eq!(gateway.get("/").status(), 200);
    let seen = origin.last();
    let told = ["x-host", "x-absent", "x-bad-map", "x-bad-memory"].map(|name| seen.get(name));
    assert_eq!(told, [Some("test"), Some("1"), Some("2"), Some("6")]);
    assert!(seen.get("x-no-map").is_some_and(|status| status == "1" || status == "2"), "a status that SDKs know");
}

#[test]
fn the_gateways_own_fields_are_there_before_the_guest_and_connection_fields_are_not() {
    let origin = Origin::plain();
    let look = |name: &str, field: &str| {
        format!("(call $digit (i32.const 0) '{field}' (call $get_value (i32.const 0) '{name}' out))")
    };
    let body = [
        look("x-request-id", "x-saw-id"),
        look("x-forwarded-proto", "x-saw-proto"),
        look("connection", "x-saw-connection"),
        look("transfer-encoding", "x-saw-coding"),
        look("te", "x-saw-te"),
    ];
    let gateway = gateway(&origin, &on_request(&body.concat()));
    let sent = [("connection", "keep-alive, te"), ("te", "trailers")];
    assert_eq!(gateway.ask("GET", "/", &sent, "").status(), 200);
    let seen = origin.last();
    let told = ["x-saw-id", "x-saw-proto", "x-saw-connection", "x-saw-coding", "x-saw-te"].map(|name| seen.get(name));
    assert_eq!(told, [Some("0"), Some("0"), Some("1"), Some("1"), Some("0")]);
}

#[test]
fn header_fields_that_cannot_be_written_break_nothing() {
    let origin = Origin::plain();
    let gateway = gateway(
        &origin,
        &on_request(
            "(call $set (i32.const 0) 'x-split' 'a\\0d\\0ax-injected: 1')
             (call $set (i32.const 0) 'bad name' '1')
             (call $set (i32.const 0) '' '1')
             (call $set (i32.const 0) ':path' 'no path')
             (call $set (i32.const 0) ':method' 'G T')",
        )
        .replace("\\\\", "\\"),
    );
    let answer = gateway.get("/");
    assert!(answer.status() > 0);
    for seen in origin.seen() {
        assert!(seen.get("x-injected").is_none());
    }
    assert_eq!(gateway.metric("portcullis_filter_traps_total", &[]), 0.0);
}
