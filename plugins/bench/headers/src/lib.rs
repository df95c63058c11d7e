//! Reads two request headers and writes four, two each way: what a typical small policy costs.

use plugin_common::headers::Side;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(Headers));
}}

struct Headers;

impl Context for Headers {}

impl HttpContext for Headers {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let agent = Side::Request.get("user-agent").unwrap_or_default();
        let path = Side::Request.get(":path").unwrap_or_default();
        Side::Request.set("x-bench-agent", agent);
        Side::Request.set("x-bench-path", path);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        Side::Response.set("x-bench-one", "1");
        Side::Response.set("x-bench-two", "2");
        Action::Continue
    }
}
