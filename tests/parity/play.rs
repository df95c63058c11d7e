//! Playing a case on one side: asking, letting bodies go on when the guest has logged what they wait for, writing down what came.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use portcullis_tests::client::{Client, H2, request};
use portcullis_tests::origin::{Answer, Seen};
use portcullis_tests::pieces::{Gate, Piece, fields};
use portcullis_tests::{PATIENCE, eventually};

use crate::case::{Case, Part, Reply, Respect, Version};
use crate::differences;
use crate::observed::{Observed, Response};
use crate::sides::{FENCE, Side};

/// What bodies wait for.
#[derive(Default)]
struct Gates(Vec<(&'static str, Gate)>);

impl Gates {
    fn after(&mut self, text: &'static str) -> Gate {
        let gate = Gate::default();
        self.0.push((text, gate.clone()));
        gate
    }

    fn piece(&mut self, part: &Part) -> Piece {
        match part {
            Part::Data(data) => Piece::Data(Bytes::from_static(data.as_bytes())),
            Part::After(text) => Piece::Wait(self.after(text)),
            Part::Trailers(pairs) => Piece::Trailers(fields(pairs)),
            Part::Break => Piece::Break,
        }
    }

    fn answer(&mut self, reply: &Reply) -> Answer {
        let mut answer = Answer::status(reply.status);
        for (name, value) in &reply.fields {
            answer = answer.header(name, value);
        }
        for part in &reply.body {
            answer = match part {
                Part::Data(data) => answer.data(*data),
                Part::After(text) => answer.wait(&self.after(text)),
                Part::Trailers(pairs) => answer.trailers(pairs),
                Part::Break => answer.broken(),
            };
        }
        match reply.after {
            Some(text) => answer.after(&self.after(text)),
            None => answer,
        }
    }

    /// Opens those whose texts are in the case's log.
    fn open(&self, side: &Side, case: &Case) {
        let log = side.log.of(&case.name);
        for (text, gate) in &self.0 {
            if log.iter().any(|line| line.text.contains(text)) {
                gate.open();
            }
        }
    }
}

/// What becomes of a case on a side.
pub(crate) fn play(side: &Side, case: &Case) -> Observed {
    // Shown when something fails.
    println!("{}: {}", side.name, case.name);
    let mut gates = Gates::default();
    let answers = case.answers.iter().map(|(path, reply)| (*path, gates.answer(reply))).collect();
    *side.answers.lock().unwrap() = answers;
    let before = side.origin.seen().len();
    let body: Vec<Piece> = case.ask.body.iter().map(|part| gates.piece(part)).collect();
    let response = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(side, case, body));
        while !asking.is_finished() {
            gates.open(side, case);
            thread::park_timeout(Duration::from_millis(1));
        }
        asking.join().unwrap()
    });
    eventually(&format!("{} of {} is over on {}", case.ends, case.name, side.name), || {
        gates.open(side, case);
        gone(side, &case.name) >= case.ends && case.until.is_none_or(|text| has_logged(side, case, text))
    });
    fence(side);
    eventually(&format!("the origin has heard all of {} on {}", case.name, side.name), || {
        side.origin.begun() == side.origin.seen().len()
    });
    let mut upstream: Vec<Seen> = side.origin.seen().split_off(before);
    upstream.retain(|seen| seen.complete || !case.breaks_off && is_of(seen, case));
    Observed::new(response, &upstream, &side.log.of(&case.name))
}

/// What becomes of it another time.
pub(crate) fn play_again(side: &Side, case: &Case) -> Observed {
    side.log.forget(&case.name);
    play(side, case)
}

/// Whether a request names a case's host: one that was broken off may come to light late.
fn is_of(seen: &Seen, case: &Case) -> bool {
    let host = seen.uri.host().or(seen.get("host")).unwrap_or_default();
    host.strip_suffix(".test") == Some(&case.name)
}

/// How long a client waits: not long where the sides differ in the response, since it may be that one of them sends none.
fn patience(case: &Case) -> Duration {
    let differs = differences::of(&case.name).is_some_and(|(_, respects)| respects.contains(&Respect::Response));
    if differs { Duration::from_secs(5) } else { PATIENCE }
}

/// How many contexts of a case have been deleted.
fn gone(side: &Side, case: &str) -> usize {
    side.log.of(case).iter().filter(|line| line.text == "gone").count()
}

/// Waits until all that a side has to log of what came before has been logged.
fn fence(side: &Side) {
    let before = gone(side, FENCE);
    let answer = Client::connect(side.address(FENCE)).ask("GET", "/", &[("host", "fence.test")], "");
    assert_eq!(answer.status(), 200, "the fence on {}", side.name);
    eventually("the fence is logged", || gone(side, FENCE) > before);
}

fn ask(side: &Side, case: &Case, body: Vec<Piece>) -> Option<Response> {
    let host = format!("{}.test", case.name);
    let ask = &case.ask;
    let mut fields: Vec<(&str, &str)> = vec![("host", &host)];
    fields.extend(ask.fields.iter().copied());
    let address = side.address(&case.name);
    if ask.version == Version::Http2 {
        return Some(Response::of_h2(&H2::connect(address).ask(ask.method, ask.path, &fields, body).ok()?));
    }
    let mut client = Client::connect(address);
    client.0.stream().set_read_timeout(Some(patience(case))).unwrap();
    let length = ask.length().to_string();
    match ask.version {
        _ if ask.body.is_empty() => {}
        Version::Chunked => fields.push(("transfer-encoding", "chunked")),
        Version::Http1 | Version::Http2 => fields.push(("content-length", &length)),
    }
    client.send(request(ask.method, ask.path, &fields, ""));
    send(&mut client, side, case);
    if let Some(text) = ask.leaves {
        wait_for(side, case, text);
        return None;
    }
    let head = client.0.head().ok()?;
    let message = if ask.method == "HEAD" {
        portcullis_tests::wire::Message { head, complete: true, ..Default::default() }
    } else {
        client.0.body(head)
    };
    Some(Response::of_h1(&message))
}

/// Sends the body.
fn send(client: &mut Client, side: &Side, case: &Case) {
    let ask = &case.ask;
    let chunked = ask.version == Version::Chunked;
    for part in &ask.body {
        // A side may answer, and close, before it has read everything.
        let _gone = match part {
            Part::Data(data) if chunked => client.0.write_chunk(data),
            Part::Data(data) => client.0.write(data),
            Part::After(text) => {
                wait_for(side, case, text);
                Ok(())
            }
            Part::Trailers(_) | Part::Break => client.0.stream().shutdown(std::net::Shutdown::Write),
        };
    }
    if chunked && !ask.body.is_empty() {
        let _gone = client.0.write("0\r\n\r\n");
    }
}

fn wait_for(side: &Side, case: &Case, text: &str) {
    eventually(&format!("{} logs `{text}` on {}", case.name, side.name), || has_logged(side, case, text));
}

fn has_logged(side: &Side, case: &Case, text: &str) -> bool {
    side.log.of(&case.name).iter().any(|line| line.text.contains(text))
}
