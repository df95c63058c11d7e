//! What is said about files: configuration in several of them, modules, secrets.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use expect_test::expect;

use super::{BASE, Folder, check};

#[test]
fn modules_are_looked_for_beside_the_file_and_compared_with_their_digest() {
    let zeros = "0".repeat(64);
    let folder = Folder::new(&[
        (
            "gateway.yaml",
            &format!(
                "{BASE}plugins:
  missing: {{ module: 'file:plugins/missing.wasm' }}
  folder: {{ module: 'file:plugins' }}
  other: {{ module: 'file:plugins/a.wasm', sha256: '{zeros}' }}
  short: {{ module: 'file:plugins/a.wasm', sha256: 9f }}
  unknown: {{ module: 'builtin:rate-limits' }}
  neither: {{ module: auth }}
  limits: {{ module: 'file:plugins/a.wasm', limits: {{ memory: 100KiB, cpu: 10us }} }}
filters: [ {{ plugin: missing }}, {{ plugin: neither }} ]
"
            ),
        ),
        ("plugins/a.wasm", "\0asm"),
    ]);
    let said = folder.load(&["gateway.yaml"]).unwrap_err();
    let said = said.replace(&folder.0.path().display().to_string(), "HERE");
    expect![[r#"
        error: the module `plugins/missing.wasm` of plugin `missing` cannot be read
          ┌ gateway.yaml:5:22
        5 │   missing: { module: 'file:plugins/missing.wasm' }
          │                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^ there is no such file
          = help: paths start from the directory of the file they are written in: `HERE`

        error: the module `plugins` of plugin `folder` cannot be read
          ┌ gateway.yaml:6:21
        6 │   folder: { module: 'file:plugins' }
          │                     ^^^^^^^^^^^^^^ it is a directory
          = help: paths start from the directory of the file they are written in: `HERE`

        error: the module of plugin `other` has another digest
          ┌ gateway.yaml:7:51
        7 │   other: { module: 'file:plugins/a.wasm', sha256: '0000000000000000000000000000000000000000000000000000000000000000' }
          │                                                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this is not the digest of the module
          = help: the module that is there has cd5d4935a48c0672cb06407bb443bc0087aff947c6b864bac886982c73b3027f
          = help: if it was replaced on purpose, write its digest here

        error: `plugins.short.sha256` is not a SHA-256 digest, as `sha256sum` prints it
          ┌ gateway.yaml:8:51
        8 │   short: { module: 'file:plugins/a.wasm', sha256: 9f }
          │                                                   ^^ it has 2 characters, not 64

        error: no plugin `rate-limits` comes with the gateway
          ┌ gateway.yaml:9:22
        9 │   unknown: { module: 'builtin:rate-limits' }
          │                      ^^^^^^^^^^^^^^^^^^^^^ not a builtin
          = help: `rate-limit` is close

        error: `plugins.neither.module` is not a module
           ┌ gateway.yaml:10:22
        10 │   neither: { module: auth }
           │                      ^^^^ it begins with none of `builtin:`, `file:`, `oci://` and `https://`
           = help: write it like `builtin:auth`, `file:plugins/geo.wasm`, `oci://registry.example/acme/geo:1.4`, `https://modules.example/geo.wasm`

        error: a plugin's memory is a multiple of 64KiB, up to 4GiB
           ┌ gateway.yaml:11:62
        11 │   limits: { module: 'file:plugins/a.wasm', limits: { memory: 100KiB, cpu: 10us } }
           │                                                              ^^^^^^

        error: a plugin's processor time is at least 1ms
           ┌ gateway.yaml:11:75
        11 │   limits: { module: 'file:plugins/a.wasm', limits: { memory: 100KiB, cpu: 10us } }
           │                                                                           ^^^^ shorter times are not measured

    "#]].assert_eq(&said);
}

#[test]
fn secrets_that_cannot_be_read_are_reported_by_their_reference() {
    check(
        r#"
version: 1
listeners: { public: { bind: "${env:PORTCULLIS_TEST_UNSET}" } }
filters:
  - { plugin: x, config: { key: "${file:missing.key}", open: "a ${env:X" } }
"#,
        &expect![[r#"
            error: the secret `${env:PORTCULLIS_TEST_UNSET}` cannot be read: the variable is not set
              ┌ gateway.yaml:3:30
            3 │ listeners: { public: { bind: "${env:PORTCULLIS_TEST_UNSET}" } }
              │                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ needed here
              = help: set `PORTCULLIS_TEST_UNSET` in the environment of the gateway

            error: this filter uses plugin `x`, which does not exist
              ┌ gateway.yaml:5:15
            5 │   - { plugin: x, config: { key: "${file:missing.key}", open: "a ${env:X" } }
              │               ^ no plugin has this name
              = help: plugins are defined under `plugins:`

            error: the secret `${file:missing.key}` cannot be read: there is no such file
              ┌ gateway.yaml:5:33
            5 │   - { plugin: x, config: { key: "${file:missing.key}", open: "a ${env:X" } }
              │                                 ^^^^^^^^^^^^^^^^^^^^^ needed here

            error: `${env:X` has no closing brace
              ┌ gateway.yaml:5:62
            5 │   - { plugin: x, config: { key: "${file:missing.key}", open: "a ${env:X" } }
              │                                                              ^^^^^^^^^^^ needed here
              = help: write `$${` for a literal `${`

        "#]],
    );
}

#[test]
fn a_secret_is_never_shown_not_even_when_it_is_what_is_wrong() {
    let folder = Folder::new(&[
        (
            "gateway.yaml",
            "version: 1
listeners: { public: { bind: '${file:secret}', trusted_proxies: ['${file:secret}'] } }
upstreams:
  a: { endpoints: ['${file:secret}'], balance: '${file:secret}' }
plugins:
  p: { module: 'file:${file:secret}', sha256: '${file:secret}' }
tenants: { t: { hosts: ['${file:secret}'] } }
filters: [ { plugin: '${file:secret}' }, { policy: '${file:secret}' } ]
routes:
  - name: '${file:secret}'
    match: { path: '${file:secret}', hosts: ['${file:secret}'], methods: ['${file:secret}'] }
    upstream: '${file:secret}'
    skip: ['${file:secret}']
    timeout: '${file:secret}'
  - { name: '${file:secret}', match: { path: '/${file:word}' }, upstream: a }
  - { name: y, match: { path: '/${file:word}' }, upstream: a }
",
        ),
        ("secret", "hunter 2!\n"),
        ("word", "hunter2"),
    ]);
    let said = folder.load(&["gateway.yaml"]).unwrap_err();
    assert!(!said.contains("hunter"), "{said}");
    assert_eq!(said.matches("error: ").count(), 17, "{said}");
}

#[test]
fn files_are_merged_and_a_name_in_two_of_them_is_reported() {
    let folder = Folder::new(&[
        ("a.yaml", BASE),
        (
            "b.yaml",
            "version: 1\nfilters: []\nupstreams:\n  origin: { endpoints: ['127.0.0.1:9002'] }\n  more: { endpoints: [x] }\n",
        ),
        ("c.yml", "filters: []\nlisteners: [] \nadmin: { bind: '127.0.0.1:1' }\n"),
        ("d.yaml", "admin: { bind: '127.0.0.1:1' }\n"),
        ("ignored.txt", "nothing"),
    ]);
    folder.check(
        &["."],
        &expect![[r#"
        error: `origin` is defined twice
          ┌ ./b.yaml:4:3
        4 │   origin: { endpoints: ['127.0.0.1:9002'] }
          │   ^^^^^^ defined again here
          ┌ ./a.yaml:3:14
        3 │ upstreams: { origin: { endpoints: ["127.0.0.1:9001"] } }
          │              ^^^^^^ first defined here
          = help: remove or rename one of them

        error: `upstreams.more.endpoints[0]` is not a host and a port
          ┌ ./b.yaml:5:23
        5 │   more: { endpoints: [x] }
          │                       ^ it has no port
          = help: write it like `127.0.0.1:9001`, `orders.internal:80`, `[::1]:9001`

        error: `filters` stands in two files
          ┌ ./c.yml:1:1
        1 │ filters: []
          │ ^^^^^^^ also here
          ┌ ./b.yaml:2:1
        2 │ filters: []
          │ ^^^^^^^ it is here
          = help: their order matters, so the whole list stands in one place

        error: `listeners` is defined twice
          ┌ ./c.yml:2:1
        2 │ listeners: [] 
          │ ^^^^^^^^^ defined again here
          ┌ ./a.yaml:2:1
        2 │ listeners: { public: { bind: "127.0.0.1:0" } }
          │ ^^^^^^^^^ first defined here
          = help: remove or rename one of them

        error: `admin` is defined twice
          ┌ ./d.yaml:1:1
        1 │ admin: { bind: '127.0.0.1:1' }
          │ ^^^^^ defined again here
          ┌ ./c.yml:3:1
        3 │ admin: { bind: '127.0.0.1:1' }
          │ ^^^^^ first defined here
          = help: remove or rename one of them

    "#]],
    );
    folder.check(
        &["a.yaml", "missing.yaml"],
        &expect![[r#"
        error: `missing.yaml` cannot be read: there is no such file

    "#]],
    );
}

#[test]
fn what_cannot_be_read_is_reported_without_blaming_names_that_may_stand_in_it() {
    let gateway = format!(
        "{BASE}tenants: {{ acme: {{ hosts: [acme.test], include: tenants/acme }} }}
routes: [ {{ name: a, match: {{ path: /, host: x }}, upstream: maybe }} ]
"
    );
    let folder = Folder::new(&[("a.yaml", &gateway), ("b.yaml", "upstreams: {"), ("empty/a.txt", "")]);
    let said = folder.load(&["a.yaml", "b.yaml", "empty"]).unwrap_err();
    let said = said.replace(&folder.0.path().display().to_string(), "HERE");
    expect![[r#"
        error: `empty` cannot be read: the directory has no `.yaml` file

        error: `tenants/acme` cannot be read: there is no such file
          ┌ a.yaml:4:49
        4 │ tenants: { acme: { hosts: [acme.test], include: tenants/acme } }
          │                                                 ^^^^^^^^^^^^ included by tenant `acme`

        error: unknown key `host` in `routes[0].match`
          ┌ a.yaml:5:40
        5 │ routes: [ { name: a, match: { path: /, host: x }, upstream: maybe } ]
          │                                        ^^^^ no such key
          = help: `hosts` is close

        error: `b.yaml` is not valid YAML
          ┌ b.yaml:1:13
        1 │ upstreams: {
          │             ^ while parsing a node, did not find expected node content
          = help: is a bracket, brace or quote above not closed?

    "#]]
    .assert_eq(&said);
}

#[test]
fn a_tenants_own_files_stay_inside_their_directory() {
    let gateway = format!(
        "{BASE}tenants:
  acme: {{ hosts: [acme.test], include: tenants/acme, filters: [] }}
"
    );
    let folder = Folder::new(&[
        ("gateway.yaml", &gateway),
        ("secret", "hunter2"),
        (
            "tenants/acme/all.yaml",
            "hosts: [globex.test]
limits: { cpu: 1s/s }
plugins:
  theirs: { module: 'file:../globex/policy.wasm' }
  mine: { module: 'file:policy.wasm' }
filters:
  - { plugin: mine, config: '${file:../../secret}' }
  - { plugin: mine, config: '${env:HOME}' }
routes:
  - { name: a, match: { path: / }, upstream: origin }
  - { name: b, match: { path: / }, upstream: nowhere }
",
        ),
        ("tenants/acme/policy.wasm", ""),
        ("tenants/globex/policy.wasm", ""),
    ]);
    let said = folder.load(&["gateway.yaml"]).unwrap_err();
    let said = said.replace(&folder.0.path().display().to_string(), "HERE");
    expect![[r#"
        error: `hosts` cannot stand in a tenant's own files
          ┌ tenants/acme/all.yaml:1:1
        1 │ hosts: [globex.test]
          │ ^^^^^ only the gateway's files say this
          = help: write it where `include` is, under `tenants.acme`

        error: `limits` cannot stand in a tenant's own files
          ┌ tenants/acme/all.yaml:2:1
        2 │ limits: { cpu: 1s/s }
          │ ^^^^^^ only the gateway's files say this
          = help: write it where `include` is, under `tenants.acme`

        error: the module `../globex/policy.wasm` of plugin `theirs` cannot be read
          ┌ tenants/acme/all.yaml:4:21
        4 │   theirs: { module: 'file:../globex/policy.wasm' }
          │                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a tenant's own files may only name files below tenants/acme

        error: `filters` stands in two files
          ┌ tenants/acme/all.yaml:6:1
        6 │ filters:
          │ ^^^^^^^ also here
          ┌ gateway.yaml:5:54
        5 │   acme: { hosts: [acme.test], include: tenants/acme, filters: [] }
          │                                                      ^^^^^^^ it is here
          = help: their order matters, so the whole list stands in one place

        error: the secret `${file:../../secret}` cannot be read: a tenant's own files may only name files below tenants/acme
          ┌ tenants/acme/all.yaml:7:29
        7 │   - { plugin: mine, config: '${file:../../secret}' }
          │                             ^^^^^^^^^^^^^^^^^^^^^^ needed here

        error: the secret `${env:HOME}` cannot be read: a tenant's own files may not read the gateway's environment
          ┌ tenants/acme/all.yaml:8:29
        8 │   - { plugin: mine, config: '${env:HOME}' }
          │                             ^^^^^^^^^^^^^ needed here
          = help: use `${file:…}` with a file in the tenant's directory

        error: routes `a` and `b` fit the same requests equally well
           ┌ tenants/acme/all.yaml:11:31
        11 │   - { name: b, match: { path: / }, upstream: nowhere }
           │                               ^ for `/` on any host, neither names methods and neither has header or query conditions
           ┌ tenants/acme/all.yaml:10:31
        10 │   - { name: a, match: { path: / }, upstream: origin }
           │                               ^ the other is here
           = help: file order never decides: tell them apart by method, header or query parameter, or remove one

        error: route `b` sends to upstream `nowhere`, which does not exist
           ┌ tenants/acme/all.yaml:11:46
        11 │   - { name: b, match: { path: / }, upstream: nowhere }
           │                                              ^^^^^^^ no upstream has this name
           = help: upstreams are defined under `upstreams:`

    "#]].assert_eq(&said);
}
