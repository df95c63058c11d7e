//! What is done to a message: rules with their conditions, in the order in which they are written.

use std::collections::BTreeMap;
use std::rc::Rc;

use plugin_bodies::{Otherwise, Unread, Way};
use portcullis_sdk::{Request, Response};

use crate::condition::{Guard, Statuses};
use crate::edit::Edit;
use crate::headers::HeaderRules;
use crate::media::{Format, Output, Streams};
use crate::obstacle::Obstacle;
use crate::target::{QueryRules, Rewrite};
use crate::values::Scope;

/// What to do, both ways.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rewrites: Vec<Rewrite>,
    pub(crate) env: Rc<BTreeMap<String, String>>,
    pub(crate) request: Vec<Rule>,
    pub(crate) response: Vec<Rule>,
    pub(crate) max_bytes: usize,
    /// How long a record of a stream may be.
    pub(crate) max_record_bytes: usize,
    pub(crate) on_overflow: Otherwise,
    pub(crate) on_invalid: Otherwise,
}

/// A rule. What it is not for is empty: a response's method, a request's status.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    pub(crate) guard: Guard,
    pub(crate) methods: Vec<(String, String)>,
    pub(crate) statuses: Vec<(Statuses, u16)>,
    pub(crate) query: QueryRules,
    pub(crate) headers: HeaderRules,
    /// What bodies it changes.
    pub(crate) format: Format,
    pub(crate) edits: Vec<Edit>,
    pub(crate) to: Option<Output>,
}

impl Plan {
    /// Whether anything looks at the request's head.
    pub(crate) fn reads_request(&self) -> bool {
        !self.rewrites.is_empty() || self.request.iter().chain(&self.response).any(Rule::has_values)
    }

    pub(crate) fn rules(&self, way: Way) -> &[Rule] {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }

    /// What becomes of a body for which this is in the way. A template's value that does not fit is never passed on.
    pub(crate) fn otherwise(&self, obstacle: Obstacle) -> Otherwise {
        match obstacle {
            Obstacle::Body(Unread::TooLarge) => self.on_overflow,
            Obstacle::Body(Unread::Malformed | Unread::Encoded)
            | Obstacle::Complex
            | Obstacle::Body(Unread::Partial) => self.on_invalid,
            Obstacle::Unfit => Otherwise::Refuse,
        }
    }

    /// Whether responses have to come in a form in which they can be changed, and which.
    pub(crate) fn reads_responses(&self) -> Option<Streams> {
        let mut rules = self.response.iter().filter(|rule| rule.changes_body()).peekable();
        rules.peek()?;
        Some(if rules.any(|rule| rule.format.is_stream()) { Streams::Some } else { Streams::None })
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

    /// Whether it changes bodies.
    pub(crate) fn changes_body(&self) -> bool {
        !self.edits.is_empty() || self.to.is_some()
    }

    pub(crate) fn change_request(&self, request: &mut Request, scope: &Scope) -> Result<(), Obstacle> {
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

    pub(crate) fn change_response(&self, response: &mut Response, scope: &Scope) -> Result<(), Obstacle> {
        let status = response.status();
        if let Some((_, status)) = self.statuses.iter().find(|(from, _)| from.holds(status)) {
            response.set_status(*status);
        }
        self.headers.apply(response, scope)
    }
}
