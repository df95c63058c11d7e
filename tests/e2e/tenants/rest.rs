//! VMs of tenants come with their first request and go when they have been idle; those that are to be warm do neither.

use portcullis_tests::eventually;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Answer, Origin};

const RESTING: &str = r#"
workers: 2
upstreams: { origin: { endpoints: ["{origin}"] } }
plugins:
  banner: { module: "file:{file:banner}", idle: 3s }
  warm: { module: "file:{file:headers}", warm: true, idle: 3s }
tenants:
  acme:
    hosts: [acme.test]
    filters: [{ plugin: banner }, { plugin: warm }]
    routes: [{ name: all, match: { path: "/*" }, upstream: origin }]
filters: []
"#;

#[test]
fn a_tenants_vm_comes_with_a_request_and_goes_when_it_is_idle() {
    let origin = Origin::always(Answer::ok("served"));
    let gateway = Gateway::start(RESTING, &[("origin", &origin)]);
    let running =
        |plugin: &str| gateway.metric("portcullis_filter_instances", &[&format!("\"{plugin}\""), "\"running\""]);
    assert_eq!((running("banner"), running("warm")), (0.0, 2.0));
    for starts in [1.0, 2.0] {
        let mut client = gateway.client();
        let answer = client.ask("GET", "/", &[("host", "acme.test")], "");
        assert_eq!((answer.status(), answer.get("x-banner")), (200, Some("hello")));
        assert_eq!(running("banner"), 1.0, "on the worker that has the connection");
        eventually("the VM goes", || running("banner") == 0.0);
        assert_eq!(gateway.metric("portcullis_filter_starts_total", &["\"banner\""]), starts);
        assert_eq!(running("warm"), 2.0);
    }
}
