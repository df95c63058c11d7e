//! The commands of docs/envoy.md, run as they are printed.

use std::fs;
use std::process::{Command, Stdio};

use portcullis::workshop::envoy::Process as Envoy;
use portcullis_tests::docs;
use portcullis_tests::origin::{Answer, Origin};

use crate::workshop::says;

#[test]
fn what_the_page_says_works_as_it_is_written() {
    let page = docs::page("docs/envoy.md");
    let origin = Origin::always(Answer::ok("the order"));
    let config = docs::here(&docs::configurations(&page)[0], &[("127.0.0.1:9000", &origin.to_string())]);
    let commands = docs::blocks(&page, "sh").remove(0);
    let [export, start, ask]: [&str; 3] = commands.lines().collect::<Vec<_>>().try_into().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("portcullis.yaml"), config).unwrap();
    let args: Vec<&str> = export.split(' ').skip(1).collect();
    let said = says(folder.path(), &args, true);
    assert!(said.contains("differs: `admin.bind`: Envoy's pages: /ready is the same, "), "{said}");
    let Some(program) = portcullis_tests::envoy::program() else { return };
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[..2], ["envoy", "-c"]);
    let mut process = Envoy::of_file(&program, &folder.path().join(words[2]), &["--log-level", "warning"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = runtime.block_on(process.listeners()).unwrap()[0].1;
    let mut curl = Command::new("sh");
    let asked = curl.args(["-c", &ask.replace("127.0.0.1:8080", &address.to_string())]).stderr(Stdio::null()).output();
    let answer = String::from_utf8_lossy(&asked.unwrap().stdout).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("x-served-by: portcullis\r\n") && answer.ends_with("\r\n\r\nthe order"), "{answer}");
}
