//! The README's plugin and its configuration, built and run as they are printed.

use std::fs;
use std::path::Path;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::built;
use portcullis_tests::origin::Origin;

/// The first fenced block of a language.
fn block(readme: &str, language: &str) -> String {
    let start = format!("```{language}\n");
    let (_, rest) = readme.split_once(&start).unwrap_or_else(|| panic!("the README has no {language} block"));
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_plugin_in_the_readme_builds_and_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let manifest = block(&readme, "toml");
    let package = tempfile::tempdir().unwrap();
    fs::create_dir(package.path().join("src")).unwrap();
    fs::write(package.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(package.path().join("src/lib.rs"), block(&readme, "rust")).unwrap();
    let Some(module) = built(&package.path().join("Cargo.toml"), "hello") else { return };
    let origin = Origin::plain();
    let mut config = block(&readme, "yaml");
    for (printed, here) in [
        ("127.0.0.1:8080", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:9000", origin.to_string()),
        ("file:hello.wasm", format!("file:{}", module.display())),
    ] {
        assert!(config.contains(printed), "{config}");
        config = config.replace(printed, &here);
    }
    let gateway = Gateway::start(&config, &[]);
    let answer = gateway.get("/");
    assert_eq!((answer.status(), answer.get("x-hello")), (200, Some(r#"{"name":"world"}"#)));
}
