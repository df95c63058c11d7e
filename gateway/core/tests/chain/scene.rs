//! One callback of a scripted filter: each action is asked of the real `Host`, and what came of it is written down.

use std::collections::BTreeMap;

use bytes::Bytes;
use portcullis_abi::{BufferType, MapType, Status, StreamType};
use portcullis_core::context::{ContextId, Owner};
use portcullis_core::exchange::{ExchangeId, Exchanges};
use portcullis_core::filter::{FilterIndex, Speaks};
use portcullis_core::host::{GuestCallout, GuestReply, Host, Written};

use crate::fake::Vm;
use crate::script::{Action, Script};
use crate::wire::shown;

/// An id that no context of a test has.
const NO_CONTEXT: u32 = 999;

/// One callback while it runs.
pub(crate) struct Scene<'a> {
    pub(crate) exchanges: &'a mut Exchanges,
    pub(crate) vm: &'a mut Vm,
    pub(crate) ids: &'a BTreeMap<(ExchangeId, FilterIndex), ContextId>,
    pub(crate) names: &'a [Script],
    pub(crate) me: ContextId,
    pub(crate) owner: Owner,
    pub(crate) map: MapType,
}

impl Scene<'_> {
    fn host(&mut self) -> Host<'_> {
        Host { exchanges: self.exchanges, contexts: &mut self.vm.contexts }
    }

    fn is_response(&self) -> bool {
        matches!(self.map, MapType::HttpResponseHeaders | MapType::HttpResponseTrailers)
    }

    fn speaks(&self) -> Speaks {
        self.names.get(self.owner.root).map_or(Speaks::Http, |script| script.speaks)
    }

    fn buffer(&self) -> BufferType {
        if matches!(self.map, MapType::HttpCallResponseHeaders | MapType::HttpCallResponseTrailers) {
            return BufferType::HttpCallResponseBody;
        }
        match (self.is_response(), self.speaks()) {
            (true, Speaks::Http) => BufferType::HttpResponseBody,
            (false, Speaks::Http) => BufferType::HttpRequestBody,
            (true, Speaks::Tcp) => BufferType::UpstreamData,
            (false, Speaks::Tcp) => BufferType::DownstreamData,
        }
    }

    /// Does it, and says what came of it.
    pub(crate) fn act(&mut self, action: &Action) -> String {
        let map = self.map;
        match action {
            Action::Answer(0) => "continue".to_owned(),
            Action::Answer(1) => "pause".to_owned(),
            Action::Answer(answer) => format!("answer {answer}"),
            Action::Fail => "fail".to_owned(),
            Action::Map(map) => {
                self.map = *map;
                format!("map {}", u32::from(*map))
            }
            Action::Get(name) => {
                let value =
                    self.host().header(map, name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
                value.map_or_else(|status| format!("get {name}: {status:?}"), |value| format!("get {name}={value}"))
            }
            Action::Pairs => self.pairs(),
            Action::Set(name, value) => {
                let done = self.host().replace_header(map, name.as_bytes(), value.as_bytes());
                outcome(format!("set {name}={value}"), written(done))
            }
            Action::Add(name, value) => {
                let done = self.host().add_header(map, name.as_bytes(), value.as_bytes());
                outcome(format!("add {name}={value}"), written(done))
            }
            Action::Remove(name) => {
                outcome(format!("remove {name}"), refused(self.host().remove_header(map, name.as_bytes())))
            }
            Action::Read => self.read(),
            Action::Write(start, size, text) => self.write(*start, *size, text),
            Action::Property(path) => self.property(path),
            Action::Store(path, value) => {
                let done = self.host().set_property(&property_path(path), value.as_bytes());
                outcome(format!("store {path}={value}"), refused(done))
            }
            Action::Resume => self.resume(),
            Action::Close => {
                let stream = match self.speaks() {
                    Speaks::Http => StreamType::HttpRequest,
                    Speaks::Tcp => StreamType::Downstream,
                };
                self.host().close_stream(stream);
                "close".to_owned()
            }
            Action::Reply(status, body) => {
                self.reply(*status, body, u32::MAX);
                format!("reply {status}")
            }
            Action::GrpcReply(status, body) => {
                self.reply(403, body, *status);
                format!("grpc reply {status}")
            }
            Action::Call(name) => self.call(name),
            Action::On(name) => self.on(name),
        }
    }

    fn resume(&mut self) -> String {
        let (what, stream) = match (self.is_response(), self.speaks()) {
            (true, Speaks::Http) => ("resume response", StreamType::HttpResponse),
            (true, Speaks::Tcp) => ("resume response", StreamType::Upstream),
            (false, Speaks::Http) => ("resume", StreamType::HttpRequest),
            (false, Speaks::Tcp) => ("resume", StreamType::Downstream),
        };
        outcome(what.to_owned(), refused(self.host().continue_stream(stream)))
    }

    fn on(&mut self, name: &str) -> String {
        let index = self.names.iter().position(|script| script.name == *name).expect("a filter's name");
        let id = self.ids.get(&(self.owner.exchange, index)).map_or(NO_CONTEXT, |id| id.0);
        outcome(format!("on {name}"), refused(self.host().set_effective_context(id)))
    }

    fn reply(&mut self, status: u32, body: &str, grpc_status: u32) {
        let reply = GuestReply { status, details: b"said so", body: body.as_bytes(), grpc_status };
        self.host().send_local_response(reply, [(&b"x-by"[..], &b"guest"[..]), (b":status", b"999")].into_iter());
    }

    fn call(&mut self, name: &str) -> String {
        let pairs: [(&[u8], &[u8]); 3] = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a.test")];
        let callout = GuestCallout { upstream: name.as_bytes(), body: b"", timeout_ms: 1000 };
        let token = self.host().http_call(callout, pairs.into_iter(), std::iter::empty());
        if let Ok(token) = token {
            self.vm.waiting.insert(token, (name.to_owned(), self.me));
        }
        outcome(format!("call {name}"), refused(token.map(drop)))
    }

    fn pairs(&mut self) -> String {
        let map = self.map;
        let host = self.host();
        let Some(headers) = host.map(map) else { return "no pairs".to_owned() };
        let pair = |(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        format!("pairs [{}]", headers.iter().map(pair).collect::<Vec<_>>().join(" "))
    }

    fn read(&mut self) -> String {
        let buffer = self.buffer();
        let host = self.host();
        match host.buffer(buffer) {
            Ok(bytes) => {
                let read: Vec<u8> = bytes.range(0, usize::MAX).flatten().copied().collect();
                assert_eq!(read.len(), bytes.len());
                format!("read {}", shown(&read))
            }
            Err(status) => format!("read: {status:?}"),
        }
    }

    fn write(&mut self, start: usize, size: usize, text: &str) -> String {
        let buffer = self.buffer();
        let done = self.host().set_buffer(buffer, start, size, Bytes::copy_from_slice(text.as_bytes()));
        let verb = match (start, size) {
            (0, 0) => "prepend",
            (0, _) => "replace",
            _ => "append",
        };
        outcome(format!("{verb} {text}"), refused(done))
    }

    fn property(&mut self, path: &str) -> String {
        match self.host().property(&property_path(path)) {
            Err(status) => format!("{path}: {status:?}"),
            Ok(value) => format!("{path}={}", property_text(&value)),
        }
    }
}

/// Text as text, what is as long as a number as a number, all else as bytes.
fn property_text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(|c: char| c.is_control()) => format!("{text:?}"),
        _ => match value.try_into() {
            Ok(number) => u64::from_le_bytes(number).to_string(),
            Err(_) => format!("{value:?}"),
        },
    }
}

/// Dots separate the segments of a path; a tilde is a dot within one.
fn property_path(path: &str) -> Vec<u8> {
    path.replace('.', "\0").replace('~', ".").into_bytes()
}

fn written(done: Result<Written, Status>) -> Result<(), String> {
    match done {
        Ok(Written::Done) => Ok(()),
        Ok(Written::LeftOut(why)) => Err(format!("left out, {why}")),
        Err(status) => Err(format!("{status:?}")),
    }
}

fn refused(done: Result<(), Status>) -> Result<(), String> {
    done.map_err(|status| format!("{status:?}"))
}

fn outcome(what: String, done: Result<(), String>) -> String {
    match done {
        Ok(()) => what,
        Err(why) => format!("{what}: {why}"),
    }
}
