//! What is shipped in `deploy/` fits the gateway and its surroundings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy").join(name)
}

#[test]
fn systemd_understands_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for name in ["portcullis.service", "portcullis.socket"] {
        // The program is not installed where the unit looks for it.
        let text = fs::read_to_string(shipped(name)).unwrap().replace("/usr/bin/portcullis", GATEWAY);
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        units.push(path);
    }
    let Ok(output) = Command::new("systemd-analyze").arg("verify").args(&units).output() else {
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("portcullis")).collect();
    assert!(about_ours.is_empty() && output.status.success(), "{said}");
}

#[test]
fn the_shipped_configuration_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.yaml");
    fs::copy(shipped("portcullis.yaml"), &path).unwrap();
    let output = Command::new(GATEWAY).arg("check").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // The same stands in the manifest, indented.
    let manifest = fs::read_to_string(shipped("kubernetes.yaml")).unwrap();
    let start = manifest.find("  portcullis.yaml: |\n").unwrap();
    let lines = manifest[start..].lines().skip(1).take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    fs::write(&path, &text).unwrap();
    let token = "an-admin-token-of-some-length";
    let output = Command::new(GATEWAY).arg("check").arg(&path).env("ADMIN_TOKEN", token).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
