//! What is told of requests, as operators write it: traces, the access log, and the collector that both can be sent to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::defaults;
use crate::config::written::{LogTarget, Text};

/// Which requests are traced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tracing {
    /// The share of the traces beginning here that is recorded, from 0 to 1. `otlp` says where they are sent.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sample: f64,
    /// Whose traces are continued.
    pub(crate) parents: Parents,
}

/// Whose traces are continued. For all others a new one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parents {
    /// Those of the listener's `trusted_proxies`, who also say whether a trace is recorded.
    #[default]
    Trusted,
    /// Everyone's; but whether a trace is recorded, only `trusted_proxies` say.
    Any,
    /// Nobody's.
    None,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { sample: defaults::TRACE_SHARE, parents: Parents::default() }
    }
}

/// Who is told how long a request took: as a whole, until the upstream's head, and in each filter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerTiming {
    /// The header field by which a request asks. Its value does not matter, and it goes no further.
    pub(crate) header: Text<http::HeaderName>,
    /// Whose requests are told.
    pub(crate) from: Askers,
}

/// Whose requests are told how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Askers {
    /// Those of the listener's `trusted_proxies`.
    #[default]
    Trusted,
    /// Everyone's that know the header field.
    Any,
}

impl Default for ServerTiming {
    fn default() -> Self {
        Self { header: Text(defaults::SERVER_TIMING), from: Askers::default() }
    }
}

/// The collector that traces and, if asked, the access log are sent to, by OTLP over HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"]))]
pub(crate) struct Otlp {
    /// The upstream where it listens: one that everyone sees.
    pub(crate) upstream: String,
    /// What the gateway calls itself there: `service.name`.
    #[schemars(length(min = 1))]
    pub(crate) service: String,
    /// Header fields of every request to it. Secrets by reference: `${file:…}`, `${env:…}`.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self { upstream: String::new(), service: defaults::SERVICE.to_owned(), headers: BTreeMap::new() }
    }
}

/// Where a line about each request goes: a target, or a mapping that says more.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AccessLog {
    /// `stdout`, `off`, or `file:PATH`, relative to this file.
    Target(Text<LogTarget>),
    /// What is written, and where.
    Settings(AccessLogSettings),
}

impl Default for AccessLog {
    fn default() -> Self {
        Self::Target(Text(LogTarget::Stdout))
    }
}

/// What is written about each request, and where.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLogSettings {
    /// `stdout`, `off`, or `file:PATH`, relative to this file. A file that was renamed or removed is opened anew, also at SIGHUP.
    pub(crate) to: Text<LogTarget>,
    /// The share of requests that is written, from 0 to 1. Those that fail, with a status from 500 on or none, always are.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sample: f64,
    /// Whether the lines are also sent to the collector under `otlp`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) otlp: bool,
    /// Whether each line says what every filter did, and how long it took.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) filters: bool,
    /// Request header fields that are written too. Values of those that hold credentials are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) request_headers: Vec<Text<http::HeaderName>>,
    /// Response header fields that are written too. Values of those that hold credentials are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) response_headers: Vec<Text<http::HeaderName>>,
    /// Properties that are written too, by the names that filters have set them by: `auth.consumer`. On Envoy, `wasm.NAME` of the filter
    /// state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub(crate) properties: Vec<String>,
}

impl Default for AccessLogSettings {
    fn default() -> Self {
        Self {
            to: Text(LogTarget::Stdout),
            sample: 1.0,
            otlp: false,
            filters: false,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            properties: Vec::new(),
        }
    }
}
