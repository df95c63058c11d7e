//! What is said of a plugin beside its module.

use expect_test::expect;

use super::{BASE, Folder};

/// A module that says of itself that it holds heads back.
fn holding() -> String {
    let manifest = r#"{"manifest":1,"name":"a","version":"1","sdk":"1","holds_headers":true}"#;
    let size = char::from(u8::try_from(1 + "portcullis".len() + manifest.len()).unwrap());
    format!("\0asm\x01\0\0\0\0{size}\x0aportcullis{manifest}")
}

fn folder(plugin: &str) -> Folder {
    let text = format!("{BASE}plugins:\n  geo: {{ module: \"file:a.wasm\", {plugin} }}\n");
    Folder::new(&[("gateway.yaml", &text), ("a.wasm", &holding())])
}

#[test]
fn a_vm_is_configured_as_a_filter_is() {
    for (written, want) in [
        ("vm_config: { a: [1, x] }", "{\"a\":[1,\"x\"]}"),
        ("vm_config: 'a: 1'", "a: 1"),
        ("vm_id: x", ""),
        ("rollout: { candidate: 'file:a.wasm', percent: 1 }, vm_config: next, vm_id: x", "next"),
    ] {
        let (snapshot, _) =
            folder(&format!("allow_on_headers_stop_iteration: false, {written}")).load(&["gateway.yaml"]).unwrap();
        let plugin = &snapshot.gateway.plugins[0];
        assert_eq!(&*plugin.vm_config, want.as_bytes(), "{written}");
        assert_eq!(&*plugin.vm_id, if written.contains("vm_id") { "x" } else { "" }, "{written}");
        if let Some(rollout) = &plugin.rollout {
            let candidate = &rollout.candidate;
            assert_eq!((&candidate.vm_id, &candidate.vm_config), (&plugin.vm_id, &plugin.vm_config));
        }
    }
}

#[test]
fn a_module_that_is_told_what_the_gateway_holds_back_can_be_told_nothing_else() {
    folder("vm_config: mine").check(
        &["gateway.yaml"],
        &expect![[r#"
        error: plugin `geo` cannot have a `vm_config`
          ┌ gateway.yaml:5:44
        5 │   geo: { module: "file:a.wasm", vm_config: mine }
          │                                            ^^^^ the gateway tells its module there what it holds back
          = help: a filter of the SDK reads its settings from `config`

    "#]],
    );
}
