//! Does nothing: what a filter costs before it does anything.

use proxy_wasm::traits::{Context, HttpContext};

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(Noop));
}}

struct Noop;

impl Context for Noop {}
impl HttpContext for Noop {}
