//! Traces, the access log and the collector: what is read, and what is refused.

use expect_test::expect;
use portcullis_core::trace::{Parents, Policy};

use super::*;
use crate::config::snapshot::LogTarget;

#[test]
fn nothing_is_traced_unless_asked_for_and_lines_go_to_standard_output() {
    let snapshot = read(BASE);
    assert_eq!((snapshot.tracing, snapshot.otlp), (None, None));
    assert_eq!((&snapshot.access_log.to, snapshot.access_log.sample), (&LogTarget::Stdout, 1.0));
    let snapshot = read(&format!("{BASE}tracing: {{}}\n"));
    assert_eq!(snapshot.tracing, Some(Policy::new(Parents::Trusted, 0.01)));
}

#[test]
fn the_access_log_is_a_target_or_says_more() {
    for (written, to, sample) in [
        ("stdout", LogTarget::Stdout, 1.0),
        ("off", LogTarget::Off, 1.0),
        ("file:logs/a.log", LogTarget::File("logs/a.log".into()), 1.0),
        ("{ to: off }", LogTarget::Off, 1.0),
        ("{ sample: 0.25 }", LogTarget::Stdout, 0.25),
        ("{ to: \"file:/a\", sample: 0 }", LogTarget::File("/a".into()), 0.0),
        ("{ sample: 1 }", LogTarget::Stdout, 1.0),
    ] {
        let log = read(&format!("{BASE}access_log: {written}\n")).access_log;
        assert_eq!((log.to, log.sample), (to, sample), "{written}");
    }
}

#[test]
fn a_file_is_found_from_the_file_that_names_it() {
    let folder = Folder::new(&[("etc/gateway.yaml", &format!("{BASE}access_log: file:logs/a.log\n"))]);
    let (snapshot, _) = folder.load(&["etc/gateway.yaml"]).unwrap();
    assert_eq!(snapshot.access_log.to, LogTarget::File(folder.path("etc/logs/a.log")));
}

#[test]
fn a_collector_is_an_upstream_that_everyone_sees_and_its_secrets_stay_secret() {
    let folder = Folder::new(&[
        ("gateway.yaml", &format!("{BASE}otlp: {{ upstream: origin, headers: {{ x-key: '${{file:key}}' }} }}\n")),
        ("key", "hunter2"),
    ]);
    let (snapshot, _) = folder.load(&["gateway.yaml"]).unwrap();
    let otlp = snapshot.otlp.as_ref().unwrap();
    assert_eq!((&*otlp.service, &*snapshot.upstream(otlp.upstream).name), ("portcullis", "origin"));
    assert_eq!(otlp.headers[0].1, "hunter2");
    assert!(!format!("{snapshot:?}").contains("hunter2") && !snapshot.dump().to_string().contains("hunter2"));
}

#[test]
fn what_does_not_fit_is_refused() {
    check(
        &format!("{BASE}tracing: {{ sample: 1.5, parents: some }}\naccess_log: {{ sample: much }}\n"),
        &expect![[r#"
            error: `tracing.sample` must be a number from 0 to 1
              ┌ gateway.yaml:4:20
            4 │ tracing: { sample: 1.5, parents: some }
              │                    ^^^ this is 1.5

            error: `tracing.parents` cannot be `some`
              ┌ gateway.yaml:4:34
            4 │ tracing: { sample: 1.5, parents: some }
              │                                  ^^^^
              = help: it can be `trusted`, `any`, `none`

            error: `access_log.sample` must be a number
              ┌ gateway.yaml:5:23
            5 │ access_log: { sample: much }
              │                       ^^^^ this is a string

        "#]],
    );
    check(
        &format!("{BASE}access_log: stderr\n"),
        &expect![[r#"
        error: `access_log` is not a place for a log
          ┌ gateway.yaml:4:13
        4 │ access_log: stderr
          │             ^^^^^^ it is neither `stdout` nor `off`, nor begins with `file:`
          = help: write it like `stdout`, `off`, `file:logs/access.log`

    "#]],
    );
    check(
        &format!("{BASE}access_log: {{ otlp: true, request_headers: [\"a b\"] }}\n"),
        &expect![[r#"
            error: the access log is sent to a collector that is not there
              ┌ gateway.yaml:4:21
            4 │ access_log: { otlp: true, request_headers: ["a b"] }
              │                     ^^^^ no collector is configured
              = help: name one at the top: `otlp: { upstream: … }`

            error: `access_log.request_headers[0]` is not the name of a header field
              ┌ gateway.yaml:4:45
            4 │ access_log: { otlp: true, request_headers: ["a b"] }
              │                                             ^^^^^ it is empty, or has bytes that no name has
              = help: write it like `x-tenant`, `content-type`

        "#]],
    );
    check(
        &format!("{BASE}otlp: {{ upstream: orgin, headers: {{ \"a b\": c }} }}\n"),
        &expect![[r#"
        error: `otlp` sends to upstream `orgin`, which does not exist
          ┌ gateway.yaml:4:19
        4 │ otlp: { upstream: orgin, headers: { "a b": c } }
          │                   ^^^^^ no upstream that everyone sees has this name
          = help: `origin` is close

    "#]],
    );
}
