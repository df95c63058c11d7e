//! Settings as an operator writes them.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use portcullis_sdk::schema::{Piece, Schema};
use portcullis_sdk::{Config, HeaderName, HeaderText, Period, Upstream};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The deepest document that anything here reads: parsers of JSON stop at 128, and the reply adds some levels of its own.
pub(crate) const MAX_DEPTH: usize = 100;

/// One JSON reply out of the answers of several upstreams.
#[derive(Config)]
pub(crate) struct Settings {
    /// Requests that are answered so, by path and method; others pass.
    endpoints: Vec<EndpointSettings>,
    /// Values that templates name as `${env.NAME}`.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// Requests that get one reply out of several calls.
#[derive(Config)]
struct EndpointSettings {
    /// Their path, with names for segments: `/users/{id}`; `*` at the end is the rest, named `rest`. Any path unless told otherwise.
    path: Option<String>,
    /// Their methods; GET unless told otherwise. HEAD is answered where GET is.
    methods: Option<Vec<String>>,
    /// The calls, at most 16. They are made at the same time, except those that need the answer of another.
    calls: Vec<CallSettings>,
    /// What is made of the answers.
    #[serde(default)]
    reply: ReplySettings,
    /// Headers of the request that calls get; no others do, except those that trace it.
    #[serde(default)]
    forward_headers: Vec<HeaderName>,
    /// How long all calls may take together; 5s unless told otherwise.
    deadline: Option<Period>,
    /// How many calls a request may cause in all; 32 unless told otherwise, 128 at most.
    max_calls: Option<usize>,
    /// How long all answers together may be; 1 MiB unless told otherwise.
    max_answers_bytes: Option<usize>,
    /// How long the body of a request may be, if a template names it; 64 KiB unless told otherwise.
    max_request_bytes: Option<usize>,
}

/// One call.
#[derive(Config)]
struct CallSettings {
    /// Its name: letters, digits, `_` and `-`. Also the field of the reply in which its result stands, unless `place` says otherwise.
    name: String,
    /// Who is called.
    upstream: Upstream,
    /// A template of the path, with a query if it needs one: `/users/${captures.id}`. Without all of its values, the call is not made.
    path: String,
    /// Parameters to add to the path, as texts or templates. One whose value is not there is left out.
    #[serde(default)]
    query: serde_json::Map<String, Value>,
    /// The method; GET unless told otherwise, or POST if there is a body.
    method: Option<String>,
    /// The host that is asked for; the upstream's name unless told otherwise.
    host: Option<String>,
    /// Headers, as texts or templates. One whose value is not there is left out.
    #[serde(default)]
    headers: BTreeMap<HeaderName, HeaderText>,
    /// Headers of the request that this call gets, instead of the endpoint's.
    forward_headers: Option<Vec<HeaderName>>,
    /// A body of JSON, in whose texts values may stand. A text that is nothing but one value becomes that value.
    body: Option<Value>,
    /// A template of a body that is no JSON; its `content-type` is under `headers`.
    text: Option<String>,
    /// How long one attempt may take; 1s unless told otherwise.
    timeout: Option<Period>,
    /// Whether it is made again when there is no answer, or one with the status 502, 503 or 504.
    retry: Option<RetrySettings>,
    /// That making it twice does no more than making it once, so that it may be retried, and shares the answer of an equal call. By
    /// its method unless told otherwise.
    idempotent: Option<bool>,
    /// Calls that have to be over before this one is made, beside those that its templates name.
    #[serde(default)]
    after: Vec<String>,
    /// A condition; the call is made only if it holds.
    when: Option<WhenSettings>,
    /// Makes this call for each item of an array, such as `${calls.orders.body./items}`; templates name the item as `${item}`.
    each: Option<EachSettings>,
    /// That the reply is made without it if it fails.
    #[serde(default)]
    optional: bool,
    /// What stands in the reply if it fails.
    #[serde(default)]
    default: Json,
    /// What its answer is read as; JSON unless told otherwise.
    #[serde(default)]
    read_as: ReadAs,
    /// How long its answer may be; 256 KiB unless told otherwise.
    max_bytes: Option<usize>,
    /// How deep arrays and objects in its answer may lie in each other; 32 unless told otherwise, 100 at most.
    max_depth: Option<usize>,
    /// Statuses of its answer, and those that clients get if the request fails for them: `{ "404": 404 }`.
    #[serde(default)]
    statuses: BTreeMap<u16, u16>,
    /// What is done to its answer on the way into the reply, in order.
    #[serde(default)]
    shape: Vec<StepSettings>,
    /// Where its result stands in the reply, as a JSON Pointer: `/user/orders`. `""` is the reply itself, whose fields it joins.
    place: Option<String>,
    /// That its result is for other calls only, and not in the reply.
    #[serde(default)]
    hidden: bool,
}

/// How a call is made again.
#[derive(Config)]
struct RetrySettings {
    /// How often, at most; 5 at most.
    times: u32,
    /// How long after the first attempt; twice as long after each further one. 25ms unless told otherwise.
    backoff: Option<Period>,
}

/// A condition: that a value is there, and neither empty nor `false`, or that it is one of some texts, or none of them.
#[derive(Config)]
struct WhenSettings {
    /// A template of the value.
    value: String,
    /// It is one of these.
    is: Option<Vec<String>>,
    /// It is none of these.
    is_not: Option<Vec<String>>,
}

/// A call for each item of an array.
#[derive(Config)]
struct EachSettings {
    /// The array, as a template: `${calls.orders.body./items}`.
    of: String,
    /// How many items it may have; 20 unless told otherwise.
    max_items: Option<usize>,
    /// How many calls are made at the same time; 8 unless told otherwise.
    concurrency: Option<usize>,
}

/// What the body of an answer is.
#[derive(Clone, Copy, Config, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum ReadAs {
    /// JSON.
    #[default]
    Json,
    /// Text, which becomes a string.
    Text,
}

/// The reply.
#[derive(Config, Default)]
struct ReplySettings {
    /// Its status; 200 unless told otherwise.
    status: Option<u16>,
    /// Headers, as texts or templates. One whose value is not there is left out.
    #[serde(default)]
    headers: BTreeMap<HeaderName, HeaderText>,
    /// Headers of answers that the client gets: every `set-cookie`, one `cache-control` that allows no more than any of the answers
    /// does, of others the first.
    #[serde(default)]
    forward_headers: Vec<HeaderName>,
    /// What is done to the reply when all results stand in it, in order.
    #[serde(default)]
    shape: Vec<StepSettings>,
    /// The field that names the calls that failed; `partial` unless told otherwise, and none if it is `""`.
    partial: Option<String>,
    /// Whether it gets an entity tag, and `If-None-Match` an answer. It does unless told otherwise.
    etag: Option<bool>,
    /// How long it may be; 1 MiB unless told otherwise.
    max_bytes: Option<usize>,
}

/// One change to a document. Places are JSON Pointers, in which `*` is every item of an array.
#[derive(Config)]
#[serde(rename_all = "snake_case")]
enum StepSettings {
    /// The document becomes what is at this place.
    Take(String),
    /// Only what is at these places stays.
    Pick(Vec<String>),
    /// What is at these places goes.
    Drop(Vec<String>),
    /// Fields get other names: `{ /mail: email }`.
    Rename(BTreeMap<String, String>),
    /// The fields of the object at this place go up into what holds it; an array of arrays becomes one array.
    Flatten(String),
    /// Every item of one array gets the item of another that has the same key.
    Join(JoinSettings),
}

/// Every item of one array gets the item of another that has the same key.
#[derive(Config)]
struct JoinSettings {
    /// The array whose items get something.
    into: String,
    /// The key, in each of them.
    by: String,
    /// The array whose items they get.
    from: String,
    /// The key, in each of those.
    key: String,
    /// The field in which they get it.
    #[serde(rename = "as")]
    name: String,
    /// That they get an array of all that have the key, and not the first alone.
    #[serde(default)]
    all: bool,
}

/// Any JSON, as it is written; `null` too, which is not the same as nothing.
#[derive(Default)]
struct Json(Option<Box<RawValue>>);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|json| Self(Some(json)))
    }
}

impl Schema for Json {
    const SCHEMA: &'static [Piece] = &[Piece::Text("true")];
}
