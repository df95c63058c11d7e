//! Requests without a route, and how the gateway's own replies look. Malformed ones are in `strict`.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::Origin;
use serde_json::Value;

#[test]
fn no_route_is_a_problem_document_that_names_the_request() {
    let origin = Origin::plain();
    let gateway = Gateway::start(
        r#"
upstreams: { origin: { endpoints: ["{origin}"] } }
routes: [{ name: one, match: { path: "/one", methods: [GET] }, upstream: origin }]
"#,
        &[("origin", &origin)],
    );
    assert_eq!(gateway.get("/one").status(), 200);
    let id = [("x-request-id", "id-42")];
    for (method, path) in [("GET", "/two"), ("POST", "/one"), ("GET", "/one/more")] {
        let answer = gateway.ask(method, path, &id, "");
        assert_eq!((answer.status(), answer.get("content-type")), (404, Some("application/problem+json")));
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        let told = ["code", "status", "request_id", "type"].map(|key| problem[key].clone());
        assert_eq!(told, [Value::from("no_route"), 404.into(), "id-42".into(), "about:blank".into()]);
    }
    let answer = gateway.h2().ask("GET", "/two", &id, []).unwrap();
    assert_eq!((answer.status, answer.get("content-type")), (404, Some("application/problem+json")));
}

#[test]
fn a_reply_comes_in_the_form_that_its_client_can_read() {
    let gateway = Gateway::start("upstreams: { o: { endpoints: [\"127.0.0.1:9\"] } }", &[]);
    let text = gateway.ask("GET", "/", &[("accept", "text/plain")], "");
    assert_eq!((text.status(), text.get("content-type")), (404, Some("text/plain")));
    assert!(!text.text().contains('{'), "{}", text.text());
    let head = gateway.ask("HEAD", "/", &[], "");
    assert_eq!((head.status(), head.get("content-type")), (404, Some("application/problem+json")));
    assert_ne!(head.get("content-length"), None);
    let grpc = gateway.h2().ask("POST", "/pkg.Service/Method", &[("content-type", "application/grpc")], []).unwrap();
    assert_eq!((grpc.status, grpc.get("grpc-status"), grpc.body.len()), (200, Some("12"), 0));
    assert_eq!(grpc.get("content-type"), Some("application/grpc"));
}
