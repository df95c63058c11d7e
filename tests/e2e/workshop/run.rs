//! `portcullis plugin run`: a gateway with one filter, and what becomes of it when that changes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use portcullis_tests::client::Client;
use portcullis_tests::eventually;
use portcullis_tests::guests::{module, target};
use portcullis_tests::origin::Origin;
use portcullis_tests::process::signal;
use portcullis_tests::wire::Message;

/// A gateway for an author, killed when dropped.
struct Author {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Author {
    /// Runs it in a folder; what it logs is in the folder's `log`. Nothing if it ends before it serves.
    fn start(folder: tempfile::TempDir, args: &[&str]) -> Result<Self, String> {
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.current_dir(folder.path()).args(["plugin", "run", "--port", "0"]).args(args);
        command.env("CARGO_TARGET_DIR", target().join("tmp/workshop"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("serving http://")?.split('/').next()?.parse().ok());
        // The access log goes on; somebody has to read it.
        std::thread::spawn(move || lines.for_each(drop));
        let Some(address) = address else {
            let _status = child.wait();
            return Err(fs::read_to_string(folder.path().join("log")).unwrap());
        };
        Ok(Self { child, folder, address })
    }

    fn get(&self) -> Message {
        Client::connect(self.address).get("/a")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Author {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_module_and_its_settings_are_swapped_as_they_change_and_the_last_good_ones_stay() {
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    fs::copy(module("banner"), folder.path().join("mine.wasm")).unwrap();
    fs::write(folder.path().join("settings.yaml"), "{ header: x-one }").unwrap();
    let upstream = format!("http://{origin}");
    let args = ["mine.wasm", "--config", "settings.yaml", "--upstream", &upstream, "-v"];
    let mut author = Author::start(folder, &args).unwrap();
    assert_eq!((author.get().status(), author.get().get("x-one")), (200, Some("hello")));
    for want in
        ["-> proxy_on_request_headers", "proxy_replace_header_map_value(map: HttpRequestHeaders, name: \"x-one\""]
    {
        eventually(&format!("{want} is logged"), || author.log().contains(want));
    }
    fs::write(author.path("settings.yaml"), "{ header: x-two }").unwrap();
    eventually("the new settings are used", || author.get().get("x-two") == Some("hello"));
    fs::write(author.path("settings.yaml"), "{ header: [ }").unwrap();
    eventually("bad settings are refused", || author.log().contains("the last good settings are still used"));
    fs::write(author.path("mine.wasm"), "no module").unwrap();
    eventually("a bad module is refused", || author.log().contains("it is not a WebAssembly module"));
    assert_eq!(author.get().get("x-two"), Some("hello"));
    signal(author.child.id(), "INT");
    assert!(author.child.wait().unwrap().success(), "{}", author.log());
}

#[test]
fn a_crate_is_built_and_built_again_when_its_sources_change() {
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    super::says(folder.path(), &["plugin", "new", "swapped"], true);
    let upstream = format!("http://{origin}");
    let args = ["swapped", "--config", "{ header: x-mark }", "--upstream", &upstream];
    let author = match Author::start(folder, &args) {
        Ok(author) => author,
        Err(said) if said.contains("no compiler for wasm32-wasip1 was found") => {
            eprintln!("SKIPPED: the module cannot be built here: {said}");
            return;
        }
        Err(said) => panic!("{said}"),
    };
    assert_eq!(author.get().get("x-mark"), Some("response"));
    let source = author.path("swapped/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, text.replace("\"response\"", "\"response")).unwrap();
    built("what does not compile is said", || author.log().contains("the last good module is still served"));
    assert_eq!(author.get().get("x-mark"), Some("response"));
    fs::write(&source, text.replace("\"response\"", "\"changed\"")).unwrap();
    built("what has changed is served", || author.get().get("x-mark") == Some("changed"));
}

/// Waits for what the compiler takes part in.
fn built(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 300, "it never came to be that {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

#[test]
fn what_cannot_be_run_is_said_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.wasm"), "text").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    let banner = module("banner");
    let banner = banner.to_str().unwrap();
    let upstream = ["--upstream", "http://127.0.0.1:9"];
    for (args, want) in [
        (vec!["gone.wasm"], "name a module (`portcullis plugin build` makes one), or the directory of a crate"),
        (vec!["empty"], "see `portcullis plugin new`"),
        (vec!["text.wasm"], "it is not a WebAssembly module"),
        (vec![banner, "--config", "gone.yaml"], "cannot read gone.yaml"),
        (vec![banner, "--config", "{ header: X }"], "`header`: `X` is not a header name in lower case"),
        (vec![banner, "--callout", "idp"], "write NAME=URL"),
        (
            vec![banner, "--callout", "idp=localhost"],
            "--callout `localhost` is no URL of an upstream; write http://HOST:PORT",
        ),
        (vec![banner, "--upstream", "ftp://a"], "--upstream `ftp://a` is no URL"),
    ] {
        let more: &[&str] = if args.contains(&"--upstream") { &[] } else { &upstream };
        let said = super::says(folder.path(), &[&["plugin", "run", "--port", "0"], &args[..], more].concat(), false);
        assert!(said.contains(want), "{args:?}: {said}");
    }
}
