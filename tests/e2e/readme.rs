//! The README's plugin and its configuration, built and run as they are printed.

use std::fs;

use portcullis_tests::docs;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::guests::built;
use portcullis_tests::origin::Origin;

#[test]
fn the_plugin_in_the_readme_builds_and_does_what_it_says() {
    let readme = docs::page("README.md");
    let block = |language| docs::blocks(&readme, language).remove(0);
    let package = tempfile::tempdir().unwrap();
    fs::create_dir(package.path().join("src")).unwrap();
    fs::write(package.path().join("Cargo.toml"), block("toml")).unwrap();
    fs::write(package.path().join("src/lib.rs"), block("rust")).unwrap();
    let Some(module) = built(&package.path().join("Cargo.toml"), "hello") else { return };
    let origin = Origin::plain();
    let module = format!("file:{}", module.display());
    let places = [("127.0.0.1:9000", origin.to_string()), ("file:hello.wasm", module)];
    let places = places.each_ref().map(|(printed, here)| (*printed, here.as_str()));
    let config = docs::here(&block("yaml"), &places);
    let gateway = Gateway::start(&config, &[]);
    let answer = gateway.get("/");
    assert_eq!((answer.status(), answer.get("x-hello")), (200, Some(r#"{"name":"world"}"#)));
}
