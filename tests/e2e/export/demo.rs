//! The demo's walk-through, asked of the demo and of an Envoy that runs what its configuration is exported to.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{Exported, without_id};

/// A running demo; ended when dropped.
struct Demo {
    child: Child,
    /// Open for as long as it has something to say.
    _output: BufReader<ChildStdout>,
    /// What it says to try.
    guide: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.args(["demo", "--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut guide = Vec::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for line in output.by_ref().lines().map_while(Result::ok) {
            let last = line.starts_with("The configuration: ");
            guide.push(line);
            if last {
                break;
            }
        }
        Self { child, _output: output, guide }
    }

    /// The word of the guide that begins like this, up to the next space.
    fn word(&self, start: &str) -> &str {
        let text = self.guide.iter().find_map(|line| line.split_once(start));
        text.and_then(|(_, rest)| rest.split(['/', ' ']).next()).unwrap()
    }

    fn config(&self) -> &str {
        let line = self.guide.last().unwrap();
        line.strip_prefix("The configuration: ").unwrap().split_whitespace().next().unwrap()
    }

    fn commands(&self) -> Vec<&str> {
        let commands = self.guide.iter().filter_map(|line| line.strip_prefix("  "));
        commands.collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a command says, without what no two answers have in common.
fn says(command: &str) -> Vec<String> {
    // How a body is framed is each host's own: a length may be known or not.
    const OWN: [&str; 5] = ["date:", "x-request-id:", "transfer-encoding:", "content-length:", "connection:"];
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or(("", &said));
    let mut head: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
    head.retain(|line| !OWN.iter().any(|own| line.starts_with(own)));
    head.sort();
    head.push(without_id(body));
    head
}

#[test]
fn the_exported_demo_answers_every_request_of_its_walk_through_alike() {
    let demo = Demo::start();
    let Some(exported) = Exported::start(demo.config().as_ref()) else { return };
    let (here, there) = (demo.word("http://"), exported.address().to_string());
    let commands = demo.commands();
    assert_eq!(commands.len(), 8, "{:?}", demo.guide);
    for command in commands {
        let answers = [says(command), says(&command.replace(here, &there))];
        let [here, there] = &answers;
        assert_eq!(here, there, "{command}");
        assert!(here.last().is_some_and(|body| !body.is_empty()), "{command} is answered: {here:?}");
    }
}
