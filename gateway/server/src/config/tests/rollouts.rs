//! Next versions of plugins, as they are written.

use std::time::Duration;

use expect_test::expect;
use portcullis_core::rollout::{Bounds, By, Mode, Rule, Term};

use super::{BASE, Folder};

fn folder(rollout: &str) -> Folder {
    let text = format!("{BASE}plugins: {{ geo: {{ module: \"file:a.wasm\",\n  rollout: {rollout}\n}} }}\n");
    Folder::new(&[("gateway.yaml", &text), ("a.wasm", "one"), ("b.wasm", "two")])
}

#[test]
fn a_candidate_is_a_module_or_says_more() {
    let read =
        |rollout: &str| folder(rollout).load(&["gateway.yaml"]).unwrap().0.gateway.plugins[0].rollout.clone().unwrap();
    let short = read("{ candidate: \"file:b.wasm\", percent: 0.5 }");
    let by_chance =
        Rule { mode: Mode::Serves, share: 50, by: By::Random, abort_if: Bounds::default(), promote_after: None };
    assert_eq!((&*short.candidate.code, &*short.candidate.name, short.rule), (&b"two"[..], "geo@candidate", by_chance));
    assert!(short.config.is_none());

    let whole = read(
        "{ candidate: { module: \"file:b.wasm\", config: { a: 1 } }, shadow: true, percent: 2.5, by: consumer,
           abort_if: { traps: 3, disagree: 0.5%, added_p99: 2ms }, promote_after: { exchanges: 10, time: 1m } }",
    );
    let rule = Rule {
        mode: Mode::Shadows,
        share: 250,
        by: By::Header("x-consumer".parse().unwrap()),
        abort_if: Bounds { traps: 3, disagree: Some(50), added_p99: Some(Duration::from_millis(2)) },
        promote_after: Some(Term { exchanges: Some(10), time: Some(Duration::from_secs(60)) }),
    };
    assert_eq!((whole.rule.clone(), whole.config.as_deref()), (rule, Some(&b"{\"a\":1}"[..])));
}

#[test]
fn a_rollout_is_another_where_anything_of_it_is() {
    let identity = |rollout: &str, tenant: Option<&str>, plugin: &str| {
        let snapshot = folder(rollout).load(&["gateway.yaml"]).unwrap().0;
        snapshot.gateway.plugins[0].rollout.as_ref().unwrap().identity(tenant, plugin)
    };
    let of = |rollout: &str| identity(rollout, Some("acme"), "geo");
    let usual = "{ candidate: \"file:b.wasm\", percent: 5 }";
    assert_eq!(of(usual), of("{ percent: 5.00, candidate: { module: \"file:b.wasm\" }, by: random }"));
    let others = [
        "{ candidate: \"file:a.wasm\", percent: 5 }",
        "{ candidate: { module: \"file:b.wasm\", config: \"\" }, percent: 5 }",
        "{ candidate: { module: \"file:b.wasm\", config: \"a\" }, percent: 5 }",
        "{ candidate: \"file:b.wasm\", percent: 5.01 }",
        "{ candidate: \"file:b.wasm\", percent: 5, by: client }",
        "{ candidate: \"file:b.wasm\", percent: 5, by: \"header:x-user\" }",
        "{ candidate: \"file:b.wasm\", percent: 5, by: consumer }",
        "{ candidate: \"file:b.wasm\", percent: 5, shadow: true }",
        "{ candidate: \"file:b.wasm\", percent: 5, shadow: true, abort_if: { disagree: 1% } }",
        "{ candidate: \"file:b.wasm\", percent: 5, abort_if: { traps: 1 } }",
        "{ candidate: \"file:b.wasm\", percent: 5, abort_if: { added_p99: 1ms } }",
        "{ candidate: \"file:b.wasm\", percent: 5, promote_after: { time: 1ms } }",
        "{ candidate: \"file:b.wasm\", percent: 5, promote_after: { exchanges: 1 } }",
    ];
    let mut seen: Vec<[u8; 32]> = others.iter().map(|rollout| of(rollout)).collect();
    seen.extend([of(usual), identity(usual, None, "geo"), identity(usual, Some("acme"), "auth")]);
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[test]
fn rollouts_that_make_no_sense_are_explained() {
    folder("{ candidate: \"file:b.wasm\", percent: 101, by: \"cookie:x\" }").check(&["gateway.yaml"], &expect![[r#"
        error: `plugins.geo.rollout.percent` must be a number from 0 to 100
          ┌ gateway.yaml:5:49
        5 │   rollout: { candidate: "file:b.wasm", percent: 101, by: "cookie:x" }
          │                                                 ^^^ this is 101

        error: `plugins.geo.rollout.by` is not what a roll-out goes by
          ┌ gateway.yaml:5:58
        5 │   rollout: { candidate: "file:b.wasm", percent: 101, by: "cookie:x" }
          │                                                          ^^^^^^^^^^ it is none of `random`, `client` and `consumer`, nor begins with `header:`
          = help: write it like `random`, `client`, `consumer`, `header:x-user`

    "#]]);
    folder("{ candidate: \"file:a.wasm\", percent: 0.004, promote_after: {} }").check(
        &["gateway.yaml"],
        &expect![[r#"
            error: `percent` goes in steps of 0.01
              ┌ gateway.yaml:5:49
            5 │   rollout: { candidate: "file:a.wasm", percent: 0.004, promote_after: {} }
              │                                                 ^^^^^ this would be nothing
              = help: write 0.01 or more, or 0 for nothing

            error: `promote_after` does not say after what
              ┌ gateway.yaml:5:71
            5 │   rollout: { candidate: "file:a.wasm", percent: 0.004, promote_after: {} }
              │                                                                       ^^ empty
              = help: write `exchanges`, `time` or both; without `promote_after` the candidate waits for somebody to say so

        "#]],
    );
    folder("{ candidate: \"file:b.wasm\", abort_if: { disagree: 1% } }").check(
        &["gateway.yaml"],
        &expect![[r#"
        error: the roll-out does not say what the candidate gets
          ┌ gateway.yaml:5:12
        5 │   rollout: { candidate: "file:b.wasm", abort_if: { disagree: 1% } }
          │            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ neither `percent` nor `shadow`
          = help: write `percent` for a share of the exchanges, or `shadow: true` for copies of them

        error: only a shadow can disagree with the current version
          ┌ gateway.yaml:5:62
        5 │   rollout: { candidate: "file:b.wasm", abort_if: { disagree: 1% } }
          │                                                              ^^ nothing is compared
          = help: write `shadow: true`, or leave it out

    "#]],
    );
}
