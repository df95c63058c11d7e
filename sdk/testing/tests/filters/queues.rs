//! Shared queues and foreign functions, which plugins of the `proxy-wasm` crate use.

use portcullis_testing::{Gateway, Plugin, Request};

mod plugin {
    //! Each request's path goes through a queue, and through a function of the host's.
    use log::info;
    use proxy_wasm::hostcalls;
    use proxy_wasm::traits::{Context, HttpContext, RootContext};
    use proxy_wasm::types::{Action, ContextType, LogLevel};

    /// What `proxy_wasm::main!` makes, under a name of its own: another plugin of this program has that one.
    pub(super) extern "C" fn initialize() {
        proxy_wasm::set_log_level(LogLevel::Trace);
        proxy_wasm::set_root_context(|_| Box::new(Root));
    }

    struct Root;
    struct Exchange;

    impl Context for Root {}
    impl Context for Exchange {}

    impl RootContext for Root {
        fn on_configure(&mut self, _: usize) -> bool {
            self.register_shared_queue("paths");
            true
        }

        fn on_queue_ready(&mut self, queue: u32) {
            while let Ok(Some(item)) = self.dequeue_shared_queue(queue) {
                info!("read {}", String::from_utf8_lossy(&item));
            }
        }

        fn get_type(&self) -> Option<ContextType> {
            Some(ContextType::HttpContext)
        }

        fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
            Some(Box::new(Exchange))
        }
    }

    impl HttpContext for Exchange {
        fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
            let path = self.get_http_request_header(":path").unwrap_or_default();
            let queue = hostcalls::resolve_shared_queue("", "paths").unwrap().unwrap();
            hostcalls::enqueue_shared_queue(queue, Some(path.as_bytes())).unwrap();
            let shouted = hostcalls::call_foreign_function("shout", Some(path.as_bytes())).unwrap();
            let shouted = shouted.map(|bytes| String::from_utf8(bytes).unwrap());
            self.set_http_request_header("x-shouted", shouted.as_deref());
            Action::Continue
        }
    }
}

#[test]
fn items_in_queues_are_announced_and_foreign_functions_answer_as_the_test_says() {
    let mut gateway = Gateway::new()
        .foreign_function("shout", |bytes| Ok(bytes.to_ascii_uppercase()))
        .plugin(Plugin::unmodified("queues", plugin::initialize))
        .start();
    let outcomes = gateway.send_all([Request::get("/a"), Request::get("/b")]);
    assert_eq!(outcomes[0].at_upstream().header("x-shouted"), Some("/A"));
    assert_eq!(outcomes[1].at_upstream().header("x-shouted"), Some("/B"));
    assert!(outcomes[0].logged("read /a") && outcomes[0].logged("read /b"), "{:?}", outcomes[0].log);
}
