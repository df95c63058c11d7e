//! What is shipped in `deploy/` fits the gateway and its surroundings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::metrics::promtool;

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

/// They are among `@resources`: without them, tenants that are set apart hold up everybody else.
#[test]
fn the_unit_gives_back_the_calls_by_which_threads_lower_their_priority() {
    let unit = fs::read_to_string(shipped("portcullis.service")).unwrap();
    let filters = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    // The first line decides that others are refused; after it, the last that names a call counts.
    let after_the_last_taken = filters.fold(String::new(), |after, names| match names.starts_with('~') {
        true => String::new(),
        false => format!("{after} {names}"),
    });
    let given: BTreeSet<&str> = after_the_last_taken.split_whitespace().collect();
    assert!(given.is_superset(&["setpriority", "sched_setscheduler"].into()), "{given:?}");
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

#[test]
fn what_a_pod_keeps_is_on_a_volume_that_can_be_written() {
    let manifest = fs::read_to_string(shipped("kubernetes.yaml")).unwrap();
    let mounts: Vec<(&str, &str)> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- { name: ")?.strip_suffix(" }")?.split_once(", mountPath: "))
        .collect();
    for flag in ["--cache=", "--keep="] {
        let folder = manifest.lines().find_map(|line| line.trim().strip_prefix("- ")?.strip_prefix(flag)).unwrap();
        let volume = mounts.iter().find_map(|(volume, mount)| folder.starts_with(mount).then_some(volume));
        let volume = volume.unwrap_or_else(|| panic!("{flag}{folder} is on none of {mounts:?}"));
        assert!(manifest.contains(&format!("        - name: {volume}\n          emptyDir:")), "{volume}");
    }
}

/// Words that begin like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("http_server_") || word.starts_with("portcullis_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn prometheus_understands_the_rules_and_the_alerts_fire() {
    let Some(promtool) = promtool() else { return };
    for (what, file) in [("check", "rules.yaml"), ("test", "tests.yaml")] {
        let file = shipped("prometheus").join(file);
        let output = Command::new(&promtool).args([what, "rules"]).arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn the_dashboard_and_the_rules_ask_for_metrics_that_there_are() {
    let dashboard = fs::read_to_string(shipped("grafana/portcullis.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 15);
    // The table of metrics, which a test of its own holds against the gateway, and labels beside them.
    let known = metrics_in(include_str!("../../docs/observability.md"));
    let asked = metrics_in(&(dashboard + &fs::read_to_string(shipped("prometheus/rules.yaml")).unwrap()));
    let plain = |name: &String| {
        let suffixes = ["_bucket", "_count", "_sum"];
        suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).is_some_and(|name| known.contains(name))
    };
    let unknown: Vec<&String> = asked.iter().filter(|name| !known.contains(*name) && !plain(name)).collect();
    // The pattern of the rule that looks for overflowing series.
    assert_eq!(unknown, ["portcullis_"]);
}
