//! What is done to a message: rules with their conditions, in the order in which they are written.

use std::collections::BTreeMap;

use portcullis_sdk::{Request, Response};

use crate::condition::{Guard, Statuses};
use crate::edit::Edit;
use crate::headers::HeaderRules;
use crate::obstacle::Obstacle;
use crate::target::{QueryRules, Rewrite};
use crate::values::Scope;

/// What to do, both ways.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rewrites: Vec<Rewrite>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) request: Vec<Rule>,
    pub(crate) response: Vec<Rule>,
    pub(crate) max_bytes: usize,
}

/// A rule. What it is not for is empty: a response's method, a request's status.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    pub(crate) guard: Guard,
    pub(crate) methods: Vec<(String, String)>,
    pub(crate) statuses: Vec<(Statuses, u16)>,
    pub(crate) query: QueryRules,
    pub(crate) headers: HeaderRules,
    pub(crate) edits: Vec<Edit>,
}

impl Plan {
    /// Whether anything looks at the request's head.
    pub(crate) fn reads_request(&self) -> bool {
        !self.rewrites.is_empty() || self.request.iter().chain(&self.response).any(Rule::has_values)
    }

    /// Whether anything looks at the response's head.
    pub(crate) fn reads_response(&self) -> bool {
        self.response.iter().any(Rule::has_values)
    }
}

impl Rule {
    /// Whether it looks at values: its conditions, or what it makes of them.
    fn has_values(&self) -> bool {
        self.guard.looks()
            || !self.methods.is_empty()
            || !self.query.is_empty()
            || self.headers.has_values()
            || self.edits.iter().any(Edit::has_values)
    }

    pub(crate) fn change_request(&self, request: &mut Request, scope: &Scope<'_>) -> Result<(), Obstacle> {
        let method = scope.values.first("request", ":method").unwrap_or_default();
        if let Some((_, method)) = self.methods.iter().find(|(from, _)| *from == method) {
            request.headers_mut().set(":method", method);
        }
        if !self.query.is_empty() {
            let target = self.query.apply(&request.target(), scope)?;
            request.headers_mut().set(":path", target);
        }
        self.headers.apply(request, scope)
    }

    pub(crate) fn change_response(&self, response: &mut Response, scope: &Scope<'_>) -> Result<(), Obstacle> {
        let status = response.status();
        if let Some((_, status)) = self.statuses.iter().find(|(from, _)| from.holds(status)) {
            response.set_status(*status);
        }
        self.headers.apply(response, scope)
    }
}
