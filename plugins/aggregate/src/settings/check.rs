//! Settings as the policy reads them: templates compiled, names resolved, cycles refused.

use std::collections::BTreeMap;
use std::time::Duration;

use plugin_common::pattern::Pattern;
use plugin_common::template::{Target, Template};
use portcullis_sdk::{HeaderName, HeaderText, Period};
use serde_json::Value;

use super::{
    CallSettings, EachSettings, EndpointSettings, JoinSettings, MAX_DEPTH, ReadAs, ReplySettings, RetrySettings,
    Settings, StepSettings, WhenSettings,
};
use crate::graph::acyclic;
use crate::json::text::quoted;
use crate::outcome::Document;
use crate::plan::{Call, Each, Endpoint, Form, Otherwise, Place, Plan, Reply, Retry, Test, When};
use crate::pointer::Pointer;
use crate::shape::{Join, Matches, Step};
use crate::values::Names;
use crate::written::{Body, Node};

/// An endpoint has so many calls at most, those for each item counted once.
const MAX_CALLS: usize = 16;
/// Hosts allow no more at the same time, and no request should come near it.
const MOST_CALLS: usize = 128;
/// A place in the reply is no deeper than this.
const MAX_PLACE: usize = 8;
/// With these, answers would come in a form that is not read here.
const UNREADABLE: [&str; 7] =
    ["accept-encoding", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"];

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Plan, String> {
        if self.endpoints.is_empty() {
            return Err("`endpoints` is empty".to_owned());
        }
        let env = self.env;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (at, endpoint) in self.endpoints.into_iter().enumerate() {
            let endpoint = endpoint.checked(&env).map_err(|why| format!("`endpoints[{at}]`: {why}"))?;
            let same = |other: &Endpoint| {
                other.pattern.precedence(&endpoint.pattern).is_eq()
                    && other.methods.iter().any(|method| endpoint.methods.contains(method))
            };
            if endpoints.iter().any(same) {
                return Err(format!("`endpoints[{at}]`: another endpoint has this path and method"));
            }
            endpoints.push(endpoint);
        }
        endpoints.sort_by(|one, other| one.pattern.precedence(&other.pattern));
        Ok(Plan { env, endpoints })
    }
}

/// A setting of time, which may not be none at all.
fn period(name: &str, period: Option<Period>, otherwise: Duration) -> Result<Duration, String> {
    let period = period.map_or(otherwise, |period| period.0);
    if period.is_zero() { Err(format!("`{name}` is at least 1ms")) } else { Ok(period) }
}

fn at_most(name: &str, number: Option<usize>, otherwise: usize, most: usize) -> Result<usize, String> {
    let number = number.unwrap_or(otherwise);
    if (1..=most).contains(&number) { Ok(number) } else { Err(format!("`{name}` is 1 to {most}")) }
}

impl EndpointSettings {
    fn checked(self, env: &BTreeMap<String, String>) -> Result<Endpoint, String> {
        let pattern = Pattern::parse(self.path.as_deref().unwrap_or("/*")).map_err(|why| format!("`path`: {why}"))?;
        let methods = self.methods.unwrap_or_else(|| vec!["GET".to_owned()]);
        if methods.is_empty() || !methods.iter().all(|method| is_method(method)) {
            return Err("`methods` are words in upper case, such as GET".to_owned());
        }
        if self.calls.is_empty() || self.calls.len() > MAX_CALLS {
            return Err(format!("`calls` has 1 to {MAX_CALLS} entries"));
        }
        forwardable("forward_headers", &self.forward_headers)?;
        let named: Vec<(String, bool)> =
            self.calls.iter().map(|call| (call.name.clone(), call.each.is_some())).collect();
        for (at, (name, _)) in named.iter().enumerate() {
            if named.iter().take(at).any(|(other, _)| other == name) {
                return Err(format!("`calls[{at}]`: the name `{name}` is taken"));
            }
        }
        let names = |has_item| Names {
            env,
            captures: pattern.names().collect(),
            calls: named.iter().map(|(name, each)| (name.as_str(), *each)).collect(),
            has_item,
        };
        let mut calls = Vec::new();
        for (at, call) in self.calls.into_iter().enumerate() {
            let known = names(call.each.is_some());
            let call = call.checked(&known, &self.forward_headers).map_err(|why| format!("`calls[{at}]`: {why}"))?;
            calls.push(call);
        }
        let texts: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        let after: Vec<Vec<usize>> = calls.iter().map(|call| call.after.clone()).collect();
        acyclic(&texts, &after)?;
        let reply = self.reply.checked(&names(false), &calls).map_err(|why| format!("`reply`: {why}"))?;
        let reads_body = calls.iter().any(reads_body) || reply.headers.iter().any(|(_, template)| names_body(template));
        Ok(Endpoint {
            max_request_bytes: reads_body.then(|| self.max_request_bytes.unwrap_or(64 * 1024)),
            deadline: period("deadline", self.deadline, Duration::from_secs(5))?,
            max_answers_bytes: self.max_answers_bytes.unwrap_or(1024 * 1024),
            max_calls: at_most("max_calls", self.max_calls, 32, MOST_CALLS)?,
            pattern,
            methods,
            calls,
            reply,
        })
    }
}

fn is_method(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

fn forwardable(setting: &str, names: &[HeaderName]) -> Result<(), String> {
    match names.iter().find(|name| UNREADABLE.contains(&name.as_str())) {
        Some(name) => Err(format!("`{setting}`: with `{name}`, answers would come in a form that is not read here")),
        None => Ok(()),
    }
}

/// The templates of a call.
fn templates(call: &Call) -> Vec<&Template> {
    let mut templates = vec![&call.path];
    templates.extend(call.query.iter().map(|(_, template)| template));
    templates.extend(call.headers.iter().map(|(_, template)| template));
    templates.extend(call.body.templates());
    templates.extend(call.when.iter().map(|when| &when.value));
    templates
}

fn is_body(path: &[String]) -> bool {
    matches!(path, [request, body, ..] if request == "request" && body == "body")
}

fn names_body(template: &Template) -> bool {
    template.paths().any(is_body)
}

fn reads_body(call: &Call) -> bool {
    templates(call).into_iter().any(names_body) || call.each.as_ref().is_some_and(|each| is_body(&each.items))
}

fn compiled(name: &str, text: &str, target: Target, names: &Names<'_>) -> Result<Template, String> {
    Template::compile(text, target, &|path| names.known(path)).map_err(|why| format!("`{name}`: {why}"))
}

fn headers(texts: BTreeMap<HeaderName, HeaderText>, names: &Names<'_>) -> Result<Vec<(HeaderName, Template)>, String> {
    let compile = |(name, text): (HeaderName, HeaderText)| {
        compiled(&format!("headers.{name}"), &text, Target::Header, names).map(|template| (name, template))
    };
    texts.into_iter().map(compile).collect()
}

impl CallSettings {
    fn checked(self, names: &Names<'_>, forward: &[HeaderName]) -> Result<Call, String> {
        if self.name.is_empty() || !self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(format!("`name` is `{}`: write letters, digits, `-` and `_`", self.name));
        }
        if self.upstream.name().is_empty() {
            return Err("`upstream` is empty".to_owned());
        }
        forwardable("headers", &self.headers.keys().cloned().collect::<Vec<_>>())?;
        forwardable("forward_headers", self.forward_headers.as_deref().unwrap_or_default())?;
        let place = place(&self.name, self.place, self.hidden)?;
        let body = body(self.body, self.text, names)?;
        let method = self.method.unwrap_or_else(|| if matches!(body, Body::Empty) { "GET" } else { "POST" }.to_owned());
        if !is_method(&method) {
            return Err(format!("`method` is `{method}`: write a word in upper case, such as PUT"));
        }
        // RFC 9110 §9.2.2.
        let by_method = matches!(method.as_str(), "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS");
        let idempotent = self.idempotent.unwrap_or(by_method);
        let mut call = Call {
            path: compiled("path", &self.path, Target::Path, names)?,
            query: query(self.query, names)?,
            host: self.host.unwrap_or_else(|| self.upstream.name().to_owned()),
            headers: headers(self.headers, names)?,
            forward: self.forward_headers.unwrap_or_else(|| forward.to_vec()),
            body,
            timeout: period("timeout", self.timeout, Duration::from_secs(1))?,
            retry: self.retry.map(|retry| retry.checked(&method, idempotent)).transpose()?.unwrap_or_default(),
            idempotent,
            after: Vec::new(),
            when: self.when.map(|when| when.checked(names)).transpose()?,
            each: self.each.map(|each| each.checked(names)).transpose()?,
            otherwise: otherwise(self.optional, self.default.0)?,
            form: match self.read_as {
                ReadAs::Json => Form::Json,
                ReadAs::Text => Form::Text,
            },
            max_bytes: self.max_bytes.unwrap_or(256 * 1024),
            max_depth: at_most("max_depth", self.max_depth, 32, MAX_DEPTH)?,
            statuses: statuses(self.statuses)?,
            shape: steps(self.shape)?,
            place,
            name: self.name,
            upstream: self.upstream,
            method,
        };
        call.after = after(&call, &self.after, names)?;
        Ok(call)
    }
}

fn place(name: &str, place: Option<String>, hidden: bool) -> Result<Place, String> {
    let text = match (place, hidden) {
        (Some(_), true) => return Err("`place` and `hidden` are both there: write one".to_owned()),
        (None, true) => return Ok(Place::Nowhere),
        (None, false) => return Ok(Place::At(vec![quoted(name)])),
        (Some(text), false) => text,
    };
    let pointer = Pointer::parse(&text).map_err(|why| format!("`place`: {why}"))?;
    match pointer.names() {
        Some(names) if names.is_empty() => Ok(Place::Merged),
        Some(names) if names.len() <= MAX_PLACE => Ok(Place::At(names)),
        Some(_) => Err(format!("`place` has more than {MAX_PLACE} names")),
        None => Err("`place` is one place; it has no `*`".to_owned()),
    }
}

fn body(json: Option<Value>, text: Option<String>, names: &Names<'_>) -> Result<Body, String> {
    match (json, text) {
        (None, None) => Ok(Body::Empty),
        (Some(json), None) => {
            Node::compile(json, &|path| names.known(path)).map(Body::Json).map_err(|why| format!("`body`: {why}"))
        }
        (None, Some(text)) => compiled("text", &text, Target::Text, names).map(Body::Text),
        (Some(_), Some(_)) => Err("`body` and `text` are both there: write one".to_owned()),
    }
}

fn query(texts: serde_json::Map<String, Value>, names: &Names<'_>) -> Result<Vec<(String, Template)>, String> {
    let compile = |(name, value): (String, Value)| {
        let text = match value {
            Value::String(text) => text,
            plain @ (Value::Bool(_) | Value::Number(_)) => plain.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return Err(format!("`query.{name}` is not a text")),
        };
        compiled(&format!("query.{name}"), &text, Target::Text, names).map(|template| (name, template))
    };
    texts.into_iter().map(compile).collect()
}

fn otherwise(optional: bool, default: Option<Box<serde_json::value::RawValue>>) -> Result<Otherwise, String> {
    match (optional, default) {
        (false, None) => Ok(Otherwise::Refuse),
        (true, None) => Ok(Otherwise::LeaveOut),
        (false, Some(json)) => Ok(Otherwise::StandIn(Document::of(json.get().to_owned()))),
        (true, Some(_)) => {
            Err("`optional` and `default` are both there: a call is left out, or something stands in for it".to_owned())
        }
    }
}

fn statuses(statuses: BTreeMap<u16, u16>) -> Result<BTreeMap<u16, u16>, String> {
    match statuses.values().find(|told| !(400..600).contains(*told)) {
        Some(told) => Err(format!("`statuses` has {told}, and a refusal's status is 400 to 599")),
        None => Ok(statuses),
    }
}

/// The calls that a call waits for: those it says, and those that its templates name.
fn after(call: &Call, written: &[String], names: &Names<'_>) -> Result<Vec<usize>, String> {
    let place = |name: &str| names.calls.iter().position(|(known, _)| *known == name);
    let mut after = Vec::new();
    for name in written {
        after.push(place(name).ok_or_else(|| format!("`after`: there is no call `{name}`"))?);
    }
    let named = templates(call).into_iter().flat_map(Template::paths);
    let named = named.chain(call.each.as_ref().map(|each| each.items.as_slice()));
    after.extend(named.filter_map(|path| match path {
        [calls, name, ..] if calls == "calls" => place(name),
        _ => None,
    }));
    after.sort_unstable();
    after.dedup();
    Ok(after)
}

impl RetrySettings {
    fn checked(self, method: &str, idempotent: bool) -> Result<Retry, String> {
        if !idempotent {
            return Err(format!(
                "`retry`: a {method} made twice may do twice as much; write `idempotent: true` if this one does not"
            ));
        }
        if !(1..=5).contains(&self.times) {
            return Err("`retry.times` is 1 to 5".to_owned());
        }
        Ok(Retry { times: self.times, backoff: period("retry.backoff", self.backoff, Duration::from_millis(25))? })
    }
}

impl WhenSettings {
    fn checked(self, names: &Names<'_>) -> Result<When, String> {
        let test = match (self.is, self.is_not) {
            (None, None) => Test::Holds,
            (Some(texts), None) => Test::Is(texts),
            (None, Some(texts)) => Test::IsNot(texts),
            (Some(_), Some(_)) => return Err("`when.is` and `when.is_not` are both there: write one".to_owned()),
        };
        Ok(When { value: compiled("when.value", &self.value, Target::Text, names)?, test })
    }
}

impl EachSettings {
    fn checked(self, names: &Names<'_>) -> Result<Each, String> {
        let names =
            Names { has_item: false, captures: names.captures.clone(), calls: names.calls.clone(), env: names.env };
        let template = compiled("each.of", &self.of, Target::Text, &names)?;
        let items = template.sole_path().map(<[String]>::to_vec);
        Ok(Each {
            items: items.ok_or("`each.of` is one value, such as ${calls.orders.body./items}")?,
            max_items: at_most("each.max_items", self.max_items, 20, MOST_CALLS)?,
            concurrency: at_most("each.concurrency", self.concurrency, 8, MOST_CALLS)?,
        })
    }
}

impl ReplySettings {
    fn checked(self, names: &Names<'_>, calls: &[Call]) -> Result<Reply, String> {
        let status = self.status.unwrap_or(200);
        if !(200..300).contains(&status) || matches!(status, 204 | 205) {
            return Err(format!(
                "`status` is {status}, and that of a reply with a body is 200 to 299, but not 204 or 205"
            ));
        }
        let partial = self.partial.unwrap_or_else(|| "partial".to_owned());
        let field = quoted(&partial);
        let taken = |call: &Call| matches!(&call.place, Place::At(names) if names.first() == Some(&field));
        if let Some(call) = calls.iter().find(|call| taken(call)) {
            return Err(format!(
                "`partial`: the call `{}` has the field `{partial}`; name another for the calls that failed",
                call.name
            ));
        }
        Ok(Reply {
            status,
            headers: headers(self.headers, names)?,
            forward: self.forward_headers,
            shape: steps(self.shape)?,
            partial: Some(partial).filter(|name| !name.is_empty()),
            etag: self.etag.unwrap_or(true),
            max_bytes: self.max_bytes.unwrap_or(1024 * 1024),
        })
    }
}

fn steps(steps: Vec<StepSettings>) -> Result<Vec<Step>, String> {
    let checked =
        steps.into_iter().enumerate().map(|(at, step)| step.checked().map_err(|why| format!("`shape[{at}]`: {why}")));
    checked.collect()
}

fn pointers(texts: Vec<String>) -> Result<Vec<Pointer>, String> {
    texts.iter().map(|text| Pointer::parse(text)).collect()
}

impl StepSettings {
    fn checked(self) -> Result<Step, String> {
        Ok(match self {
            Self::Take(place) => Step::Take(Pointer::parse(&place)?),
            Self::Pick(places) => Step::Pick(pointers(places)?),
            Self::Drop(places) => Step::Drop(pointers(places)?),
            Self::Rename(places) => {
                let places =
                    places.into_iter().map(|(place, name)| Pointer::parse(&place).map(|place| (place, quoted(&name))));
                Step::Rename(places.collect::<Result<_, _>>()?)
            }
            Self::Flatten(place) => Step::Flatten(Pointer::parse(&place)?),
            Self::Join(join) => Step::Join(join.checked()?),
        })
    }
}

impl JoinSettings {
    fn checked(self) -> Result<Join, String> {
        Ok(Join {
            into: Pointer::parse(&self.into)?,
            by: Pointer::parse(&self.by)?,
            from: Pointer::parse(&self.from)?,
            key: Pointer::parse(&self.key)?,
            name: quoted(&self.name),
            matches: if self.all { Matches::All } else { Matches::First },
        })
    }
}
