//! A guest as somebody else would write it: asks an upstream about a token, turns request bodies round, makes response bodies
//! upper case.

use std::time::Duration;

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
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { greeting: self.greeting.clone() }))
    }
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
        self.set_http_response_header("x-foreign", Some("1"));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if !end {
            return Action::Pause;
        }
        let body = self.get_http_response_body(0, size).unwrap_or_default();
        // Its own refusal comes this way too.
        if self.get_http_response_header(":status").as_deref() != Some("403") && !body.starts_with(b"refused") {
            self.set_http_response_body(0, size, &body.to_ascii_uppercase());
        }
        Action::Continue
    }
}
