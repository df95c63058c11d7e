//! The chain under filters that do anything and events that come in any order.
//!
//! Chains and events are random text in the languages of [`crate::script`] and [`crate::world`], so that a seed that fails is
//! printed as a test that fails. What is asserted: the sweep of every exchange after each event, what `wire` asserts of every
//! message, what `fake` asserts of every context, and that each exchange comes to an end that leaves nothing behind.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use portcullis_core::event::Direction;
use portcullis_core::exchange::Wants;

use crate::wire::Stage;
use crate::world::World;

const SEEDS: u64 = 2000;

#[test]
fn wild_filters_never_break_a_message_and_every_exchange_ends() {
    (0..SEEDS).for_each(|seed| run(seed, Kind::Wild));
}

#[test]
fn filters_that_only_pause_and_resume_change_nothing() {
    (0..SEEDS).for_each(|seed| run(seed, Kind::Tame));
}

/// What the filters of a chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Pause and resume.
    Tame,
    /// Anything.
    Wild,
}

/// Plays one seed; a failure is reported as what to pass to `check`.
fn run(seed: u64, kind: Kind) {
    let mut dice = Dice::new(seed);
    let chain = chain(&mut dice, kind);
    let events = RefCell::new(Vec::new());
    let played = catch_unwind(AssertUnwindSafe(|| Player::new(&mut dice, kind, &chain, &events).play()));
    if played.is_err() {
        panic!("seed {seed} of {kind:?} fails:\n{chain:?},\n{:?}", events.borrow().join("; "));
    }
}

/// A generator of numbers (splitmix64): the same ones on every machine.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let bound = u64::try_from(bound.max(1)).expect("bounds are small");
        usize::try_from(mixed % bound).expect("below a usize")
    }

    /// True one time in `n`.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words.get(self.below(words.len())).copied().unwrap_or_default()
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn chain(dice: &mut Dice, kind: Kind) -> String {
    let filters = dice.below(5);
    let filters: Vec<String> = NAMES.iter().take(filters).map(|name| filter(dice, kind, name)).collect();
    filters.join(" | ")
}

fn filter(dice: &mut Dice, kind: Kind, name: &str) -> String {
    let vm = dice.pick(&["", "", "@1", "@2"]);
    let options = dice.pick(&["", "open", "holds", "life", "open life", "open holds life", "headers", "deaf"]);
    let callbacks = [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "one",
        "two",
        "tick",
        "resume_response",
        "create",
        "log",
    ];
    let mut rules = Vec::new();
    for callback in callbacks {
        // Resuming a response is what the driver relies on to bring tame ones to their end.
        if kind == Kind::Wild && dice.one_in(2)
            || kind == Kind::Tame && callback.contains("req") | callback.contains("resp")
        {
            let steps: Vec<String> = (0..=dice.below(3)).map(|_| actions(dice, kind, callback)).collect();
            rules.push(format!("{callback}: {}", steps.join(" / ")));
        }
    }
    if kind == Kind::Tame {
        rules.retain(|rule| !rule.starts_with("resume"));
    }
    format!("{name}{vm}[{options}]({})", rules.join("; "))
}

fn actions(dice: &mut Dice, kind: Kind, callback: &str) -> String {
    let mut actions = Vec::new();
    for _ in 0..dice.below(3) {
        actions.push(match kind {
            Kind::Tame => dice.pick(&["read", "get x", "property request.path", "resume", "call one"]).to_owned(),
            Kind::Wild => wild_action(dice, callback),
        });
    }
    actions.push(match (callback, kind) {
        ("request_body" | "response_body", Kind::Tame) => dice.pick(&["continue", "pause", "answer 2"]).to_owned(),
        ("request_body" | "response_body", Kind::Wild) => {
            dice.pick(&["continue", "continue", "pause", "answer 2", "answer 3", "answer 9"]).to_owned()
        }
        _ => dice.pick(&["continue", "continue", "pause", "answer 3", "answer 4"]).to_owned(),
    });
    actions.join(", ")
}

fn wild_action(dice: &mut Dice, callback: &str) -> String {
    if dice.one_in(12) {
        return dice.pick(&["fail", "close", "reply 403 no", "reply 204", "reply 503"]).to_owned();
    }
    if dice.one_in(4) {
        let map = dice.pick(&["request_headers", "response_headers", "request_trailers", "response_trailers"]);
        return format!("map {map}");
    }
    if dice.one_in(8) {
        return "on a".to_owned();
    }
    if callback == "response_headers" && dice.one_in(6) {
        return format!("set :status={}", dice.pick(&["200", "204", "304", "101", "500"]));
    }
    dice.pick(&[
        "resume",
        "resume",
        "call one",
        "call two",
        "set x=1",
        "set t=1",
        "add t=2",
        "remove content-length",
        "set content-length=3",
        "replace other",
        "replace ",
        "append more",
        "prepend more",
        "read",
        "store x=1",
        "property response.trailers",
    ])
    .to_owned()
}

/// Both messages of an exchange, as events still to come.
#[derive(Debug, Default)]
struct Script {
    request: VecDeque<String>,
    request_body: String,
    response: VecDeque<String>,
    response_body: String,
    over: bool,
}

fn message(dice: &mut Dice, head: &str, bodiless: bool) -> (VecDeque<String>, String) {
    let prefix = if head.starts_with('<') { "< " } else { "" };
    if bodiless {
        return (VecDeque::from([format!("{head} end")]), String::new());
    }
    let chunks: Vec<String> =
        (0..dice.below(4)).map(|n| "abcdefghij".chars().skip(n * 2).take(1 + dice.below(4)).collect()).collect();
    let body = chunks.concat();
    let mut parts: VecDeque<String> = chunks.iter().map(|chunk| format!("{prefix}body {chunk}")).collect();
    let trailers = dice.one_in(3);
    let length = if !trailers && dice.one_in(2) { format!(" content-length={}", body.len()) } else { String::new() };
    match parts.back_mut() {
        _ if trailers => parts.push_back(format!("{prefix}trailers t=1")),
        Some(last) if dice.one_in(2) => last.push_str(" end"),
        _ => parts.push_back(format!("{prefix}body end")),
    }
    parts.push_front(format!("{head}{length}"));
    (parts, body)
}

fn exchange(dice: &mut Dice) -> Script {
    let method = dice.pick(&["GET", "POST", "POST", "POST", "HEAD"]);
    let (request, request_body) = message(dice, &format!("{method} /"), method != "POST");
    let status = dice.pick(&["200", "200", "200", "404", "204", "304"]);
    let bodiless = method == "HEAD" || status == "204" || status == "304";
    let (response, response_body) = message(dice, &format!("< {status}"), bodiless);
    Script { request, request_body, response, response_body, over: false }
}

/// Chooses what happens next.
struct Player<'a> {
    dice: &'a mut Dice,
    kind: Kind,
    world: World,
    scripts: Vec<Script>,
    events: &'a RefCell<Vec<String>>,
}

impl<'a> Player<'a> {
    fn new(dice: &'a mut Dice, kind: Kind, chain: &str, events: &'a RefCell<Vec<String>>) -> Self {
        let scripts: Vec<Script> = (0..1 + dice.below(2)).map(|_| exchange(dice)).collect();
        let mut world = World::new(chain);
        scripts.iter().for_each(|_| _ = world.open());
        Self { dice, kind, world, scripts, events }
    }

    fn play(mut self) {
        for _ in 0..60 {
            let index = self.dice.below(self.scripts.len());
            self.step(index);
        }
        (0..self.scripts.len()).for_each(|index| self.finish(index));
        assert!(self.world.exchanges.is_empty(), "exchanges are left over");
        self.world.fakes.assert_all_deleted();
    }

    fn event(&mut self, index: usize, event: &str) {
        let event = format!("{}: {event}", index + 1);
        self.events.borrow_mut().push(event.clone());
        self.world.event(&event);
    }

    fn wants(&self, index: usize, direction: Direction) -> Wants {
        let id = self.world.streams.get(index).expect("it was opened").id;
        let exchange = self.world.exchanges.get(id);
        exchange.map_or(Wants::Closed, |exchange| exchange.wants(direction, &self.world.exchanges.limits))
    }

    fn script(&mut self, index: usize) -> &mut Script {
        self.scripts.get_mut(index).expect("one for each exchange")
    }

    fn step(&mut self, index: usize) {
        match self.dice.below(if self.kind == Kind::Wild { 24 } else { 20 }) {
            0..7 => self.request(index),
            7..14 => self.response(index),
            14..17 => self.answer(index),
            17 => self.resume(index),
            18 | 19 if self.kind == Kind::Tame => self.resume(index),
            18 => {
                let name = self.dice.pick(&NAMES);
                self.with_filter(index, "tick", name);
            }
            19 => {
                let seconds = 1 + self.dice.below(40);
                self.event(index, &format!("wait {seconds}s"));
            }
            20 if self.dice.one_in(4) => {
                let name = self.dice.pick(&NAMES);
                self.with_filter(index, "die", name);
            }
            21 if self.dice.one_in(6) => self.end(index, "end client_gone"),
            22 if self.dice.one_in(4) => self.event(index, "limit 6"),
            _ => {}
        }
    }

    /// The next part of the request: mostly when it is wanted, now and then a part that was on its way already.
    fn request(&mut self, index: usize) {
        let hurry = self.dice.one_in(8);
        let wanted = self.wants(index, Direction::Request) == Wants::More;
        let next = if wanted || hurry { self.script(index).request.pop_front() } else { None };
        if let Some(event) = next {
            self.event(index, &event);
        }
    }

    fn response(&mut self, index: usize) {
        let asked = self.world.streams.get(index).is_some_and(|stream| stream.upstream.stage != Stage::Waiting);
        let wanted = self.wants(index, Direction::Response) == Wants::More || self.dice.one_in(8);
        if !asked || !wanted {
            return;
        }
        if self.kind == Kind::Wild && self.dice.one_in(20) {
            self.script(index).response.clear();
            return self.event(index, "< fails upstream_reset");
        }
        if let Some(event) = self.script(index).response.pop_front() {
            self.event(index, &event);
        }
    }

    fn answer(&mut self, index: usize) {
        let waiting = self.world.callouts.len();
        let chosen = self.dice.below(waiting);
        let Some((name, _)) = self.world.callouts.get(chosen) else { return };
        let answer = format!("{name} {}", self.dice.pick(&["200", "403", "lost"]));
        self.event(index, &answer);
    }

    fn resume(&mut self, index: usize) {
        let (name, direction) = (self.dice.pick(&NAMES), self.dice.pick(&["", " response"]));
        self.with_filter(index, "resume", &format!("{name}{direction}"));
    }

    fn with_filter(&mut self, index: usize, what: &str, which: &str) {
        let name = which.split(' ').next().unwrap_or_default();
        if self.world.fakes.scripts.iter().any(|script| script.name == name) {
            self.event(index, &format!("{what} {which}"));
        }
    }

    fn end(&mut self, index: usize, event: &str) {
        if !std::mem::replace(&mut self.script(index).over, true) {
            self.event(index, event);
        }
        if self.dice.one_in(2) {
            // What was on its way when it ended comes too late.
            self.event(index, "< body late");
            self.event(index, "body late end");
        }
    }

    /// Brings an exchange to its end: everything comes in, every filter resumes; if that is not enough, deadlines do it.
    fn finish(&mut self, index: usize) {
        for _ in 0..20 {
            if self.script(index).over || self.client_is_done(index) {
                break;
            }
            for _ in 0..self.world.callouts.len() {
                self.answer(index);
            }
            for name in NAMES {
                self.with_filter(index, "resume", name);
                self.with_filter(index, "resume", &format!("{name} response"));
            }
            self.request(index);
            self.response(index);
        }
        for _ in 0..4 {
            if self.kind == Kind::Wild && !self.script(index).over && !self.client_is_done(index) {
                self.event(index, "wait 400s");
            }
        }
        if !self.script(index).over {
            assert!(self.client_is_done(index), "the exchange hangs");
            if self.kind == Kind::Tame {
                self.assert_unchanged(index);
            }
        }
        self.end(index, "end");
    }

    /// Whether the client has its response, and, where nobody interferes, the upstream its request.
    fn client_is_done(&self, index: usize) -> bool {
        let stream = self.world.streams.get(index).expect("it was opened");
        stream.client.is_over() && (self.kind == Kind::Wild || stream.upstream.is_over())
    }

    fn assert_unchanged(&self, index: usize) {
        let stream = self.world.streams.get(index).expect("it was opened");
        let script = self.scripts.get(index).expect("one for each exchange");
        assert_eq!((stream.upstream.stage, stream.client.stage), (Stage::Ended, Stage::Ended));
        assert_eq!(String::from_utf8_lossy(&stream.upstream.body), script.request_body);
        assert_eq!(String::from_utf8_lossy(&stream.client.body), script.response_body);
    }
}
