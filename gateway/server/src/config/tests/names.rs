//! What is said about names, hosts, ports and routes that do not fit together.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use std::path::Path;

use expect_test::expect;

use super::{BASE, check, from_text, render};

#[test]
fn names_that_mean_nothing_are_reported_with_those_that_are_close() {
    check(
        r#"
version: 1
listeners: { public: { bind: "127.0.0.1:0" } }
upstreams:
  payment: { endpoints: ["127.0.0.1:9001"] }
routes:
  - name: checkout
    match: { path: /checkout }
    upstream: payments
  - name: other
    match: { path: /other }
    filters: [ { policy: signed-in }, { plugin: geo } ]
    upstream: completely-different
"#,
        &expect![[r#"
            error: route `checkout` sends to upstream `payments`, which does not exist
              ┌ gateway.yaml:9:15
            9 │     upstream: payments
              │               ^^^^^^^^ no upstream has this name
              = help: `payment` is close, defined at gateway.yaml:5:3

            error: this filter uses policy `signed-in`, which does not exist
               ┌ gateway.yaml:12:26
            12 │     filters: [ { policy: signed-in }, { plugin: geo } ]
               │                          ^^^^^^^^^ no policy has this name
               = help: policies are defined under `policies:`

            error: this filter uses plugin `geo`, which does not exist
               ┌ gateway.yaml:12:49
            12 │     filters: [ { policy: signed-in }, { plugin: geo } ]
               │                                                 ^^^ no plugin has this name
               = help: plugins are defined under `plugins:`

            error: route `other` sends to upstream `completely-different`, which does not exist
               ┌ gateway.yaml:13:15
            13 │     upstream: completely-different
               │               ^^^^^^^^^^^^^^^^^^^^ no upstream has this name
               = help: upstreams are defined under `upstreams:`

        "#]],
    );
}

#[test]
fn routes_that_tie_are_reported_with_both_places() {
    check(
        &format!(
            "{BASE}routes:
  - {{ name: one, match: {{ path: '/orders/{{id}}', methods: [GET] }}, upstream: origin }}
  - {{ name: two, match: {{ path: '/orders/{{order}}', methods: [PUT, GET] }}, upstream: origin }}
  - {{ name: two, match: {{ path: '/orders' }}, upstream: origin }}
"
        ),
        &expect![[r#"
            error: routes `one` and `two` fit the same requests equally well
              ┌ gateway.yaml:6:33
            6 │   - { name: two, match: { path: '/orders/{order}', methods: [PUT, GET] }, upstream: origin }
              │                                 ^^^^^^^^^^^^^^^^^ for `/orders/{order}` on any host, they share a method and neither has header or query conditions
              ┌ gateway.yaml:5:33
            5 │   - { name: one, match: { path: '/orders/{id}', methods: [GET] }, upstream: origin }
              │                                 ^^^^^^^^^^^^^^ the other is here
              = help: file order never decides: tell them apart by method, header or query parameter, or remove one

            error: two routes are called `two`
              ┌ gateway.yaml:7:13
            7 │   - { name: two, match: { path: '/orders' }, upstream: origin }
              │             ^^^ used again here
              ┌ gateway.yaml:6:13
            6 │   - { name: two, match: { path: '/orders/{order}', methods: [PUT, GET] }, upstream: origin }
              │             ^^^ first used here
              = help: names tell routes apart in logs and metrics: rename one

        "#]],
    );
}

#[test]
fn a_route_with_a_broken_condition_is_not_called_a_tie_as_well() {
    check(
        &format!(
            "{BASE}routes:
  - {{ name: one, match: {{ path: /a, methods: [get] }}, upstream: origin }}
  - {{ name: two, match: {{ path: /a, headers: {{ 'x y': z }} }}, upstream: origin }}
  - {{ name: three, match: {{ path: /a, hosts: ['a:80'] }}, upstream: origin }}
  - {{ name: four, match: {{ path: a }}, upstream: origin }}
  - {{ name: five, match: {{ path: /a }}, upstream: origin }}
"
        ),
        &expect![[r#"
            error: `routes[0].match.methods[0]` is not an HTTP method
              ┌ gateway.yaml:5:47
            5 │   - { name: one, match: { path: /a, methods: [get] }, upstream: origin }
              │                                               ^^^ methods are written in capitals: `GET`
              = help: write it like `GET`, `POST`

            error: `x y` is not the name of a header field
              ┌ gateway.yaml:6:48
            6 │   - { name: two, match: { path: /a, headers: { 'x y': z } }, upstream: origin }
              │                                                ^^^^^ it has characters that no name has

            error: `a:80` is not a host
              ┌ gateway.yaml:7:47
            7 │   - { name: three, match: { path: /a, hosts: ['a:80'] }, upstream: origin }
              │                                               ^^^^^^ a host has no port or scheme here: the port of a request is not compared

            error: `a` is not a path pattern
              ┌ gateway.yaml:8:34
            8 │   - { name: four, match: { path: a }, upstream: origin }
              │                                  ^ a path begins with `/`

        "#]],
    );
}

#[test]
fn a_host_belongs_to_one_tenant() {
    check(
        &format!(
            "{BASE}tenants:
  acme:
    hosts: [acme.test, ACME.test, '*.shop.test']
    routes: [ {{ name: a, match: {{ path: /, hosts: [api.acme.test, a.shop.test] }}, upstream: origin }} ]
  globex:
    hosts: [acme.test., '*', 'b.shop.test', 'x.*.test']
routes:
  - {{ name: a, match: {{ path: /, hosts: [acme.test, other.test] }}, upstream: origin }}
"
        ),
        &expect![[r#"
            error: host `ACME.test` is named twice by tenant `acme`
              ┌ gateway.yaml:6:24
            6 │     hosts: [acme.test, ACME.test, '*.shop.test']
              │                        ^^^^^^^^^ claimed again
              ┌ gateway.yaml:6:13
            6 │     hosts: [acme.test, ACME.test, '*.shop.test']
              │             ^^^^^^^^^ claimed here
              = help: a host belongs to one tenant; a more specific host inside another's wildcard is fine

            error: host `acme.test.` belongs to both tenant `globex` and tenant `acme`
              ┌ gateway.yaml:9:13
            9 │     hosts: [acme.test., '*', 'b.shop.test', 'x.*.test']
              │             ^^^^^^^^^^ claimed again
              ┌ gateway.yaml:6:13
            6 │     hosts: [acme.test, ACME.test, '*.shop.test']
              │             ^^^^^^^^^ claimed here
              = help: a host belongs to one tenant; a more specific host inside another's wildcard is fine

            error: tenant `globex` cannot own every host
              ┌ gateway.yaml:9:25
            9 │     hosts: [acme.test., '*', 'b.shop.test', 'x.*.test']
              │                         ^^^ these are the hosts that no tenant owns
              = help: name the tenant's hosts, or put its routes under `routes:` at the top

            error: `x.*.test` is not a host
              ┌ gateway.yaml:9:45
            9 │     hosts: [acme.test., '*', 'b.shop.test', 'x.*.test']
              │                                             ^^^^^^^^^^ `*` stands for whole labels at the front: `*.example.com`, or `*` alone for any host

            error: route `a` names host `acme.test`, which belongs to tenant `acme`
               ┌ gateway.yaml:11:42
            11 │   - { name: a, match: { path: /, hosts: [acme.test, other.test] }, upstream: origin }
               │                                          ^^^^^^^^^ no request for it would come here
               = help: put the route into the tenant

        "#]],
    );
}

#[test]
fn a_tenants_names_are_its_own() {
    check(
        &format!(
            "{BASE}tenants:
  acme:
    hosts: [acme.test]
    upstreams: {{ private: {{ endpoints: ['127.0.0.1:9002'] }} }}
    policies: {{ mine: [] }}
  globex:
    hosts: [globex.test]
    filters: [ {{ policy: mine }} ]
    routes: [ {{ name: a, match: {{ path: / }}, upstream: private }} ]
filters: [ {{ policy: mine }} ]
"
        ),
        &expect![[r#"
            error: this filter uses policy `mine`, which belongs to tenant `acme`
               ┌ gateway.yaml:11:26
            11 │     filters: [ { policy: mine } ]
               │                          ^^^^ only `acme` can use it
               ┌ gateway.yaml:8:17
             8 │     policies: { mine: [] }
               │                 ^^^^ defined here
               = help: define it under `policies:` at the top to share it with every tenant

            error: route `a` sends to upstream `private`, which belongs to tenant `acme`
               ┌ gateway.yaml:12:56
            12 │     routes: [ { name: a, match: { path: / }, upstream: private } ]
               │                                                        ^^^^^^^ only `acme` can use it
               ┌ gateway.yaml:7:18
             7 │     upstreams: { private: { endpoints: ['127.0.0.1:9002'] } }
               │                  ^^^^^^^ defined here
               = help: define it under `upstreams:` at the top to share it with every tenant

            error: this filter uses policy `mine`, which belongs to tenant `acme`
               ┌ gateway.yaml:13:22
            13 │ filters: [ { policy: mine } ]
               │                      ^^^^ only `acme` can use it
               ┌ gateway.yaml:8:17
             8 │     policies: { mine: [] }
               │                 ^^^^ defined here
               = help: define it under `policies:` at the top to share it with every tenant

        "#]],
    );
}

#[test]
fn a_port_is_listened_on_once() {
    check(
        r#"
version: 1
admin: { bind: "127.0.0.1:8080" }
listeners:
  a: { bind: "0.0.0.0:8080" }
  b: { bind: "0.0.0.0:8081" }
  c: { bind: "[::1]:8081" }
  d: { bind: "127.0.0.1:0" }
  e: { bind: "127.0.0.1:0" }
"#,
        &expect![[r#"
            error: `admin` and listener `a` listen on the same port
              ┌ gateway.yaml:3:16
            3 │ admin: { bind: "127.0.0.1:8080" }
              │                ^^^^^^^^^^^^^^^^ taken already
              ┌ gateway.yaml:5:14
            5 │   a: { bind: "0.0.0.0:8080" }
              │              ^^^^^^^^^^^^^^ taken here
              = help: give one of them another port

        "#]],
    );
}

#[test]
fn filters_can_be_skipped_only_where_they_are_optional() {
    check(
        &format!(
            "{BASE}policies:
  free: []
  nested: [ {{ policy: free }} ]
  named: [ {{ plugin: nothing, optional: true, name: x }} ]
filters: [ {{ policy: free, config: 1 }} ]
routes:
  - {{ name: a, match: {{ path: / }}, upstream: origin, skip: [limit] }}
"
        ),
        &expect![[r#"
            error: `policy` does not work inside a policy
              ┌ gateway.yaml:6:23
            6 │   nested: [ { policy: free } ]
              │                       ^^^^ a policy is a list of plugins
              = help: write the plugins of the other policy here

            error: this filter uses plugin `nothing`, which does not exist
              ┌ gateway.yaml:7:22
            7 │   named: [ { plugin: nothing, optional: true, name: x } ]
              │                      ^^^^^^^ no plugin has this name
              = help: plugins are defined under `plugins:`

            error: `optional` does not work inside a policy
              ┌ gateway.yaml:7:41
            7 │   named: [ { plugin: nothing, optional: true, name: x } ]
              │                                         ^^^^ a policy is a list of plugins
              = help: write it where the policy is used

            error: `name` does not work inside a policy
              ┌ gateway.yaml:7:53
            7 │   named: [ { plugin: nothing, optional: true, name: x } ]
              │                                                     ^ a policy is a list of plugins
              = help: write it where the policy is used

            error: a policy takes no `config`
              ┌ gateway.yaml:8:36
            8 │ filters: [ { policy: free, config: 1 } ]
              │                                    ^
              = help: its filters have theirs where the policy is defined

            error: route `a` skips filter `limit`, which does not exist
               ┌ gateway.yaml:10:61
            10 │   - { name: a, match: { path: / }, upstream: origin, skip: [limit] }
               │                                                             ^^^^^ no filter of an outer level has this name

        "#]],
    );
}

/// `(right, wrong, what is said)`: the parts of one file, each of which can be wrong by itself.
const PARTS: [(&str, &str, &str); 10] = [
    ("version: 1", "version: 3", "`version` must be 1"),
    ("listeners: { a: { bind: '127.0.0.1:0' } }", "listeners: { a: { bind: nowhere } }", "`listeners.a.bind` is not"),
    (
        "upstreams: { o: { endpoints: ['o:1'] } }",
        "upstreams: { o: { endpoint: [], endpoints: ['o:1'] } }",
        "unknown key",
    ),
    ("plugins: {}", "plugins: { p: { module: 'builtin:nothing' } }", "no plugin `nothing` comes with"),
    ("policies: {}", "policies: { l: [ { plugin: q } ] }", "this filter uses plugin `q`"),
    (
        "tenants: { t: { hosts: [t.test] } }",
        "tenants: { t: { hosts: [t.test, 't.test:80'] } }",
        "`t.test:80` is not a host",
    ),
    ("routes:", "routes:\n- { name: x, match: { path: /x }, upstream: u }", "sends to upstream `u`"),
    (
        "- { name: b, match: { path: /b }, upstream: o }",
        "- { match: { path: /b }, upstream: o }",
        "`name` is missing in",
    ),
    (
        "- { name: c, match: { path: /c }, upstream: o }",
        "- { name: c, match: { path: c }, upstream: o }",
        "`c` is not a path pattern",
    ),
    (
        "- { name: d, match: { path: /d }, upstream: o }",
        "- { name: d, match: { path: '/d%' }, upstream: o, timeout: 1 }",
        "`/d%` is not a path pattern",
    ),
];

#[test]
fn whichever_five_parts_of_a_file_are_wrong_each_is_reported() {
    for wrong in (0_u32..1 << PARTS.len()).filter(|wrong| wrong.count_ones() == 5) {
        let is_wrong = |index: usize| wrong >> index & 1 == 1;
        let lines = PARTS.iter().enumerate().map(|(index, (right, bad, _))| if is_wrong(index) { bad } else { right });
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let said = render(&from_text(Path::new("gateway.yaml"), &text).unwrap_err());
        for (index, (.., message)) in PARTS.iter().enumerate() {
            assert_eq!(said.contains(message), is_wrong(index), "{message}\n\n{text}\n\n{said}");
        }
    }
}

#[test]
fn a_service_of_the_gateway_is_for_filters_and_for_no_route() {
    check(
        r#"
version: 1
listeners: { a: { bind: "127.0.0.1:0" } }
services: { rate_limit: {} }
upstreams: { limits: { service: rate_limit } }
routes: [{ name: all, match: { path: "/*" }, upstream: limits }]
"#,
        &expect![[r#"
            error: route `all` sends requests to `limits`, which is a service for filters
              ┌ gateway.yaml:6:56
            6 │ routes: [{ name: all, match: { path: "/*" }, upstream: limits }]
              │                                                        ^^^^^^ it has no endpoints
              = help: a filter names it in its settings, as in `global: { upstream: … }`; clients reach the service by `services.rate_limit.bind`

        "#]],
    );
}
