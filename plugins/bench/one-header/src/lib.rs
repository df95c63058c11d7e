//! Sets one header, as it is written for the `proxy-wasm` crate. What `one-header-sdk` is measured against.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(OneHeader));
}}

struct OneHeader;

impl Context for OneHeader {}

impl HttpContext for OneHeader {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_request_header("x-one", Some("1"));
        Action::Continue
    }
}
