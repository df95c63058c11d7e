//! Every whole configuration that the documentation prints, started.

use portcullis_tests::gateway::Gateway;
use portcullis_tests::{docs, guests};

/// Modules that readers have and this repository has not. The one here takes any settings, and does nothing.
const READERS_OWN: &[&str] = &["file:hello.wasm", "file:plugins/guard.wasm", "oci://registry.example/plugins/geo:1.4"];

/// Files that readers have, whose contents count.
const READERS_FILES: &[(&str, &str)] =
    &[("${file:notes.base64}", include_str!("../../plugins/grpc-json/proto/notes.base64"))];

#[test]
fn every_configuration_in_the_documentation_starts() {
    let noop = format!("file:{}", guests::module("noop").display());
    let mut started = 0;
    for path in docs::pages() {
        let page = docs::page(&path.to_string_lossy());
        for printed in docs::configurations(&page) {
            let own = READERS_OWN.iter().filter(|own| printed.contains(*own));
            let files = READERS_FILES.iter().filter(|(file, _)| printed.contains(file));
            let places: Vec<_> = own.map(|own| (*own, noop.as_str())).chain(files.copied()).collect();
            if let Err(why) = Gateway::try_start(&docs::here(&printed, &places), &[]) {
                panic!("{}:\n{printed}\n{why}", path.display());
            }
            started += 1;
        }
    }
    assert!(started >= 2, "{started} configurations were found");
}
