//! What routes allow of tunnels.

use std::time::Duration;

use expect_test::expect;
use portcullis_core::upgrade::Upgrade;

use super::{BASE, check, read};

fn route(more: &str) -> String {
    format!("{BASE}routes:\n  - {{ name: ws, match: {{ path: /ws }}, upstream: origin{more} }}\n")
}

#[test]
fn no_upgrade_is_allowed_that_is_not_written() {
    let tunnels = read(&route("")).gateway.routes[0].tunnels.clone();
    assert_eq!((tunnels.allowed.len(), tunnels.idle), (0, Duration::from_secs(300)));
    let tunnels = read(&route(", upgrades: [WebSocket, irc/6.9], tunnel_idle: 1h")).gateway.routes[0].tunnels.clone();
    assert_eq!(tunnels.allowed.iter().map(Upgrade::as_str).collect::<Vec<_>>(), ["websocket", "irc/6.9"]);
    assert_eq!(tunnels.idle, Duration::from_secs(3600));
}

#[test]
fn upgrades_that_make_no_sense_are_explained() {
    check(
        &route(", upgrades: [h2c, \"web socket\"]"),
        &expect![[r#"
        error: `routes[0].upgrades[0]` is not a protocol to upgrade to
          ┌ gateway.yaml:5:68
        5 │   - { name: ws, match: { path: /ws }, upstream: origin, upgrades: [h2c, "web socket"] }
          │                                                                    ^^^ requests inside such a tunnel would pass no route and no filter
          = help: write it like `websocket`

        error: `routes[0].upgrades[1]` is not a protocol to upgrade to
          ┌ gateway.yaml:5:73
        5 │   - { name: ws, match: { path: /ws }, upstream: origin, upgrades: [h2c, "web socket"] }
          │                                                                         ^^^^^^^^^^^^ it is not a protocol's name, or a name and a version with `/` between
          = help: write it like `websocket`

    "#]],
    );
    check(
        &route(", tunnel_idle: 1m"),
        &expect![[r#"
        error: route `ws` has no tunnels that could be idle
          ┌ gateway.yaml:5:70
        5 │   - { name: ws, match: { path: /ws }, upstream: origin, tunnel_idle: 1m }
          │                                                                      ^^ it allows no upgrade
          = help: allow one, as in `upgrades: [websocket]`, or remove `tunnel_idle`

    "#]],
    );
}
