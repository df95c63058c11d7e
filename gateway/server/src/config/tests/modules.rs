//! What is said about modules on other machines, and about signatures. Nothing here is asked for over a network.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::expect;

use super::{BASE, Folder, check};

/// A pair of keys of this seed, and how its public half is written.
fn key(seed: u8) -> (Ed25519KeyPair, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = format!("ed25519:{}", STANDARD.encode(pair.public_key()));
    (pair, public)
}

#[test]
fn what_cannot_be_meant_is_refused_before_anybody_is_asked() {
    check(
        &format!(
            "{BASE}modules:
  refresh: often
  signed_by: [acme]
  registries:
    'https://registry.example': {{}}
    registry.example: {{ username: ci, password: secret }}
    other.example: {{ username: ci }}
plugins:
  untagged: {{ module: 'oci://registry.example/geo' }}
  climbing: {{ module: 'https://modules.example/a/../geo.wasm' }}
"
        ),
        &expect![[r#"
            error: `modules.refresh` is not a duration
              ┌ gateway.yaml:5:12
            5 │   refresh: often
              │            ^^^^^ it does not begin with a whole number
              = help: write it like `5s`, `250ms`, `2m`, `1h`

            error: `modules.signed_by[0]` is not an Ed25519 public key
              ┌ gateway.yaml:6:15
            6 │   signed_by: [acme]
              │               ^^^^ it begins with neither `ed25519:` nor `-----BEGIN`
              = help: write it like `ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=`, `${file:keys/acme.pub}`

            error: `https://registry.example` is no registry
              ┌ gateway.yaml:8:5
            8 │     'https://registry.example': {}
              │     ^^^^^^^^^^^^^^^^^^^^^^^^^^ `https://registry.example` is not a host, with or without a port
              = help: write it as references have it, without `oci://` or `https://`

            error: the registry's password stands in the configuration itself
              ┌ gateway.yaml:9:49
            9 │     registry.example: { username: ci, password: secret }
              │                                                 ^^^^^^ whoever reads the configuration has it
              = help: name where it is, as `${file:…}` or `${env:…}`

            error: `username` and `password` go together
               ┌ gateway.yaml:10:20
            10 │     other.example: { username: ci }
               │                    ^^^^^^^^^^^^^^^^ one of them is missing

            error: `plugins.untagged.module` is not a module
               ┌ gateway.yaml:12:23
            12 │   untagged: { module: 'oci://registry.example/geo' }
               │                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ it has neither a tag nor a digest
               = help: write it like `builtin:auth`, `file:plugins/geo.wasm`, `oci://registry.example/acme/geo:1.4`, `https://modules.example/geo.wasm`

            error: `plugins.climbing.module` is not a module
               ┌ gateway.yaml:13:23
            13 │   climbing: { module: 'https://modules.example/a/../geo.wasm' }
               │                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ its path has `.` or `..` in it, or an escaped dot or slash
               = help: write it like `builtin:auth`, `file:plugins/geo.wasm`, `oci://registry.example/acme/geo:1.4`, `https://modules.example/geo.wasm`

        "#]],
    );
}

#[test]
fn a_tenants_own_files_fetch_what_was_granted_to_it() {
    let gateway = format!(
        "{BASE}modules: {{ tenants: {{ from: ['oci://registry.example/shared/'] }} }}
tenants:
  acme: {{ hosts: [acme.test], include: acme }}
  globex: {{ hosts: [globex.test], include: globex, modules: {{ from: [] }} }}
"
    );
    let folder = Folder::new(&[
        ("gateway.yaml", &gateway),
        ("acme/a.yaml", "plugins: { p: { module: 'oci://registry.example/globex/geo:1' } }\n"),
        (
            "globex/a.yaml",
            "modules: { from: ['oci://registry.example/'] }\nplugins: { p: { module: 'https://modules.example/geo.wasm' } }\n",
        ),
    ]);
    folder.check(
        &["gateway.yaml"],
        &expect![[r#"
        error: the module `oci://registry.example/globex/geo:1` of plugin `p` cannot be fetched
          ┌ acme/a.yaml:1:25
        1 │ plugins: { p: { module: 'oci://registry.example/globex/geo:1' } }
          │                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ not granted to this tenant
          = help: this tenant may fetch what begins with `oci://registry.example/shared/`
          = help: operators grant it with `modules.from` under `tenants.acme`, or `modules.tenants.from`

        error: `modules` cannot stand in a tenant's own files
          ┌ globex/a.yaml:1:1
        1 │ modules: { from: ['oci://registry.example/'] }
          │ ^^^^^^^ only the gateway's files say this
          = help: write it where `include` is, under `tenants.globex`

        error: the module `https://modules.example/geo.wasm` of plugin `p` cannot be fetched
          ┌ globex/a.yaml:2:25
        2 │ plugins: { p: { module: 'https://modules.example/geo.wasm' } }
          │                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ not granted to this tenant
          = help: this tenant may fetch nothing
          = help: operators grant it with `modules.from` under `tenants.globex`, or `modules.tenants.from`

    "#]],
    );
}

#[test]
fn a_lock_file_holds_every_reference_of_its_directory_that_is_not_pinned() {
    let digest = "5e".repeat(32);
    let folder = Folder::new(&[
        ("gateway.yaml", &format!("{BASE}plugins: {{ p: {{ module: 'oci://registry.example/geo:1' }} }}\n")),
        (
            "portcullis.lock",
            &format!(
                "version: 1\nmodules: {{ 'oci://registry.example/geo:2': {{ module: 'sha256:{digest}', size: 4 }} }}\n"
            ),
        ),
        ("broken/gateway.yaml", &format!("{BASE}plugins: {{ p: {{ module: 'oci://registry.example/geo:1' }} }}\n")),
        ("broken/portcullis.lock", "version: 2\nmodules: {}\n"),
    ]);
    let here = folder.0.path().display().to_string();
    let said = |name: &str| folder.load(&[name]).unwrap_err().replace(&here, "HERE");
    expect![[r#"
        error: the module `oci://registry.example/geo:1` of plugin `p` cannot be fetched
          ┌ gateway.yaml:4:25
        4 │ plugins: { p: { module: 'oci://registry.example/geo:1' } }
          │                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ it is not in `portcullis.lock`
          = help: `portcullis plugin lock FILE…` adds it, given the files of the configuration
          = help: over the admin listener, `PUT /v1/tenants/NAME?lock=missing` does

        error: the module `oci://registry.example/geo:1` of plugin `p` cannot be fetched
          ┌ broken/gateway.yaml:4:25
        4 │ plugins: { p: { module: 'oci://registry.example/geo:1' } }
          │                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ `broken/portcullis.lock` cannot be read: its version is 2, not 1

    "#]].assert_eq(&(said("gateway.yaml") + &said("broken/gateway.yaml")));
}

#[test]
fn a_module_is_signed_by_a_key_of_its_owner() {
    let module = b"\0asm\x01\0\0\0";
    let (ours, our_key) = key(1);
    let (theirs, their_key) = key(2);
    let gateway = format!(
        "{BASE}modules: {{ signed_by: ['{our_key}'] }}
plugins: {{ signed: {{ module: 'file:ours.wasm' }}, bare: {{ module: 'file:bare.wasm' }} }}
tenants:
  acme: {{ hosts: [acme.test], include: acme, modules: {{ signed_by: ['${{file:acme.pub}}', '{our_key}'] }} }}
  globex: {{ hosts: [globex.test], include: globex, modules: {{ signed_by: ['{their_key}'] }} }}
  free: {{ hosts: [free.test], plugins: {{ p: {{ module: 'file:bare.wasm' }} }} }}
"
    );
    let own = "plugins: { p: { module: 'file:p.wasm' } }\n";
    let folder = Folder::new(&[
        ("gateway.yaml", &gateway),
        ("acme.pub", &format!("{their_key}\n")),
        ("acme/a.yaml", own),
        ("globex/a.yaml", own),
    ]);
    let signatures = [("ours", Some(&ours)), ("bare", None), ("acme/p", Some(&theirs)), ("globex/p", Some(&ours))];
    for (name, pair) in signatures {
        std::fs::write(folder.path(&format!("{name}.wasm")), module).unwrap();
        if let Some(pair) = pair {
            std::fs::write(folder.path(&format!("{name}.wasm.sig")), pair.sign(module)).unwrap();
        }
    }
    folder.check(&["gateway.yaml"], &expect![[r#"
        error: the module `file:bare.wasm` of plugin `bare` is not trusted
          ┌ gateway.yaml:5:66
        5 │ plugins: { signed: { module: 'file:ours.wasm' }, bare: { module: 'file:bare.wasm' } }
          │                                                                  ^^^^^^^^^^^^^^^^ it has no signature, and needs one by the key in `signed_by`
          = help: its signature lies beside it, with `.sig` after its name: `portcullis plugin sign` makes it

        error: the module `file:p.wasm` of plugin `p` is not trusted
          ┌ globex/a.yaml:1:25
        1 │ plugins: { p: { module: 'file:p.wasm' } }
          │                         ^^^^^^^^^^^^^ its signature is not by the key in `signed_by`, or is of another module
          = help: its signature lies beside it, with `.sig` after its name: `portcullis plugin sign` makes it

    "#]]);
}
