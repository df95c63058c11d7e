//! What listeners may be told of their clients.

use std::time::Duration;

use expect_test::expect;
use portcullis_core::downstream::Patience;
use portcullis_core::forward::Forwarding;

use super::super::snapshot::{ProxyProtocol, Speaks};
use super::{check, read};

const REST: &str = "upstreams: { origin: { endpoints: [\"127.0.0.1:9001\"] } }\n";

#[test]
fn a_listener_has_its_limits_without_being_told() {
    let snapshot = read(&format!("version: 1\nlisteners: {{ a: {{ bind: '127.0.0.1:0' }} }}\n{REST}"));
    let listener = &snapshot.listeners[0];
    assert_eq!(listener.patience, Patience::DEFAULT);
    assert_eq!((listener.max_connections, snapshot.max_connections), (None, None));
    assert_eq!((listener.http2.max_streams, listener.http2.ping), (100, None));
    assert_eq!((listener.proxy_protocol, listener.forwarding), (ProxyProtocol::Off, Forwarding::XForwarded));
}

#[test]
fn a_listener_keeps_to_what_it_is_told() {
    let snapshot = read(&format!(
        "
version: 1
max_connections: 9
listeners:
  a:
    bind: '127.0.0.1:0'
    trusted_proxies: [10.0.0.0/8]
    proxy_protocol: required
    forwarding: both
    max_connections: 7
    timeouts: {{ header: 1s, idle: 2s, stream_idle: 3s, request: 4s }}
    http2: {{ max_streams: 5, ping: 6s }}
{REST}"
    ));
    let listener = &snapshot.listeners[0];
    let Patience { header, idle, stream_idle, request } = listener.patience;
    assert_eq!([header, idle, stream_idle, request.unwrap()].map(|limit| limit.as_secs()), [1, 2, 3, 4]);
    assert_eq!((listener.http2.max_streams, listener.http2.ping), (5, Some(Duration::from_secs(6))));
    assert_eq!((listener.max_connections, snapshot.max_connections), (Some(7), Some(9)));
    assert_eq!((listener.proxy_protocol, listener.forwarding), (ProxyProtocol::Required, Forwarding::Both));
}

#[test]
fn what_a_listener_cannot_be_told_is_said_with_its_place() {
    check(
        r#"
version: 1
max_connections: 0
listeners:
  a: { bind: "127.0.0.1:0", proxy_protocol: required }
  b: { bind: "127.0.0.1:0", proxy_protocol: on, timeouts: { head: 1s, idle: 0s } }
  c: { bind: "127.0.0.1:0", forwarding: x-forwarded, http2: { max_streams: 5000 }, max_connections: -1 }
"#,
        &expect![[r#"
            error: `max_connections` must be a whole number from 1 on
              ┌ gateway.yaml:3:18
            3 │ max_connections: 0
              │                  ^ this is 0

            error: listener `a` expects the PROXY protocol but trusts no proxy
              ┌ gateway.yaml:5:45
            5 │   a: { bind: "127.0.0.1:0", proxy_protocol: required }
              │                                             ^^^^^^^^ every connection would be refused, or none could use it
              = help: name the networks of the proxies under `trusted_proxies`

            error: `listeners.b.proxy_protocol` cannot be `on`
              ┌ gateway.yaml:6:45
            6 │   b: { bind: "127.0.0.1:0", proxy_protocol: on, timeouts: { head: 1s, idle: 0s } }
              │                                             ^^
              = help: it can be `off`, `optional`, `required`

            error: unknown key `head` in `listeners.b.timeouts`
              ┌ gateway.yaml:6:61
            6 │   b: { bind: "127.0.0.1:0", proxy_protocol: on, timeouts: { head: 1s, idle: 0s } }
              │                                                             ^^^^ no such key
              = help: the keys here are `header`, `idle`, `request`, `stream_idle`

            error: `listeners.b.timeouts.idle` is not a duration
              ┌ gateway.yaml:6:77
            6 │   b: { bind: "127.0.0.1:0", proxy_protocol: on, timeouts: { head: 1s, idle: 0s } }
              │                                                                             ^^ it must be more than zero
              = help: write it like `5s`, `250ms`, `2m`, `1h`

            error: `listeners.c.forwarding` cannot be `x-forwarded`
              ┌ gateway.yaml:7:41
            7 │   c: { bind: "127.0.0.1:0", forwarding: x-forwarded, http2: { max_streams: 5000 }, max_connections: -1 }
              │                                         ^^^^^^^^^^^
              = help: `x_forwarded` is close

            error: `listeners.c.http2.max_streams` must be a whole number from 1 to 1000
              ┌ gateway.yaml:7:76
            7 │   c: { bind: "127.0.0.1:0", forwarding: x-forwarded, http2: { max_streams: 5000 }, max_connections: -1 }
              │                                                                            ^^^^ this is 5000

            error: `listeners.c.max_connections` must be a whole number from 1 on
              ┌ gateway.yaml:7:101
            7 │   c: { bind: "127.0.0.1:0", forwarding: x-forwarded, http2: { max_streams: 5000 }, max_connections: -1 }
              │                                                                                                     ^^ this is -1

        "#]],
    );
}

#[test]
fn a_tcp_listener_has_its_own_filters_and_upstream() {
    let snapshot = read(
        r#"
version: 1
listeners:
  bytes: { bind: "127.0.0.1:0", protocol: tcp, tenant: acme, upstream: db, timeouts: { stream_idle: 7s, request: 9s } }
upstreams: { db: { endpoints: ["127.0.0.1:1"], protocol: tcp } }
tenants: { acme: { hosts: [acme.test], upstreams: { db: { endpoints: ["127.0.0.1:2"], protocol: tcp } } } }
"#,
    );
    let route = &snapshot.tcp_routes[0];
    assert_eq!((&*route.listener, route.idle, route.tenant.is_some()), ("bytes", Duration::from_secs(7), true));
    assert_eq!(snapshot.upstream(route.upstream).endpoints[0].port, 2, "the tenant's own comes first");
    assert_eq!(snapshot.listeners[0].speaks, Speaks::Tcp);
    assert_eq!(snapshot.listeners[0].patience.request, None, "bytes have no requests that could take too long");
}

#[test]
fn what_one_kind_of_listener_cannot_be_told_is_said() {
    check(
        r#"
version: 1
listeners:
  a: { bind: "127.0.0.1:0", protocol: tcp }
  b: { bind: "127.0.0.1:0", protocol: tcp, upstream: web, forwarding: both }
  c: { bind: "127.0.0.1:0", upstream: db }
  d: { bind: "127.0.0.1:0", protocol: tcp, upstream: bd, tenant: nobody }
  e: { bind: "127.0.0.1:0", protocol: tcp, upstream: bd }
upstreams: { db: { endpoints: ["127.0.0.1:1"], protocol: tcp }, web: { endpoints: ["127.0.0.1:2"] } }
routes: [{ name: all, match: { path: "/*" }, upstream: db }]
"#,
        &expect![[r#"
            error: listener `a` speaks `tcp` and sends nowhere
              ┌ gateway.yaml:4:3
            4 │   a: { bind: "127.0.0.1:0", protocol: tcp }
              │   ^
              = help: name an upstream with `protocol: tcp` under `upstream`

            error: listener `b` speaks `tcp` and its upstream does not
              ┌ gateway.yaml:5:54
            5 │   b: { bind: "127.0.0.1:0", protocol: tcp, upstream: web, forwarding: both }
              │                                                      ^^^
              = help: give the upstream `protocol: tcp`

            error: `forwarding` means nothing for listener `b`
              ┌ gateway.yaml:5:59
            5 │   b: { bind: "127.0.0.1:0", protocol: tcp, upstream: web, forwarding: both }
              │                                                           ^^^^^^^^^^ only for a listener with `protocol: http`

            error: `upstream` means nothing for listener `c`
              ┌ gateway.yaml:6:29
            6 │   c: { bind: "127.0.0.1:0", upstream: db }
              │                             ^^^^^^^^ only for a listener with `protocol: tcp`

            error: listener `d` belongs to tenant `nobody`, which does not exist
              ┌ gateway.yaml:7:66
            7 │   d: { bind: "127.0.0.1:0", protocol: tcp, upstream: bd, tenant: nobody }
              │                                                                  ^^^^^^ no tenant has this name
              = help: tenants are defined under `tenants:`

            error: listener `e` sends to upstream `bd`, which does not exist
              ┌ gateway.yaml:8:54
            8 │   e: { bind: "127.0.0.1:0", protocol: tcp, upstream: bd }
              │                                                      ^^ no upstream has this name
              = help: `db` is close, defined at gateway.yaml:9:14

            error: route `all` sends requests to an upstream that speaks `tcp`
               ┌ gateway.yaml:10:56
            10 │ routes: [{ name: all, match: { path: "/*" }, upstream: db }]
               │                                                        ^^ only a listener with `protocol: tcp` can send to it

        "#]],
    );
}
