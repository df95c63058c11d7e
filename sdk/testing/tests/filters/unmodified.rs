//! A plugin of callbacks, written for the `proxy-wasm` crate and nothing else: it asks a service for a number, and lets a
//! request pass when that is prime.

use std::time::Duration;

use portcullis_testing::{Gateway, Plugin, Reply, Request, Running};

mod plugin {
    //! As it would stand in a crate of its own.
    use std::time::Duration;

    use log::{info, trace};
    use proxy_wasm::traits::{Context, HttpContext};
    use proxy_wasm::types::{Action, LogLevel};

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Trace);
        proxy_wasm::set_http_context(|_, _| Box::new(HttpAuthRandom));
    }}

    struct HttpAuthRandom;

    impl HttpContext for HttpAuthRandom {
        fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
            self.dispatch_http_call(
                "random",
                vec![(":method", "GET"), (":path", "/bytes/1"), (":authority", "random.test")],
                None,
                vec![],
                Duration::from_secs(1),
            )
            .unwrap();
            Action::Pause
        }

        fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
            self.set_http_response_header("powered-by", Some("proxy-wasm"));
            Action::Continue
        }
    }

    impl Context for HttpAuthRandom {
        fn on_http_call_response(&mut self, _: u32, _: usize, body_size: usize, _: usize) {
            if let Some(body) = self.get_http_call_response_body(0, body_size)
                && !body.is_empty()
                && is_prime(body[0])
            {
                info!("access granted");
                self.resume_http_request();
                return;
            }
            trace!("access forbidden");
            self.send_http_response(403, vec![("x-reason", "not prime")], Some(b"Access forbidden.\n"));
        }
    }

    fn is_prime(number: u8) -> bool {
        number > 1 && (2..number).all(|divisor| !number.is_multiple_of(divisor))
    }
}

fn gateway(number: u8) -> Running {
    Gateway::new()
        .upstream("random", move |_| Reply::ok([number]).after(Duration::from_millis(5)))
        .plugin(Plugin::unmodified("auth-random", plugin::_initialize))
        .start()
}

#[test]
fn an_unmodified_plugin_of_callbacks_runs() {
    let outcome = gateway(7).send(Request::get("/"));
    assert_eq!((outcome.status(), outcome.reply.header("powered-by")), (200, Some("proxy-wasm")));
    assert!(outcome.logged("access granted"));
    assert_eq!(outcome.took, Duration::from_millis(5));
    let mut gateway = gateway(8);
    let outcome = gateway.send(Request::get("/"));
    assert_eq!((outcome.status(), outcome.reply.text().as_str()), (403, "Access forbidden.\n"));
    assert_eq!(outcome.reply.header("powered-by"), Some("proxy-wasm"), "its own reply passes it too");
    assert_eq!(outcome.upstream, None);
    assert_eq!(gateway.calls()[0].request.target(), "/bytes/1");
}
