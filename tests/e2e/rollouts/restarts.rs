//! What was decided about a roll-out holds over a restart, for as long as the roll-out is the same.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use portcullis_tests::eventually;
use portcullis_tests::origin::Origin;
use portcullis_tests::process::{Process, Start, free_address};

use super::{ADMIN, GATEWAY, TOKEN, logged, tell, version};

fn start(origin: &Origin, admin: SocketAddr, keep: &Path, script: &str) -> Process {
    with_keep(Start::new(GATEWAY, ADMIN, &[("origin", origin), ("admin", &admin), ("script", &script)]), admin, keep)
}

fn with_keep(start: Start, admin: SocketAddr, keep: &Path) -> Process {
    start.admin_at(admin).variable("ADMIN_TOKEN", TOKEN).argument("--keep").argument(keep.to_str().unwrap()).start()
}

/// Where the roll-out stands, and why.
fn stands(process: &Process) -> (String, Option<String>) {
    let (_, told) = tell(process, "GET", "/v1/rollouts");
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    (text(&told["rollouts"][0]["state"]).unwrap(), text(&told["rollouts"][0]["decided"]["why"]))
}

/// The versions that answer, on connections to either worker.
fn seen(process: &Process) -> Vec<&'static str> {
    let mut seen: Vec<_> =
        (0..20).map(|_| version(&process.client().ask("GET", "/", &[("host", "acme.test")], ""))).collect();
    seen.dedup();
    seen
}

fn is_whole(file: std::io::Result<fs::DirEntry>) -> bool {
    file.is_ok_and(|file| file.path().extension().is_some_and(|extension| extension == "json"))
}

#[test]
fn what_was_decided_holds_after_a_restart_until_the_rollout_is_another() {
    let (origin, admin, folder) = (Origin::plain(), free_address(), tempfile::tempdir().unwrap());
    let again = |process: Process, signal: &str| {
        process.signal(signal);
        with_keep(process.again(GATEWAY), admin, folder.path())
    };
    let process = start(&origin, admin, folder.path(), "trap");
    assert_eq!(process.client().ask("GET", "/", &[("host", "acme.test")], "").status(), 503);
    let is_kept = || fs::read_dir(folder.path().join("rollouts")).is_ok_and(|mut files| files.any(is_whole));
    eventually("the decision is on the disk", is_kept);
    let process = again(process, "TERM");
    let why = || Some("the candidate failed in 1 exchange".to_owned());
    assert_eq!((stands(&process), seen(&process)), (("aborted".to_owned(), why()), vec!["current"]));
    logged(&process, &["a roll-out stays aborted, as was decided before: the candidate failed in 1 exchange", "acme"]);
    assert!(!process.log().contains("nothing keeps"), "{}", process.log());

    let other = |process: &Process, script: &str| {
        process.configure(ADMIN, &[("origin", &origin), ("admin", &admin), ("script", &script)]);
        assert_eq!(
            process.ask_admin("POST", "/reload", &[("authorization", &format!("Bearer {TOKEN}"))]).status(),
            200
        );
    };
    other(&process, "");
    assert_eq!((stands(&process), seen(&process)), (("running".to_owned(), None), vec!["candidate"]));
    let process = again(process, "TERM");
    assert_eq!(stands(&process).0, "running", "another candidate");

    // What was answered is on the disk, whatever becomes of the process.
    assert_eq!(tell(&process, "POST", "/v1/rollouts/probe/abort?tenant=acme").0, 200);
    let process = again(process, "KILL");
    let told = || Some("told by 127.0.0.1".to_owned());
    assert_eq!((stands(&process), seen(&process)), (("aborted".to_owned(), told()), vec!["current"]));
    assert_eq!(tell(&process, "POST", "/v1/rollouts/probe/promote?tenant=acme").0, 200);
    let process = again(process, "KILL");
    assert_eq!((stands(&process), seen(&process)), (("promoted".to_owned(), told()), vec!["candidate"]));

    other(&process, "headers");
    other(&process, "");
    assert_eq!(stands(&process).0, "running", "what has gone from the configuration comes back as something new");
    let process = again(process, "TERM");
    assert_eq!(stands(&process).0, "running");
}

#[test]
fn who_cannot_keep_a_decision_says_so() {
    let (origin, admin, folder) = (Origin::plain(), free_address(), tempfile::tempdir().unwrap());
    let without = super::administered(&origin, "");
    logged(&without, &["nothing keeps what is decided about roll-outs", "--keep"]);
    assert_eq!(tell(&without, "POST", "/v1/rollouts/probe/abort?tenant=acme").0, 200);

    let process = start(&origin, admin, folder.path(), "");
    fs::write(folder.path().join("rollouts"), "in the way").unwrap();
    let (status, told) = tell(&process, "POST", "/v1/rollouts/probe/abort?tenant=acme");
    assert_eq!((status, told["code"].as_str()), (500, Some("not_stored")), "{told}");
    assert_eq!((stands(&process).0, seen(&process)), ("aborted".to_owned(), vec!["current"]), "it holds all the same");
}
