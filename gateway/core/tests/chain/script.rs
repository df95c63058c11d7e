//! The language in which tests say what a chain's filters do.
//!
//! ```text
//! auth[open holds](call authz, pause; response_body: pause / continue) | tag@1(set x-tag=1)
//! ```
//!
//! A chain is filters joined by `|`, nearest the client first. A filter is a name; `@n` puts it into VM `n` with others (each has
//! its own otherwise); brackets hold [options](Script::option) and parentheses its rules, separated by `;`. A rule says what the
//! filter does in one callback, `request_headers` if it does not say which: actions separated by commas. With several lists
//! separated by `/`, the first call does the first, the next the second, and the last one stays. The name of a callout is the
//! callback that brings its answer; without a rule for it, the filter resumes the request.

use std::collections::HashMap;

use portcullis_abi::MapType;
use portcullis_core::filter::{Callback, Export, Exports, HeadersPause, OnFailure, Speaks};

/// One thing a filter does in a callback.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// `continue`, `pause`, `answer 3`: what the callback returns.
    Answer(u32),
    /// `resume`: in the direction of the map in use.
    Resume,
    /// `reply 403 text`.
    Reply(u32, String),
    /// `grpc_reply 7 text`: with a gRPC status.
    GrpcReply(u32, String),
    /// `close`.
    Close,
    /// `call name`: starts a callout.
    Call(String),
    /// `fail`: the VM traps.
    Fail,
    /// `map response_trailers`: what the following actions are about.
    Map(MapType),
    /// `get name`.
    Get(String),
    /// `pairs`: shows the whole map.
    Pairs,
    /// `set name=value`.
    Set(String, String),
    /// `add name=value`.
    Add(String, String),
    /// `remove name`.
    Remove(String),
    /// `read`: shows the buffer.
    Read,
    /// `replace text`, `append text`, `prepend text`: where and how much of the buffer is replaced.
    Write(usize, usize, String),
    /// `property a.b`.
    Property(String),
    /// `store a.b=value`: sets a property.
    Store(String, String),
    /// `on name`: the following actions are about that filter's context.
    On(String),
}

impl Action {
    fn parse(text: &str) -> Self {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let pair = || {
            let (name, value) = rest.split_once('=').unwrap_or_else(|| panic!("`{text}` wants name=value"));
            (name.to_owned(), value.to_owned())
        };
        let numbered = || {
            let (number, body) = rest.split_once(' ').unwrap_or((rest, ""));
            (number.parse().unwrap_or_else(|_| panic!("`{text}` wants a number")), body.to_owned())
        };
        let write = |start, size| Self::Write(start, size, rest.to_owned());
        match verb {
            "continue" => Self::Answer(0),
            "pause" => Self::Answer(1),
            "answer" => Self::Answer(numbered().0),
            "resume" => Self::Resume,
            "reply" => Self::Reply(numbered().0, numbered().1),
            "grpc_reply" => Self::GrpcReply(numbered().0, numbered().1),
            "close" => Self::Close,
            "call" => Self::Call(rest.to_owned()),
            "fail" => Self::Fail,
            "map" => Self::Map(map_type(rest)),
            "get" => Self::Get(rest.to_owned()),
            "pairs" => Self::Pairs,
            "set" => Self::Set(pair().0, pair().1),
            "add" => Self::Add(pair().0, pair().1),
            "remove" => Self::Remove(rest.to_owned()),
            "read" => Self::Read,
            "replace" => write(0, usize::MAX),
            "append" => write(usize::MAX, 0),
            "prepend" => write(0, 0),
            "property" => Self::Property(rest.to_owned()),
            "store" => Self::Store(pair().0, pair().1),
            "on" => Self::On(rest.to_owned()),
            _ => panic!("`{text}` is no action"),
        }
    }
}

fn map_type(name: &str) -> MapType {
    match name {
        "request_headers" => MapType::HttpRequestHeaders,
        "request_trailers" => MapType::HttpRequestTrailers,
        "response_headers" => MapType::HttpResponseHeaders,
        "response_trailers" => MapType::HttpResponseTrailers,
        "callout_headers" => MapType::HttpCallResponseHeaders,
        "callout_trailers" => MapType::HttpCallResponseTrailers,
        _ => panic!("`{name}` is no map"),
    }
}

/// What one filter does.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) vm: u32,
    pub(crate) exports: Exports,
    pub(crate) on_failure: OnFailure,
    pub(crate) headers_pause: HeadersPause,
    pub(crate) speaks: Speaks,
    /// Whether creating its context shows in the transcript.
    pub(crate) shows_create: bool,
    /// Whether there is no room for it.
    pub(crate) is_crowded_out: bool,
    rules: HashMap<String, Vec<Vec<Action>>>,
}

impl Script {
    /// Every filter of a chain.
    pub(crate) fn chain(text: &str) -> Vec<Self> {
        let filters = text.split('|').map(str::trim).filter(|text| !text.is_empty());
        filters.enumerate().map(|(index, text)| Self::parse(text, index)).collect()
    }

    fn parse(text: &str, index: usize) -> Self {
        let (head, rules) = match text.split_once('(') {
            Some((head, rules)) => (head, rules.strip_suffix(')').expect("rules end with `)`")),
            None => (text, ""),
        };
        let (head, options) = match head.split_once('[') {
            Some((head, options)) => (head, options.strip_suffix(']').expect("options end with `]`")),
            None => (head, ""),
        };
        let (name, vm) = match head.split_once('@') {
            Some((name, vm)) => (name, vm.parse().expect("a VM is a number")),
            // Beyond the numbers tests use for shared ones.
            None => (head, 10 + u32::try_from(index).expect("chains are short")),
        };
        let mut script = Self {
            name: name.to_owned(),
            vm,
            exports: message_callbacks(),
            on_failure: OnFailure::Closed,
            headers_pause: HeadersPause::StopsAll,
            speaks: Speaks::Http,
            shows_create: false,
            is_crowded_out: false,
            rules: HashMap::new(),
        };
        options.split_whitespace().for_each(|option| script.option(option));
        rules.split(';').map(str::trim).filter(|rule| !rule.is_empty()).for_each(|rule| script.rule(rule));
        script
    }

    /// `open`: goes on without the filter when it fails. `holds`: a pause in the headers holds only them. `life`: also exports the
    /// last callbacks, and shows when its context is created. `headers`: exports the headers callbacks only. `tcp`: exports the
    /// callbacks of TCP connections, and makes the chain one for these; `silent` leaves out those for data. `deaf`: exports nothing.
    /// `crowded`: there is no room for it.
    fn option(&mut self, option: &str) {
        match option {
            "open" => self.on_failure = OnFailure::Open,
            "holds" => self.headers_pause = HeadersPause::HoldsHeaders,
            "life" => {
                self.shows_create = true;
                self.exports = self.exports.with(Export::Log).with(Export::Done).with(Export::Delete);
            }
            "headers" => {
                self.exports = Exports::default().with(Export::RequestHeaders).with(Export::ResponseHeaders);
            }
            "tcp" => {
                let all = [Export::NewConnection, Export::DownstreamData, Export::UpstreamData];
                let ends = [Export::DownstreamClose, Export::UpstreamClose];
                self.exports = all.into_iter().chain(ends).fold(Exports::default(), Exports::with);
                self.speaks = Speaks::Tcp;
            }
            "silent" => {
                let ends = [Export::NewConnection, Export::DownstreamClose, Export::UpstreamClose];
                self.exports = ends.into_iter().fold(Exports::default(), Exports::with);
            }
            "crowded" => self.is_crowded_out = true,
            "deaf" => self.exports = Exports::default(),
            _ => panic!("`{option}` is no option"),
        }
    }

    fn rule(&mut self, rule: &str) {
        let (when, steps) = rule.split_once(": ").unwrap_or(("request_headers", rule));
        let actions = |step: &str| step.split(',').map(|action| Action::parse(action.trim())).collect();
        self.rules.insert(when.trim().to_owned(), steps.split(" / ").map(actions).collect());
    }

    /// What the filter does the `nth` time this happens.
    pub(crate) fn actions(&self, when: &str, nth: usize) -> Option<&[Action]> {
        let steps = self.rules.get(when)?;
        steps.get(nth).or(steps.last()).map(Vec::as_slice)
    }

    /// The callouts it may start.
    pub(crate) fn callouts(&self) -> impl Iterator<Item = &str> {
        self.rules.values().flatten().flatten().filter_map(|action| {
            let Action::Call(name) = action else { return None };
            Some(name.as_str())
        })
    }
}

fn message_callbacks() -> Exports {
    [
        Export::RequestHeaders,
        Export::RequestBody,
        Export::RequestTrailers,
        Export::ResponseHeaders,
        Export::ResponseBody,
        Export::ResponseTrailers,
    ]
    .into_iter()
    .fold(Exports::default(), Exports::with)
}

/// The callback's name in rules and transcripts, and its arguments as transcripts show them.
pub(crate) fn describe(callback: Callback) -> (&'static str, String) {
    use portcullis_core::event::Direction::{Request, Response};
    let end = |end: portcullis_core::event::End| if end.is_end() { " end" } else { "" };
    match callback {
        Callback::Headers(Request, count, last) => ("request_headers", format!("{count}{}", end(last))),
        Callback::Headers(Response, count, last) => ("response_headers", format!("{count}{}", end(last))),
        Callback::Body(Request, size, last) => ("request_body", format!("{size}{}", end(last))),
        Callback::Body(Response, size, last) => ("response_body", format!("{size}{}", end(last))),
        Callback::Trailers(Request, count) => ("request_trailers", count.to_string()),
        Callback::Trailers(Response, count) => ("response_trailers", count.to_string()),
        Callback::NewConnection => ("new_connection", String::new()),
        Callback::Data(Request, size, last) => ("downstream_data", format!("{size}{}", end(last))),
        Callback::Data(Response, size, last) => ("upstream_data", format!("{size}{}", end(last))),
        Callback::Closed(Request, peer) => ("downstream_close", format!("{peer:?}")),
        Callback::Closed(Response, peer) => ("upstream_close", format!("{peer:?}")),
        Callback::Log => ("log", String::new()),
        Callback::Done => ("done", String::new()),
        Callback::Delete => ("delete", String::new()),
    }
}
