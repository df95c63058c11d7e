//! The forms for Kubernetes, as files.

use std::fs;

use super::everything;
use crate::workshop::says;

#[test]
fn both_forms_are_written_with_the_modules_to_push() {
    for (format, file, kinds) in [
        ("istio", "istio.yaml", &["WasmPlugin"][..]),
        ("envoy-gateway", "envoy-gateway.yaml", &["Backend", "HTTPRoute", "EnvoyExtensionPolicy"]),
    ] {
        let files = everything();
        let args = ["export", "envoy", "portcullis.yaml", "--out", "out", "--format", format, "--registry", "r.test/p"];
        let said = says(&files.path(""), &args, true);
        let text = fs::read_to_string(files.path("out").join(file)).unwrap();
        for kind in kinds {
            assert!(text.contains(&format!("kind: {kind}\n")), "{kind}: {text}");
        }
        assert!(text.contains("r.test/p/banner:"), "{text}");
        assert!(said.contains("push plugins/banner-") && said.contains("lost: timeouts, retries"), "{said}");
        assert!(!text.contains("a-secret-that-nobody-may-see"), "{text}");
        let modules = fs::read_dir(files.path("out/plugins")).unwrap().count();
        assert_eq!(modules, 2, "{said}");
    }
}
