//! One header on the request, one on the response: a tenant's policy module at its smallest.

mod policy;

use std::rc::Rc;

use plugin_common::headers::Side;
use plugin_common::settings;
use policy::Banner;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { banner: Rc::default() }));
}}

struct Root {
    banner: Rc<Banner>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Some(banner) = settings::load(|written: Banner, _| written.checked()) else { return false };
        self.banner = Rc::new(banner);
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { banner: Rc::clone(&self.banner) }))
    }
}

struct Filter {
    banner: Rc<Banner>,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        Side::Request.set(&self.banner.header, &self.banner.value);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        Side::Response.set(&self.banner.header, &self.banner.value);
        Action::Continue
    }
}
