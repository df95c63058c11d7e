//! A guest for the end-to-end tests: does what its script says, in the callback its script names.

mod harm;
mod script;

use std::rc::Rc;
use std::time::Duration;

use plugin_common::headers::Side;
use plugin_common::{settings, text};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType};
use script::{Callback, Step, Verb, parse};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| Box::new(Root { steps: Rc::default() }));
}}

/// How long the answer to a callout may take: longer than a busy machine keeps whoever answers waiting.
const PATIENCE: Duration = Duration::from_secs(5);

struct Root {
    steps: Rc<[Step]>,
}

impl Root {
    /// Takes the steps of a root callback; false when one is to fail.
    fn enter(&self, at: Callback, what: &str) -> bool {
        if self.steps.iter().any(|step| step.verb == Verb::Log) {
            log::info!("probe: on_{}{what}", at.name());
        }
        for step in self.steps.iter().filter(|step| step.at == at) {
            harm::done_by(&step.verb);
            if let Verb::Count(key) = &step.verb {
                count(key);
            }
        }
        !self.steps.contains(&Step { verb: Verb::Fail, at })
    }
}

impl Context for Root {
    fn on_done(&mut self) -> bool {
        self.enter(Callback::Done, " root")
    }
}

impl RootContext for Root {
    fn on_vm_start(&mut self, size: usize) -> bool {
        // The script comes with the plugin configuration only; the VM's own may hold one for this callback.
        let vm = hostcalls::get_buffer(BufferType::VmConfiguration, 0, size).ok().flatten().unwrap_or_default();
        self.steps = parse(text(&vm).unwrap_or_default()).unwrap_or_default().into();
        self.enter(Callback::VmStart, &format!(" n={size}"))
    }

    fn on_configure(&mut self, size: usize) -> bool {
        match parse(&String::from_utf8_lossy(&settings::bytes())) {
            Ok(steps) => self.steps = steps.into(),
            Err(why) => {
                log::error!("configuration refused: {why}");
                return false;
            }
        }
        for step in self.steps.iter() {
            if let Verb::Tick(ms) = step.verb {
                let _ok = hostcalls::set_tick_period(Duration::from_millis(ms));
            }
        }
        self.enter(Callback::Configure, &format!(" n={size}"))
    }

    fn on_tick(&mut self) {
        self.enter(Callback::Tick, "");
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { steps: self.steps.to_vec(), callouts: 0, at: Callback::RequestHeaders, found: vec![] }))
    }
}

struct Filter {
    steps: Vec<Step>,
    /// Callouts whose answer is outstanding, and the callback that waits for them.
    callouts: usize,
    at: Callback,
    /// Headers the response gets.
    found: Vec<(&'static str, Vec<u8>)>,
}

impl Filter {
    fn has(&self, verb: &Verb) -> bool {
        self.steps.iter().any(|step| step.verb == *verb)
    }

    fn has_at(&self, verb: Verb, at: Callback) -> bool {
        self.steps.contains(&Step { verb, at })
    }

    /// Takes the steps of a callback.
    fn enter(&mut self, at: Callback, what: &str) -> Action {
        if self.has(&Verb::Log) {
            log::info!("probe: on_{}{what}", at.name());
        }
        let mut action = Action::Continue;
        for step in self.steps.clone().iter().filter(|step| step.at == at) {
            harm::done_by(&step.verb);
            if let Some(wanted) = self.take(&step.verb, at) {
                action = wanted;
            }
        }
        action
    }

    fn take(&mut self, verb: &Verb, at: Callback) -> Option<Action> {
        match verb {
            Verb::Reply(status) => {
                let body = format!("probe: reply from {}\n", at.name());
                let _ok =
                    hostcalls::send_http_response(*status, vec![("x-probe-reply", at.name())], Some(body.as_bytes()));
            }
            Verb::Close => {
                let _ok = hostcalls::reset_http_request();
            }
            Verb::Callout(upstream) => self.call(upstream, at),
            Verb::Count(key) => {
                self.found.push(("x-probe-count", count(key).to_string().into_bytes()));
                return None;
            }
            Verb::Property(path) => {
                let value = hostcalls::get_property(path.split('.').collect()).ok().flatten();
                self.found.push(("x-probe-property", value.unwrap_or_else(|| b"-".to_vec())));
                return None;
            }
            Verb::Path(path) => {
                let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, ":path", Some(path));
                return None;
            }
            Verb::Reroute => {
                let _ = hostcalls::call_foreign_function("clear_route_cache", None);
                return None;
            }
            Verb::Pause => {}
            Verb::Log | Verb::Headers | Verb::Upper | Verb::Chunks | Verb::Tick(_) | Verb::Fail => return None,
            Verb::Spin(_) | Verb::Trap | Verb::Panic | Verb::Exit | Verb::Loop | Verb::Memory => return None,
        }
        Some(Action::Pause)
    }

    fn call(&mut self, upstream: &str, at: Callback) {
        self.at = at;
        let headers = vec![(":method", "GET"), (":path", "/probe-callout"), (":authority", upstream)];
        match hostcalls::dispatch_http_call(upstream, headers, None, vec![], PATIENCE) {
            Ok(_) => self.callouts += 1,
            Err(status) => {
                let reply = format!("probe: callout refused: {status:?}\n");
                let _ok = hostcalls::send_http_response(502, vec![], Some(reply.as_bytes()));
            }
        }
    }

    fn body(&mut self, at: Callback, buffer: BufferType, size: usize, end: bool) -> Action {
        let action = self.enter(at, &format!(" n={size} eos={end}"));
        if self.has_at(Verb::Chunks, at) && size > 0 {
            let _ok = hostcalls::set_buffer(buffer, 0, size, format!("[{size}]").as_bytes());
        }
        if !self.has_at(Verb::Upper, at) || action == Action::Pause {
            return action;
        }
        if !end {
            return Action::Pause;
        }
        upper(buffer);
        Action::Continue
    }

    fn trailers(&mut self, at: Callback, map: MapType, of_body: Callback, buffer: BufferType) -> Action {
        let pairs = hostcalls::get_map_bytes(map).unwrap_or_default();
        let action = self.enter(at, &format!(" n={}", pairs.len()));
        if self.has_at(Verb::Upper, of_body) {
            upper(buffer);
        }
        if self.has(&Verb::Headers) {
            let _ok = hostcalls::add_map_value_bytes(map, "x-probe-trailer", b"seen");
        }
        action
    }
}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, n: usize, end: bool) -> Action {
        let more = Side::Request.get("x-probe").unwrap_or_default();
        match parse(&String::from_utf8_lossy(&more)) {
            Ok(steps) => self.steps.extend(steps),
            Err(why) => {
                let _ok = hostcalls::send_http_response(400, vec![], Some(why.as_bytes()));
                return Action::Pause;
            }
        }
        if self.has(&Verb::Headers) {
            Side::Request.set("x-probe-request", "seen");
        }
        let changes_body =
            |step: &Step| matches!(step.verb, Verb::Upper | Verb::Chunks) && step.at == Callback::RequestBody;
        if self.steps.iter().any(changes_body) {
            Side::Request.remove("content-length");
        }
        self.enter(Callback::RequestHeaders, &format!(" n={n} eos={end}"))
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.body(Callback::RequestBody, BufferType::HttpRequestBody, size, end)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        let (map, buffer) = (MapType::HttpRequestTrailers, BufferType::HttpRequestBody);
        self.trailers(Callback::RequestTrailers, map, Callback::RequestBody, buffer)
    }

    fn on_http_response_headers(&mut self, n: usize, end: bool) -> Action {
        if self.has(&Verb::Headers) {
            Side::Response.set("x-probe-response", "seen");
        }
        let changes_body =
            |step: &Step| matches!(step.verb, Verb::Upper | Verb::Chunks) && step.at == Callback::ResponseBody;
        if self.steps.iter().any(changes_body) {
            Side::Response.remove("content-length");
        }
        let action = self.enter(Callback::ResponseHeaders, &format!(" n={n} eos={end}"));
        for (name, value) in std::mem::take(&mut self.found) {
            Side::Response.set(name, value);
        }
        action
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.body(Callback::ResponseBody, BufferType::HttpResponseBody, size, end)
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        let (map, buffer) = (MapType::HttpResponseTrailers, BufferType::HttpResponseBody);
        self.trailers(Callback::ResponseTrailers, map, Callback::ResponseBody, buffer)
    }

    fn on_log(&mut self) {
        self.enter(Callback::Log, "");
    }
}

impl Context for Filter {
    fn on_done(&mut self) -> bool {
        self.enter(Callback::Done, "");
        true
    }

    fn on_http_call_response(&mut self, _: u32, headers: usize, body: usize, trailers: usize) {
        self.callouts = self.callouts.saturating_sub(1);
        let status = hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders)
            .unwrap_or_default()
            .into_iter()
            .find_map(|(name, value)| (name == ":status").then_some(value))
            .unwrap_or_else(|| b"none".to_vec());
        let mut answer = status;
        answer.push(b' ');
        answer.extend(self.get_http_call_response_body(0, body.min(256)).unwrap_or_default());
        let line: Vec<u8> = answer.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }).collect();
        let what = format!(" n={headers} body={body} trailers={trailers}");
        if self.enter(Callback::Callout, &what) == Action::Pause || self.callouts > 0 {
            return;
        }
        if self.at == Callback::ResponseHeaders {
            Side::Response.set("x-probe-callout", line.trim_ascii_end());
            let _ok = hostcalls::resume_http_response();
        } else {
            Side::Request.set("x-probe-callout", line.trim_ascii_end());
            let _ok = hostcalls::resume_http_request();
        }
    }
}

/// Makes a whole held body upper case.
fn upper(buffer: BufferType) {
    let body = hostcalls::get_buffer(buffer, 0, usize::MAX).ok().flatten().unwrap_or_default();
    let _ok = hostcalls::set_buffer(buffer, 0, body.len(), &body.to_ascii_uppercase());
}

/// Counts one up in the shared data.
fn count(key: &str) -> u64 {
    loop {
        let (stored, cas) = hostcalls::get_shared_data(key).unwrap_or_default();
        let before = stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let after = before.wrapping_add(1);
        if hostcalls::set_shared_data(key, Some(&after.to_le_bytes()), cas).is_ok() {
            return after;
        }
    }
}
