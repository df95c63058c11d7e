//! What Envoy calls the HTTP connection manager: how requests are read, what is made of their paths and fields, what is logged.

use portcullis_core::admission::Underscores;
use portcullis_core::path::Slashes;
use serde_json::{Map, Value, json};

use super::replies::local_replies;
use super::{Export, seconds, typed};
use crate::config::ForwardedCertificate;
use crate::config::snapshot::{AccessLog, Listener, LogTarget};

/// How long a client that was sent a PING may take to answer.
const PONG: &str = "20s";

/// Fields that say who the client is, and that only a trusted proxy may send.
const CLAIMS: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"];

/// Fields by which a client could tell Envoy's router what to do.
const ORDERS: [&str; 13] = [
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-ms",
];

/// The fields of a line of the access log.
const LINE: [(&str, &str); 17] = [
    ("time", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("tenant", "%METADATA(ROUTE:portcullis:tenant)%"),
    ("route", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%METADATA(ROUTE:portcullis:path)%"),
    ("target", "%PATH(NQ)%"),
    ("host", "%REQ(:AUTHORITY)%"),
    ("status", "%RESPONSE_CODE%"),
    ("reason", "%RESPONSE_CODE_DETAILS%"),
    ("duration_ms", "%DURATION%"),
    ("request_bytes", "%BYTES_RECEIVED%"),
    ("response_bytes", "%BYTES_SENT%"),
    ("source", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("protocol", "%PROTOCOL%"),
    ("upstream", "%UPSTREAM_CLUSTER%"),
    ("upstream_address", "%UPSTREAM_HOST%"),
];

/// More of them.
const LINE_END: [(&str, &str); 2] =
    [("user_agent", "%REQ(USER-AGENT)%"), ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")];

impl Export<'_> {
    pub(super) fn connection_manager(&mut self, listener: &Listener, hosts: &[Value]) -> Value {
        let routes = json!({
            "name": &*listener.name,
            "ignore_port_in_host_matching": true,
            "virtual_hosts": hosts,
        });
        let mut manager = Map::from_iter([
            ("stat_prefix".to_owned(), (*listener.name).into()),
            ("codec_type".to_owned(), "AUTO".into()),
            ("server_header_transformation".to_owned(), "PASS_THROUGH".into()),
            ("strip_trailing_host_dot".to_owned(), true.into()),
            ("preserve_external_request_id".to_owned(), true.into()),
            ("local_reply_config".to_owned(), local_replies()),
            ("access_log".to_owned(), self.access_log()),
            ("route_config".to_owned(), routes),
            ("http_filters".to_owned(), self.http_filters().into()),
        ]);
        for part in [paths(listener), times(listener), clients(listener), self.certificates(listener)] {
            if let Value::Object(part) = part {
                manager.extend(part);
            }
        }
        let manager = typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            Value::Object(manager),
        );
        json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
    }

    /// What upstreams are told of the client's certificate.
    fn certificates(&mut self, listener: &Listener) -> Value {
        let how = match listener.forwarded_certificate {
            ForwardedCertificate::Strip => "SANITIZE",
            ForwardedCertificate::Set => "SANITIZE_SET",
            ForwardedCertificate::Keep => "FORWARD_ONLY",
            ForwardedCertificate::Append => "APPEND_FORWARD",
        };
        if matches!(listener.forwarded_certificate, ForwardedCertificate::Keep | ForwardedCertificate::Append) {
            let node = self.places.named("listeners", &listener.name);
            let place = node.get("forward_client_certificate").unwrap_or(node);
            let text = "whoever shows a good certificate is believed, trusted proxy or not; others' word is removed";
            self.notes.lost(&place.span, text);
        }
        let told = json!({ "subject": true, "uri": true, "dns": true, "cert": listener.forwarded_pem });
        let tells = how != "SANITIZE" && how != "FORWARD_ONLY";
        json!({ "forward_client_cert_details": how, "set_current_client_cert_details": tells.then_some(told) })
    }

    fn access_log(&self) -> Value {
        let AccessLog { to, sample, request_headers, response_headers, properties, .. } = &self.snapshot.access_log;
        let mut line: Map<String, Value> = Map::new();
        line.extend(LINE.iter().chain(&LINE_END).map(|(name, value)| ((*name).to_owned(), (*value).into())));
        let fields = |names: &[http::HeaderName], word: &str| -> Value {
            names
                .iter()
                .map(|name| (name.to_string(), format!("%{word}({name})%").into()))
                .collect::<Map<_, _>>()
                .into()
        };
        if !request_headers.is_empty() {
            line.insert("request_headers".to_owned(), fields(request_headers, "REQ"));
        }
        if !response_headers.is_empty() {
            line.insert("response_headers".to_owned(), fields(response_headers, "RESP"));
        }
        if !properties.is_empty() {
            let state = |name: &String| (name.clone(), format!("%FILTER_STATE(wasm.{name}:PLAIN)%").into());
            line.insert("properties".to_owned(), properties.iter().map(state).collect::<Map<_, _>>().into());
        }
        let format = json!({ "json_format": line });
        let (name, config) = match to {
            LogTarget::Off => return json!([]),
            LogTarget::Stdout => ("envoy.access_loggers.stdout", json!({ "log_format": format })),
            LogTarget::File(path) => ("envoy.access_loggers.file", json!({ "path": path, "log_format": format })),
        };
        let message = match to {
            LogTarget::File(_) => "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            LogTarget::Off | LogTarget::Stdout => "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        };
        json!([{ "name": name, "filter": sampled(*sample), "typed_config": typed(message, config) }])
    }
}

/// A share of the requests, and all that fail.
fn sampled(share: f64) -> Value {
    if share >= 1.0 {
        return Value::Null;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
    let millionths = (share * 1e6).round() as u32;
    let some = json!({ "runtime_filter": {
        "runtime_key": "portcullis.access_log",
        "percent_sampled": { "numerator": millionths, "denominator": "MILLION" },
        "use_independent_randomness": true,
    } });
    let failed = json!({ "status_code_filter": { "comparison": {
        "op": "GE", "value": { "default_value": 500, "runtime_key": "portcullis.access_log.failed" },
    } } });
    json!({ "or_filter": { "filters": [some, failed] } })
}

/// The one form of a path, and what becomes of odd ones.
fn paths(listener: &Listener) -> Value {
    json!({
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": match listener.rules.slashes {
            Slashes::Reject => "REJECT_REQUEST",
            Slashes::Keep => "KEEP_UNCHANGED",
            Slashes::Decode => "UNESCAPE_AND_FORWARD",
        },
    })
}

/// How long clients may take, and what holds for their connections.
fn times(listener: &Listener) -> Value {
    let patience = &listener.patience;
    let ping = listener.http2.ping.map(|ping| json!({ "interval": seconds(ping), "timeout": PONG }));
    json!({
        "request_headers_timeout": seconds(patience.header),
        "stream_idle_timeout": seconds(patience.stream_idle),
        "request_timeout": patience.request.map(seconds),
        "common_http_protocol_options": {
            "idle_timeout": seconds(patience.idle),
            "headers_with_underscores_action": match listener.rules.underscores {
                Underscores::Drop => "DROP_HEADER",
                Underscores::Reject => "REJECT_REQUEST",
                Underscores::Allow => "ALLOW",
            },
        },
        "http2_protocol_options": {
            "max_concurrent_streams": listener.http2.max_streams,
            "connection_keepalive": ping,
        },
    })
}

/// Who the client is. Without trusted proxies nobody's word counts, and none of it goes further.
fn clients(listener: &Listener) -> Value {
    let removed = |names: &[&str]| {
        let mutations: Vec<Value> = names.iter().map(|name| json!({ "remove": name })).collect();
        let message = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
        let mutation = typed(message, json!({ "mutations": mutations }));
        json!([{ "name": "envoy.http.early_header_mutation.header_mutation", "typed_config": mutation }])
    };
    if listener.trusted_proxies.is_empty() {
        return json!({ "use_remote_address": true, "early_header_mutation_extensions": removed(&CLAIMS) });
    }
    let networks: Vec<Value> = listener
        .trusted_proxies
        .iter()
        .map(|net| json!({ "address_prefix": net.network().to_string(), "prefix_len": net.prefix_len() }))
        .collect();
    let xff = json!({ "xff_trusted_cidrs": { "cidrs": networks }, "skip_xff_append": false });
    let xff = typed("envoy.extensions.http.original_ip_detection.xff.v3.XffConfig", xff);
    json!({
        "use_remote_address": false,
        "original_ip_detection_extensions": [{ "name": "envoy.http.original_ip_detection.xff", "typed_config": xff }],
        "early_header_mutation_extensions": removed(&ORDERS),
    })
}
