//! A guest as somebody else would write it: asks an upstream about a token, turns request bodies round, makes response bodies
//! upper case, and counts its ticks where all of its VMs can see them. Those in the other languages do the same.

use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { greeting: String::new() }));
}}

struct Root {
    greeting: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.greeting = String::from_utf8(self.get_plugin_configuration().unwrap_or_default()).unwrap_or_default();
        self.set_tick_period(Duration::from_millis(5));
        true
    }

    fn on_tick(&mut self) {
        let (ticks, cas) = self.get_shared_data("ticks");
        // Another VM may have been quicker; there will be other ticks.
        let _lost = self.set_shared_data("ticks", Some(&(number(ticks) + 1).to_string().into_bytes()), cas);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { greeting: self.greeting.clone() }))
    }
}

fn number(bytes: Option<Vec<u8>>) -> u32 {
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()).unwrap_or_default()
}

struct Filter {
    greeting: String,
}

impl Context for Filter {
    fn on_http_call_response(&mut self, _: u32, _: usize, body: usize, _: usize) {
        if self.get_http_call_response_header(":status").as_deref() != Some("200") {
            self.send_http_response(403, vec![], Some(b"refused"));
            return;
        }
        let said = self.get_http_call_response_body(0, body).unwrap_or_default();
        self.set_http_request_header("x-authorized", std::str::from_utf8(&said).ok());
        self.resume_http_request();
    }
}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let token = self.get_http_request_header("x-token").unwrap_or_default();
        self.set_http_request_header("x-greeting", Some(&self.greeting));
        self.set_http_request_header("content-length", None);
        let headers =
            vec![(":method", "GET"), (":path", "/authorize"), (":authority", "authorizer"), ("x-token", &token)];
        match self.dispatch_http_call("origin", headers, None, vec![], Duration::from_secs(5)) {
            Ok(_) => Action::Pause,
            Err(_) => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if !end {
            return Action::Pause;
        }
        let mut body = self.get_http_request_body(0, size).unwrap_or_default();
        body.reverse();
        self.set_http_request_body(0, size, &body);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("content-length", None);
        let ticks = number(self.get_shared_data("ticks").0).to_string();
        self.set_http_response_header("x-ticks", Some(&ticks));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if !end {
            return Action::Pause;
        }
        let body = self.get_http_response_body(0, size).unwrap_or_default();
        self.set_http_response_body(0, size, &body.to_ascii_uppercase());
        Action::Continue
    }

    fn on_log(&mut self) {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        hostcalls::log(LogLevel::Info, &format!("served {path}")).unwrap();
    }
}
