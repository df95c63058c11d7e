//! What an upstream is asked, made of templates and values.

use std::borrow::Cow;
use std::time::Duration;

use plugin_common::percent;
use plugin_common::template::{self, Refused, Template};
use portcullis_sdk::Callout;

use crate::failure::{Failure, Whose};
use crate::plan::{Call, Form};
use crate::values::{Received, Values, whose};

/// By which whoever follows a request through services finds this part of it: W3C Trace Context, B3 in both its forms, and the
/// request's id. A host that traces writes its own over them.
const TRACE: [&str; 9] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-request-id",
];

/// Of the request, what every call gets.
#[derive(Debug)]
pub(crate) struct Passed<'r> {
    received: &'r Received,
    trace: Vec<(&'static str, &'r str)>,
}

impl<'r> Passed<'r> {
    pub(crate) fn of(received: &'r Received) -> Self {
        let trace = TRACE.iter().filter_map(|name| Some((*name, sendable(received.header(name)?)?))).collect();
        Self { received, trace }
    }
}

/// A header as text: one that is none cannot be sent in a callout.
fn sendable(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b'\t' | 0x20..0x7f));
    std::str::from_utf8(value).ok().filter(|_| is_text)
}

/// A request to an upstream, with what its answer may be. Two that are equal get the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing<'r> {
    upstream: &'r str,
    method: &'r str,
    host: &'r str,
    target: String,
    headers: Headers<'r>,
    body: Vec<u8>,
    max_bytes: usize,
    max_depth: usize,
    form: Form,
}

type Headers<'r> = Vec<(&'r str, Cow<'r, str>)>;

/// Why a call is not made, or came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is not wanted, and nothing is wrong.
    Skip,
    Failed(Failure),
}

impl<'r> Outgoing<'r> {
    pub(crate) fn of(call: &'r Call, passed: &Passed<'r>, values: &Values<'_>) -> Result<Self, Stop> {
        let body = call.body.rendered(values).map_err(|_| unfit(call.body.templates()))?;
        Ok(Self {
            upstream: call.upstream.name(),
            method: &call.method,
            host: &call.host,
            target: target(call, values)?,
            headers: headers(call, passed, values)?,
            body,
            max_bytes: call.max_bytes,
            max_depth: call.max_depth,
            form: call.form,
        })
    }

    /// The call itself.
    pub(crate) fn callout(&self, call: &Call, time: Duration) -> Callout {
        let callout = call.upstream.call(self.method, self.target.as_str()).authority(self.host);
        let callout = callout.timeout(time).limit(self.max_bytes).body(self.body.clone());
        self.headers.iter().fold(callout, |callout, (name, value)| callout.header(name, value.as_bytes()))
    }
}

/// A path is made of all its values or not at all: one that lacks a segment is another path. A parameter without a value is left out.
fn target(call: &Call, values: &Values<'_>) -> Result<String, Stop> {
    let segment = |path: &[String]| values.segment(path);
    if let Some(missing) = call.path.missing(&segment) {
        return Err(match values.is_skipped(missing) {
            true => Stop::Skip,
            false => Stop::Failed(Failure::Missing(whose(missing))),
        });
    }
    let mut target = call.path.render(&segment).map_err(|_| unfit([&call.path]))?;
    for (name, value) in &call.query {
        if value.missing(&|path| values.text(path)).is_some() {
            continue;
        }
        let value = rendered(value, values)?;
        target.push(if target.contains('?') { '&' } else { '?' });
        percent::encode(name, &mut target);
        target.push('=');
        percent::encode(&value, &mut target);
    }
    // A path that became too long by its parameters is no other than one that was too long before.
    if target.len() > template::Target::Path.max_bytes() { Err(unfit([&call.path])) } else { Ok(target) }
}

/// Its own headers come before those of the request, and those before the ones that every call gets. A header without a value is
/// left out.
fn headers<'r>(call: &'r Call, passed: &Passed<'r>, values: &Values<'_>) -> Result<Headers<'r>, Stop> {
    let mut headers: Headers<'r> = Vec::with_capacity(call.headers.len() + call.forward.len() + passed.trace.len() + 2);
    for (name, value) in &call.headers {
        let value = rendered(value, values)?;
        if !value.is_empty() {
            headers.push((name.as_str(), Cow::Owned(value)));
        }
    }
    let forwarded = call.forward.iter().map(|name| name.as_str());
    let forwarded = forwarded.filter_map(|name| Some((name, sendable(passed.received.header(name)?)?)));
    let own = [("accept", Some("application/json")), ("content-type", call.body.content_type())];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in forwarded.chain(passed.trace.iter().copied()).chain(own) {
        if !headers.iter().any(|(known, _)| *known == name) {
            headers.push((name, Cow::Borrowed(value)));
        }
    }
    Ok(headers)
}

fn rendered(template: &Template, values: &Values<'_>) -> Result<String, Stop> {
    template.render(&|path| values.text(path)).map_err(|_: Refused| unfit([template]))
}

/// The client's fault, unless an answer has its part in it.
fn unfit<'t>(templates: impl IntoIterator<Item = &'t Template>) -> Stop {
    let mut paths = templates.into_iter().flat_map(Template::paths);
    let is_answers = paths.any(|path| whose(path) == Whose::Answer);
    Stop::Failed(Failure::Unfit(if is_answers { Whose::Answer } else { Whose::Request }))
}
