//! Several callouts, one JSON reply: the glue from callbacks to `policy.rs`.

mod policy;
mod settings;

use std::rc::Rc;

use plugin_common::headers::Side;
use plugin_common::{settings as config, text};
use policy::{Asked, Gathering, Part, Plan, Reply, wrong_method};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use settings::Settings;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { plan: None }));
}}

struct Root {
    plan: Option<Rc<Plan>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.plan = config::load(|written: Settings, _| written.checked()).map(Rc::new);
        self.plan.is_some()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { plan: self.plan.clone(), state: State::Passes }))
    }
}

struct Filter {
    plan: Option<Rc<Plan>>,
    state: State,
}

enum State {
    /// Not ours, or answered: late answers of parts are dropped.
    Passes,
    /// Calls are out; their tokens in the order of the parts.
    Gathers { gathering: Gathering, tokens: Vec<Option<u32>> },
}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(plan) = self.plan.clone() else { return Action::Continue };
        let method = Side::Request.get(":method").unwrap_or_default();
        let path = Side::Request.get(":path").unwrap_or_default();
        match plan.asked(&method, &path) {
            Asked::Pass => return Action::Continue,
            Asked::WrongMethod => wrong_method().send(),
            Asked::Gather => self.gather(&plan),
        }
        Action::Pause
    }
}

impl Filter {
    fn gather(&mut self, plan: &Plan) {
        let forwarded: Vec<(&str, Vec<u8>)> =
            plan.forward_headers.iter().filter_map(|name| Some((name.as_str(), Side::Request.get(name)?))).collect();
        // The crate takes text here; a header that is none stays behind.
        let forwarded: Vec<(&str, &str)> =
            forwarded.iter().filter_map(|(name, value)| Some((*name, text(value)?))).collect();
        let tokens: Vec<Option<u32>> = plan.parts.iter().map(|part| call(part, &forwarded)).collect();
        let refused: Vec<usize> = (0..tokens.len()).filter(|at| matches!(tokens.get(*at), Some(None))).collect();
        self.state = State::Gathers { gathering: Gathering::new(plan), tokens };
        for at in refused {
            self.answered(plan, at, None);
        }
    }

    fn answered(&mut self, plan: &Plan, at: usize, answer: Option<(&[u8], &[u8])>) {
        let State::Gathers { gathering, .. } = &mut self.state else { return };
        let Some(reply) = gathering.answer(plan, at, answer) else { return };
        self.state = State::Passes;
        match reply {
            Reply::Whole(json) => {
                let headers = vec![("content-type", "application/json")];
                let _ok = hostcalls::send_http_response(200, headers, Some(json.as_bytes()));
            }
            Reply::Lacking(part) => Reply::problem(&part).send(),
        }
    }
}

impl Context for Filter {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        let Some(plan) = self.plan.clone() else { return };
        let State::Gathers { tokens, .. } = &self.state else { return };
        let Some(at) = tokens.iter().position(|own| *own == Some(token)) else { return };
        if headers == 0 {
            // The connection broke within the answer.
            return self.answered(&plan, at, None);
        }
        let status = self.get_http_call_response_header_bytes(":status").unwrap_or_default();
        // One more than allowed, so that too long is seen as such and no more is copied than that.
        let size = body_size.min(plan.max_bytes.saturating_add(1));
        let body = self.get_http_call_response_body(0, size).unwrap_or_default();
        self.answered(&plan, at, Some((&status, &body)));
    }
}

/// Starts the call for a part. `None` when the host would not.
fn call(part: &Part, forwarded: &[(&str, &str)]) -> Option<u32> {
    let mut headers =
        vec![(":method", "GET"), (":path", &part.path), (":authority", &part.host), ("accept", "application/json")];
    // A header of ours would otherwise be there twice.
    headers.extend(forwarded.iter().filter(|(name, _)| *name != "accept"));
    let call = hostcalls::dispatch_http_call(&part.upstream, headers, None, vec![], part.timeout);
    call.inspect_err(|status| log::warn!("the call for part {} was refused: {status:?}", part.name)).ok()
}
