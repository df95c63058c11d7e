//! Changes headers and the fields of JSON bodies: the glue from callbacks to `policy.rs`.
//!
//! A body is held back only when there are rules for it and its content type is JSON; anything else streams past.

mod pointer;
mod policy;
mod settings;

use std::rc::Rc;

use plugin_common::headers::Side as Headers;
use plugin_common::settings as config;
use policy::{Head, HeaderRules, Obstacle, Rules, Side, Way, check_size};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel};
use settings::Settings;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { rules: Rc::default() }));
}}

struct Root {
    rules: Rc<Rules>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Some(rules) = config::load(|written: Settings, _| written.checked()) else { return false };
        self.rules = Rc::new(rules);
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter { rules: Rc::clone(&self.rules), request: Body::Streams, response: Body::Streams }))
    }
}

struct Filter {
    rules: Rc<Rules>,
    request: Body,
    response: Body,
}

/// One direction's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// It passes as it is.
    Streams,
    /// It is held until its end and then transformed.
    Held,
    /// The exchange was answered; what still comes is nobody's.
    Refused,
}

/// Whether this was the last of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Yes,
    NotYet,
}

impl From<bool> for End {
    fn from(end: bool) -> Self {
        if end { Self::Yes } else { Self::NotYet }
    }
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        if self.rules.response.body.is_some() {
            // So that the response comes whole and in the clear.
            Headers::Request.remove("accept-encoding");
            Headers::Request.remove("range");
        }
        self.head(Way::Request, end.into())
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.body(Way::Request, size, end.into())
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.body(Way::Request, usize::MAX, End::Yes)
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        if self.request == Body::Refused {
            // This is the refusal itself.
            return Action::Continue;
        }
        self.head(Way::Response, end.into())
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.body(Way::Response, size, end.into())
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.body(Way::Response, usize::MAX, End::Yes)
    }
}

impl Filter {
    fn head(&mut self, way: Way, end: End) -> Action {
        let (side, headers) = (self.side(way), way.headers());
        let head = side.body.as_ref().filter(|_| end == End::NotYet).map(|_| way.head());
        side.headers.apply(headers);
        let Some(head) = head.filter(Head::is_json) else { return Action::Continue };
        if let Err(obstacle) = head.check(self.rules.max_bytes) {
            return self.refuse(way, obstacle);
        }
        // Now, for it cannot be changed once the head has gone on.
        headers.remove("content-length");
        *self.state(way) = Body::Held;
        Action::Continue
    }

    fn body(&mut self, way: Way, size: usize, end: End) -> Action {
        match *self.state(way) {
            Body::Streams => return Action::Continue,
            Body::Refused => return Action::Pause,
            Body::Held => {}
        }
        match self.transform(way, size, end) {
            Ok(action) => action,
            Err(obstacle) => self.refuse(way, obstacle),
        }
    }

    fn transform(&self, way: Way, size: usize, end: End) -> Result<Action, Obstacle> {
        if end == End::NotYet {
            return check_size(size, self.rules.max_bytes).map(|()| Action::Pause);
        }
        let at_most = self.rules.max_bytes.saturating_add(1);
        let body = hostcalls::get_buffer(way.buffer(), 0, at_most).ok().flatten().unwrap_or_default();
        check_size(body.len(), self.rules.max_bytes)?;
        // A message may have no body after all; there is nothing in it to change or to hide.
        if let Some(rules) = &self.side(way).body
            && !body.is_empty()
        {
            let _ok = hostcalls::set_buffer(way.buffer(), 0, body.len(), &rules.apply(&body)?);
        }
        Ok(Action::Continue)
    }

    fn refuse(&mut self, way: Way, obstacle: Obstacle) -> Action {
        *self.state(way) = Body::Refused;
        obstacle.problem(way).send();
        Action::Pause
    }

    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Request => &self.rules.request,
            Way::Response => &self.rules.response,
        }
    }

    fn state(&mut self, way: Way) -> &mut Body {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }
}

impl Way {
    fn headers(self) -> Headers {
        match self {
            Self::Request => Headers::Request,
            Self::Response => Headers::Response,
        }
    }

    fn buffer(self) -> BufferType {
        match self {
            Self::Request => BufferType::HttpRequestBody,
            Self::Response => BufferType::HttpResponseBody,
        }
    }

    fn head(self) -> Head {
        let headers = self.headers();
        Head {
            content_type: headers.get("content-type").unwrap_or_default(),
            content_encoding: headers.get("content-encoding").unwrap_or_default(),
            content_length: headers.get("content-length"),
        }
    }
}

impl HeaderRules {
    fn apply(&self, headers: Headers) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (from, to) in &self.rename {
            if let Some(value) = headers.get(from) {
                headers.remove(from);
                headers.set(to, value);
            }
        }
        for (name, value) in &self.set {
            headers.set(name, value);
        }
        for (name, value) in &self.append {
            headers.append(name, value);
        }
    }
}
