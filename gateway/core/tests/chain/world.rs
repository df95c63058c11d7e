//! A worker in miniature: it feeds events, performs effects, brings callouts home and watches deadlines, all written down.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use expect_test::Expect;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use portcullis_core::chain;
use portcullis_core::context::{Callout, CalloutResponse};
use portcullis_core::downstream::Patience;
use portcullis_core::event::{Direction, End, Event, Part};
use portcullis_core::exchange::{Exchange, ExchangeId, Exchanges, Facts, Place, Reached, Times};
use portcullis_core::filter::{Candidate, Chain, ChainFilter, Speaks, VmIndex};
use portcullis_core::headers::{Headers, Scheme};
use portcullis_core::reply::Failure;
use portcullis_core::retry::Policy;
use portcullis_core::rollout::{Bounds, By, Mode, Rollout, Rule, WHOLE};
use portcullis_core::time::Time;

use crate::fake::Fakes;
use crate::script::Script;
use crate::wire::{Stage, Wire};

/// Plays `events`, separated by `;`, against a [chain](crate::script), and compares the transcript.
///
/// | event | is |
/// | --- | --- |
/// | `POST /path name=value … end` | the request's head; `end` where nothing follows, here and below |
/// | `body text end`, `trailers name=value …` | the rest of the request; a number is that many bytes |
/// | `accepted`, `connected` | a client's TCP connection, and the upstream's; what they send is `body` and `< body` |
/// | `< 200 name=value … end`, `< body …`, `< trailers …` | the upstream's response |
/// | `< fails upstream_reset` | the upstream's failure, by its code word |
/// | `authz 200 text`, `authz lost` | the answer to the oldest callout of that name, or its loss midway |
/// | `tick auth` | a timer of that filter, with the exchange's context as the effective one |
/// | `resume auth`, `resume auth response` | the same, playing one action |
/// | `die auth` | the filter's VM dies while it is busy elsewhere |
/// | `wait 31s` | time passes, and deadlines with it |
/// | `limit 10` | at most that many bytes are held from here on |
/// | `wants` | shows what may happen next in each direction |
/// | `end`, `end client_gone` | the exchange is over, with that failure |
///
/// Behind ` ~ ` a chain has a candidate for its first filter, behind ` ~shadow~ ` one that is shown copies; `shadow` plays them.
///
/// `2: GET /` is about a second exchange. In the transcript, `>` marks events, indented lines are effects.
pub(crate) fn check(chain: &str, events: &str, want: Expect) {
    want.assert_eq(&play(chain, events));
}

/// The transcript that [`check`] compares.
pub(crate) fn play(chain: &str, events: &str) -> String {
    let mut world = World::new(chain);
    events.split(';').map(str::trim).for_each(|event| world.event(event));
    world.transcript()
}

/// One exchange, from outside.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: ExchangeId,
    pub(crate) upstream: Wire,
    pub(crate) client: Wire,
    pub(crate) over: bool,
}

/// Everything a worker has.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) exchanges: Exchanges,
    pub(crate) fakes: Fakes,
    pub(crate) streams: Vec<Stream>,
    pub(crate) callouts: VecDeque<(String, Callout)>,
    chain: Arc<Chain>,
}

/// Every request with a field `x-user` gets the candidate, until it has failed in one.
fn rollout(mode: Mode) -> Rollout {
    let by = By::Header(HeaderName::from_static("x-user"));
    let rule = Rule { mode, share: WHOLE, by, abort_if: Bounds::default(), promote_after: None };
    Rollout::new("rolled".into(), None, rule, Time::default())
}

impl World {
    pub(crate) fn new(chain: &str) -> Self {
        let mode = if chain.contains(" ~shadow~ ") { Mode::Shadows } else { Mode::Serves };
        let chain = chain.replace(" ~shadow~ ", " ~ ");
        let (chain, candidate) = chain.split_once(" ~ ").unwrap_or((&chain, ""));
        let mut scripts = Script::chain(chain);
        scripts.extend((!candidate.is_empty()).then(|| Script::chain(candidate)).into_iter().flatten());
        let fakes = Fakes::new(scripts);
        let filters = fakes.scripts.iter().enumerate().map(|(root, script)| ChainFilter {
            name: script.name.as_str().into(),
            vm: VmIndex(script.vm),
            root,
            exports: script.exports,
            on_failure: script.on_failure,
            headers_pause: script.headers_pause,
        });
        let speaks_tcp = fakes.scripts.iter().any(|script| script.speaks == Speaks::Tcp);
        let make = if speaks_tcp { Chain::tcp } else { Chain::new };
        let mut filters: Vec<ChainFilter> = filters.collect();
        let candidate = if candidate.is_empty() { None } else { filters.pop() };
        let chain = make(filters);
        let chain = Arc::new(match candidate {
            Some(filter) => {
                let shadow = (mode == Mode::Shadows).then(|| Arc::new(Chain::new(vec![filter.clone()])));
                chain.with_candidate(0, Candidate { filter, shadow, rollout: Arc::new(rollout(mode)) })
            }
            None => chain,
        });
        let mut exchanges = Exchanges::default();
        exchanges.now = Time::from_nanos(1_000_000_000);
        Self { exchanges, fakes, streams: Vec::new(), callouts: VecDeque::new(), chain }
    }

    /// The roll-out of the chain's candidate.
    pub(crate) fn rollout(&self) -> &Rollout {
        &self.chain.candidate(0).expect("a chain with ` ~ `").rollout
    }

    pub(crate) fn transcript(&mut self) -> String {
        self.fakes.lines.iter().fold(String::new(), |mut text, line| {
            let _infallible = writeln!(text, "{}", line.trim_end());
            text
        })
    }

    /// Opens an exchange.
    pub(crate) fn open(&mut self) -> usize {
        let id = self.exchanges.open(self.chain.clone(), facts());
        let (upstream, client) = (Wire::new(Direction::Request), Wire::new(Direction::Response));
        self.streams.push(Stream { id, upstream, client, over: false });
        self.fakes.tags.insert(id, self.streams.len());
        self.streams.len() - 1
    }

    fn stream(&mut self, index: usize) -> &mut Stream {
        self.streams.get_mut(index).expect("exchanges are opened in order")
    }

    /// Plays one event.
    pub(crate) fn event(&mut self, text: &str) {
        self.fakes.lines.push(format!("> {text}"));
        let (index, text) = match text.split_once(": ") {
            Some((number, text)) => (number.parse::<usize>().expect("an exchange's number") - 1, text),
            None => (0, text),
        };
        while self.streams.len() <= index {
            self.open();
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let id = self.stream(index).id;
        match words.as_slice() {
            ["<", "fails", code] => self.feed(id, Event::UpstreamFailed(failure(code))),
            ["accepted"] => {
                // Without heads, nothing else would say that bytes may come.
                let stream = self.stream(index);
                (stream.upstream.stage, stream.client.stage) = (Stage::Open, Stage::Open);
                self.feed(id, Event::Accepted);
                let in_yet = self.exchanges.get(id).is_some_and(Exchange::is_let_in);
                self.fakes.lines.push(format!("    {}", if in_yet { "let in" } else { "held" }));
            }
            ["connected"] => self.feed(id, Event::Connected(([192, 0, 2, 9], 80).into())),
            ["<", rest @ ..] => self.feed(id, Event::Response(part(rest))),
            ["tick", name] => self.tick(id, name, "tick"),
            ["resume", name] => self.tick(id, name, "resume"),
            ["resume", name, "response"] => self.tick(id, name, "resume_response"),
            ["die", name] => {
                let filter = self.fakes.index_of(name);
                let vm = self.fakes.scripts.get(filter).expect("it has a script").vm;
                self.fakes.die(vm, &mut self.exchanges);
            }
            ["wait", time] => self.wait(time.strip_suffix('s').and_then(|s| s.parse().ok()).expect("seconds")),
            ["limit", bytes] => self.exchanges.limits.held_bytes = bytes.parse().expect("bytes"),
            ["wants"] => self.wants(id),
            ["shadow"] => while chain::play_shadow(&mut self.exchanges, &mut self.fakes) {},
            ["end", rest @ ..] => self.end(index, rest.first().map(|code| failure(code))),
            ["tries", count] => {
                let exchange = self.exchanges.get_mut(id).expect("an exchange");
                exchange.set_tried(Some(([192, 0, 2, 9], 80).into()), count.parse().expect("a number"));
                exchange.set_reached(Reached { endpoints: 2, waited: Duration::from_millis(3) });
            }
            ["passes", what] => {
                let now = self.exchanges.now;
                let exchange = self.exchanges.get_mut(id).expect("an exchange");
                match *what {
                    "end" => exchange.passed_all(now),
                    "nothing" => exchange.waits_for_client(),
                    bytes => exchange.passed(Direction::Request, bytes.parse().expect("bytes"), now),
                }
            }
            ["body" | "trailers", ..] => self.feed(id, Event::Request(part(&words))),
            [method, ..] if method.chars().all(char::is_uppercase) => {
                self.stream(index).client.to_head = *method == "HEAD";
                self.feed(id, Event::Request(part(&words)));
            }
            [name, answer @ ..] => self.answer(name, answer),
            [] => panic!("an empty event"),
        }
        self.pump();
    }

    fn feed(&mut self, id: ExchangeId, event: Event) {
        chain::feed(&mut self.exchanges, &mut self.fakes, id, event);
        self.perform(id);
    }

    /// Feeds those that others have woken, until none is left.
    fn pump(&mut self) {
        while let Some(id) = self.exchanges.next_woken() {
            self.feed(id, Event::Woken);
        }
        for callout in self.exchanges.callouts.drain(..) {
            self.callouts.push_back((self.fakes.upstream_name(callout.upstream), callout));
        }
    }

    /// Drains the effects of an exchange.
    fn perform(&mut self, id: ExchangeId) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        let tag = self.fakes.tags.get(&id).filter(|_| self.fakes.tags.len() > 1);
        let tag = tag.map_or_else(String::new, |tag| format!("#{tag}"));
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        while let Some(effect) = exchange.next_effect(Direction::Request) {
            self.fakes.lines.push(format!("    upstream{tag}: {}", stream.upstream.receive(effect)));
        }
        while let Some(effect) = exchange.next_effect(Direction::Response) {
            self.fakes.lines.push(format!("    client{tag}: {}", stream.client.receive(effect)));
        }
    }

    fn tick(&mut self, id: ExchangeId, name: &str, when: &str) {
        let filter = self.fakes.index_of(name);
        self.fakes.tick(&mut self.exchanges, id, filter, when);
    }

    fn answer(&mut self, name: &str, answer: &[&str]) {
        let position = self.callouts.iter().position(|(callout, _)| callout == name);
        let Some((_, callout)) = position.and_then(|position| self.callouts.remove(position)) else {
            panic!("no callout `{name}` is in flight")
        };
        let response = match answer {
            ["lost"] => CalloutResponse::default(),
            [status, body @ ..] => CalloutResponse {
                headers: Some(Headers::response(status.parse().expect("a status"), HeaderMap::new())),
                body: Bytes::from(body.join(" ")),
                trailers: None,
            },
            [] => panic!("`{name}` wants an answer"),
        };
        if !self.fakes.answer(&mut self.exchanges, callout.root, callout.token, response) {
            self.fakes.lines.push("    nobody waits".to_owned());
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.exchanges.now = self.exchanges.now + Duration::from_secs(seconds);
        for (id, failure) in self.exchanges.expired() {
            self.fakes.lines.push(format!("    deadline: {}", failure.code()));
            self.feed(id, Event::Deadline(failure));
        }
    }

    fn wants(&mut self, id: ExchangeId) {
        let limits = self.exchanges.limits;
        let exchange = self.exchanges.get(id).expect("it lives");
        let [request, response] = [Direction::Request, Direction::Response].map(|d| exchange.wants(d, &limits));
        self.fakes.lines.push(format!("    request: {request:?}, response: {response:?}"));
    }

    /// Ends an exchange.
    pub(crate) fn end(&mut self, index: usize, failure: Option<Failure>) {
        let stream = self.stream(index);
        stream.over = true;
        let id = stream.id;
        let mut last = String::new();
        chain::end(&mut self.exchanges, &mut self.fakes, id, failure, |exchange| {
            let details = exchange.details().map_or("none", |details| details.as_str());
            let (_, sent) = exchange.body_bytes(Direction::Response);
            last = format!("    ended: details {details}, {sent} bytes sent");
        });
        self.fakes.lines.extend((!last.is_empty()).then_some(last));
    }
}

fn failure(code: &str) -> Failure {
    *Failure::ALL.iter().find(|failure| failure.code() == code).unwrap_or_else(|| panic!("no failure `{code}`"))
}

/// Reads a part of a message as [`check`] describes it.
fn part(words: &[&str]) -> Part {
    let (words, end) = match words {
        [words @ .., "end"] => (words, End::Yes),
        words => (words, End::No),
    };
    match words {
        ["body"] => Part::Body(Bytes::new(), end),
        ["body", text] => Part::Body(body(text), end),
        ["trailers", rest @ ..] => Part::Trailers(fields(rest)),
        [status, rest @ ..] if let Ok(status) = StatusCode::from_bytes(status.as_bytes()) => {
            Part::Head(Headers::response(status, fields(rest)), end)
        }
        [method, path, rest @ ..] => {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            Part::Head(Headers::request(method, Scheme::Http, path.parse().expect("a path"), fields(rest)), end)
        }
        _ => panic!("{words:?} is no part of a message"),
    }
}

/// A number stands for that many bytes.
fn body(text: &str) -> Bytes {
    text.parse::<usize>().map_or_else(|_| Bytes::copy_from_slice(text.as_bytes()), |len| Bytes::from("x".repeat(len)))
}

fn fields(words: &[&str]) -> HeaderMap {
    let pair = |word: &&str| {
        let (name, value) = word.split_once('=').expect("name=value");
        (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let mut fields = HeaderMap::new();
    words.iter().map(pair).for_each(|(name, value)| _ = fields.append(name, value));
    fields
}

/// What the server would know of every exchange here.
pub(crate) fn facts() -> Facts {
    Facts {
        source: ([192, 0, 2, 7], 4711).into(),
        destination: ([127, 0, 0, 1], 8080).into(),
        protocol: "HTTP/1.1",
        connection_id: 7,
        request_id: HeaderValue::from_static("id-1"),
        tls: None,
        place: Arc::new(Place {
            route: "orders".into(),
            pattern: "/orders/{id}".into(),
            upstream: "shop".into(),
            tenant: "acme".into(),
            times: Times::with_response(Duration::from_secs(15)),
            retry: Policy::connect_only(),
        }),
        patience: Patience::DEFAULT,
        trace: None,
    }
}
