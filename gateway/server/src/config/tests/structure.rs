//! What is said about keys, types and values.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use expect_test::expect;

use super::check;

#[test]
fn every_problem_of_a_file_is_reported_at_once() {
    check(
        r#"
version: 1
listners: { public: { bind: "127.0.0.1:8080" } }
listeners: { public: { bind: "localhost:8080", tls: { certificates: [] } } }
upstreams:
  payment: { endpoints: ["127.0.0.1:9001"], balance: leastrequests, timeouts: { connect: 5 } }
plugins:
  geo: { module: "file:plugins/geo.wasm", limits: { memory: 16MB, cpu: 5ms } }
filters:
  - { plugin: goe }
routes:
  - name: checkout
    match: { path: /checkout, methods: [get] }
    upstream: payments
    timeout: 5sec
"#,
        &expect![[r#"
            error: unknown key `listners`
              ┌ gateway.yaml:3:1
            3 │ listners: { public: { bind: "127.0.0.1:8080" } }
              │ ^^^^^^^^ no such key
              = help: `listeners` is close

            error: `listeners.public.bind` is not an IP address and a port
              ┌ gateway.yaml:4:30
            4 │ listeners: { public: { bind: "localhost:8080", tls: { certificates: [] } } }
              │                              ^^^^^^^^^^^^^^^^ `localhost` is not an IP address
              = help: write it like `0.0.0.0:8080`, `127.0.0.1:9901`, `[::1]:8080`

            error: `listeners.public.tls.certificates` is empty
              ┌ gateway.yaml:4:69
            4 │ listeners: { public: { bind: "localhost:8080", tls: { certificates: [] } } }
              │                                                                     ^^ at least one is needed

            error: `upstreams.payment.balance` cannot be `leastrequests`
              ┌ gateway.yaml:6:54
            6 │   payment: { endpoints: ["127.0.0.1:9001"], balance: leastrequests, timeouts: { connect: 5 } }
              │                                                      ^^^^^^^^^^^^^
              = help: `least_requests` is close

            error: `upstreams.payment.timeouts.connect` must be a duration
              ┌ gateway.yaml:6:90
            6 │   payment: { endpoints: ["127.0.0.1:9001"], balance: leastrequests, timeouts: { connect: 5 } }
              │                                                                                          ^ this is a number
              = help: write it like `5s`, `250ms`, `2m`, `1h`

            error: the module `plugins/geo.wasm` of plugin `geo` cannot be read
              ┌ gateway.yaml:8:18
            8 │   geo: { module: "file:plugins/geo.wasm", limits: { memory: 16MB, cpu: 5ms } }
              │                  ^^^^^^^^^^^^^^^^^^^^^^^ there is no such file
              = help: paths start from the directory of the file they are written in: `.`

            error: `plugins.geo.limits.memory` is not a size
              ┌ gateway.yaml:8:61
            8 │   geo: { module: "file:plugins/geo.wasm", limits: { memory: 16MB, cpu: 5ms } }
              │                                                             ^^^^ `MB` is not one of the units `B`, `KiB`, `MiB`, `GiB`
              = help: write it like `16MiB`, `64KiB`, `1GiB`

            error: this filter uses plugin `goe`, which does not exist
               ┌ gateway.yaml:10:15
            10 │   - { plugin: goe }
               │               ^^^ no plugin has this name
               = help: `geo` is close, defined at gateway.yaml:8:3

            error: `routes[0].match.methods[0]` is not an HTTP method
               ┌ gateway.yaml:13:41
            13 │     match: { path: /checkout, methods: [get] }
               │                                         ^^^ methods are written in capitals: `GET`
               = help: write it like `GET`, `POST`

            error: route `checkout` sends to upstream `payments`, which does not exist
               ┌ gateway.yaml:14:15
            14 │     upstream: payments
               │               ^^^^^^^^ no upstream has this name
               = help: `payment` is close, defined at gateway.yaml:6:3

            error: `routes[0].timeout` is not a duration
               ┌ gateway.yaml:15:14
            15 │     timeout: 5sec
               │              ^^^^ `sec` is not one of the units `us`, `ms`, `s`, `m`, `h`
               = help: write it like `5s`, `250ms`, `2m`, `1h`

        "#]],
    );
}

#[test]
fn what_must_be_written_and_is_not_is_reported_with_what_it_is_for() {
    check(
        r"
version: 2
listeners: {}
upstreams:
  a: {}
  b:
  c: { endpoints: [] }
tenants:
  acme:
    routes:
      - { name: '', upstream: a }
filters:
  - { config: {} }
  - { plugin: a, policy: b }
admin:
",
        &expect![[r#"
            error: `version` must be 1
              ┌ gateway.yaml:2:10
            2 │ version: 2
              │          ^ this is 2

            error: `listeners` is empty
              ┌ gateway.yaml:3:1
            3 │ listeners: {}
              │ ^^^^^^^^^ at least one is needed

            error: `upstreams.a` needs `endpoints` or `service`
              ┌ gateway.yaml:5:3
            5 │   a: {}
              │   ^ neither is here

            error: `upstreams.b` has no value
              ┌ gateway.yaml:6:3
            6 │   b:
              │   ^ a mapping is needed
              = help: A group of equal origins

            error: `upstreams.c.endpoints` is empty
              ┌ gateway.yaml:7:19
            7 │   c: { endpoints: [] }
              │                   ^^ at least one is needed

            error: `hosts` is missing in `tenants.acme`
              ┌ gateway.yaml:9:3
            9 │   acme:
              │   ^^^^ needed here
              = help: `hosts`: The hosts that belong to this tenant and to no other

            error: `match` is missing in `tenants.acme.routes[0]`
               ┌ gateway.yaml:11:9
            11 │       - { name: '', upstream: a }
               │         ^^^^^^^^^^^^^^^^^^^^^^^^^ needed here
               = help: `match`: The requests that fit

            error: `tenants.acme.routes[0].name` is empty
               ┌ gateway.yaml:11:17
            11 │       - { name: '', upstream: a }
               │                 ^^ a text is needed

            error: `filters[0]` needs `plugin` or `policy`
               ┌ gateway.yaml:13:5
            13 │   - { config: {} }
               │     ^^^^^^^^^^^^^^ neither is here

            error: this filter uses plugin `a`, which does not exist
               ┌ gateway.yaml:14:15
            14 │   - { plugin: a, policy: b }
               │               ^ no plugin has this name
               = help: plugins are defined under `plugins:`

            error: `filters[1]` is either `plugin` or `policy`, not both
               ┌ gateway.yaml:14:18
            14 │   - { plugin: a, policy: b }
               │                  ^^^^^^ this one too
               ┌ gateway.yaml:14:7
            14 │   - { plugin: a, policy: b }
               │       ^^^^^^ one is here

        "#]],
    );
}

#[test]
fn an_empty_file_says_what_is_needed() {
    check(
        "",
        &expect![[r#"
        error: `version` is missing
          ┌ gateway.yaml:1:1
          │ needed here
          = help: `version`: The version of this format

        error: `listeners` is missing
          ┌ gateway.yaml:1:1
          │ needed here
          = help: `listeners`: The addresses that requests are accepted on, by name

    "#]],
    );
    check(
        "# nothing\n",
        &expect![[r#"
        error: `version` is missing
          ┌ gateway.yaml:1:1
        1 │ # nothing
          │ ^ needed here
          = help: `version`: The version of this format

        error: `listeners` is missing
          ┌ gateway.yaml:1:1
        1 │ # nothing
          │ ^ needed here
          = help: `listeners`: The addresses that requests are accepted on, by name

    "#]],
    );
}

#[test]
fn a_file_that_is_not_a_mapping_says_so() {
    check(
        "- a\n",
        &expect![[r#"
        error: a configuration must be a mapping
          ┌ gateway.yaml:1:1
        1 │ - a
          │ ^^^ this is a list

    "#]],
    );
    check(
        "hello\n",
        &expect![[r#"
        error: a configuration must be a mapping
          ┌ gateway.yaml:1:1
        1 │ hello
          │ ^^^^^ this is a string

    "#]],
    );
}

#[test]
fn values_of_the_wrong_type_are_reported() {
    check(
        r#"
version: "1"
listeners: [ { bind: "127.0.0.1:1" } ]
upstreams: { a: { endpoints: "127.0.0.1:9001" }, b: { endpoints: { x: 1 } }, c: [] }
filters:
  - { plugin: x, optional: maybe }
  - limit
tenants: { acme: { hosts: [7], limits: { in_flight: 0, requests: 500, cpu: 100ms, memory: -1 } } }
routes:
  - { name: 1, match: { path: /, headers: { x-beta: 1 }, query: { v: true } }, upstream: a, timeout: 1.5 }
"#,
        &expect![[r#"
            error: `version` must be a whole number
              ┌ gateway.yaml:2:10
            2 │ version: "1"
              │          ^^^ this is a string

            error: `listeners` must be a mapping
              ┌ gateway.yaml:3:12
            3 │ listeners: [ { bind: "127.0.0.1:1" } ]
              │            ^^^^^^^^^^^^^^^^^^^^^^^^^^^ this is a list

            error: `upstreams.a.endpoints` must be a list
              ┌ gateway.yaml:4:30
            4 │ upstreams: { a: { endpoints: "127.0.0.1:9001" }, b: { endpoints: { x: 1 } }, c: [] }
              │                              ^^^^^^^^^^^^^^^^ this is a string

            error: `upstreams.b.endpoints` must be a list
              ┌ gateway.yaml:4:66
            4 │ upstreams: { a: { endpoints: "127.0.0.1:9001" }, b: { endpoints: { x: 1 } }, c: [] }
              │                                                                  ^^^^^^^^ this is a mapping
              = help: begin each item with `- `, or put it in `[…]`

            error: `upstreams.c` must be a mapping
              ┌ gateway.yaml:4:81
            4 │ upstreams: { a: { endpoints: "127.0.0.1:9001" }, b: { endpoints: { x: 1 } }, c: [] }
              │                                                                                 ^^ this is a list

            error: this filter uses plugin `x`, which does not exist
              ┌ gateway.yaml:6:15
            6 │   - { plugin: x, optional: maybe }
              │               ^ no plugin has this name
              = help: plugins are defined under `plugins:`

            error: `filters[0].optional` must be `true` or `false`
              ┌ gateway.yaml:6:28
            6 │   - { plugin: x, optional: maybe }
              │                            ^^^^^ this is a string

            error: `filters[1]` must be a mapping
              ┌ gateway.yaml:7:5
            7 │   - limit
              │     ^^^^^ this is a string

            error: `tenants.acme.hosts[0]` must be a string
              ┌ gateway.yaml:8:28
            8 │ tenants: { acme: { hosts: [7], limits: { in_flight: 0, requests: 500, cpu: 100ms, memory: -1 } } }
              │                            ^ this is a number
              = help: put it in quotes to make it a string

            error: `tenants.acme.limits.in_flight` must be a whole number from 1 on
              ┌ gateway.yaml:8:53
            8 │ tenants: { acme: { hosts: [7], limits: { in_flight: 0, requests: 500, cpu: 100ms, memory: -1 } } }
              │                                                     ^ this is 0

            error: `tenants.acme.limits.requests` must be a rate
              ┌ gateway.yaml:8:66
            8 │ tenants: { acme: { hosts: [7], limits: { in_flight: 0, requests: 500, cpu: 100ms, memory: -1 } } }
              │                                                                  ^^^ this is a number
              = help: write it like `500/s`, `1000/m`, `20/h`

            error: `tenants.acme.limits.cpu` is not a share of processor time
              ┌ gateway.yaml:8:76
            8 │ tenants: { acme: { hosts: [7], limits: { in_flight: 0, requests: 500, cpu: 100ms, memory: -1 } } }
              │                                                                            ^^^^^ it does not end in `/s`
              = help: write it like `100ms/s`, `2s/s`

            error: `tenants.acme.limits.memory` must be a size
              ┌ gateway.yaml:8:91
            8 │ tenants: { acme: { hosts: [7], limits: { in_flight: 0, requests: 500, cpu: 100ms, memory: -1 } } }
              │                                                                                           ^^ this is a number
              = help: write it like `16MiB`, `64KiB`, `1GiB`

            error: `routes[0].name` must be a string
               ┌ gateway.yaml:10:13
            10 │   - { name: 1, match: { path: /, headers: { x-beta: 1 }, query: { v: true } }, upstream: a, timeout: 1.5 }
               │             ^ this is a number
               = help: put it in quotes to make it a string

            error: `routes[0].match.headers.x-beta` must be a string
               ┌ gateway.yaml:10:53
            10 │   - { name: 1, match: { path: /, headers: { x-beta: 1 }, query: { v: true } }, upstream: a, timeout: 1.5 }
               │                                                     ^ this is a number
               = help: put it in quotes to make it a string

            error: `routes[0].match.query.v` must be a string
               ┌ gateway.yaml:10:70
            10 │   - { name: 1, match: { path: /, headers: { x-beta: 1 }, query: { v: true } }, upstream: a, timeout: 1.5 }
               │                                                                      ^^^^ this is `true` or `false`
               = help: put it in quotes to make it a string

            error: `routes[0].timeout` must be a duration
               ┌ gateway.yaml:10:102
            10 │   - { name: 1, match: { path: /, headers: { x-beta: 1 }, query: { v: true } }, upstream: a, timeout: 1.5 }
               │                                                                                                      ^^^ this is a number
               = help: write it like `5s`, `250ms`, `2m`, `1h`

        "#]],
    );
}
