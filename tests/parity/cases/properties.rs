//! §8: properties.

use crate::case::{Case, Version, case, get, plain, post, reply};

const SECTION: &str = "§8";

/// Properties whose values are the same on both sides.
const SAME: [&str; 40] = [
    "request.path",
    "request.url_path",
    "request.query",
    "request.host",
    "request.scheme",
    "request.method",
    "request.headers.x-a",
    "request.headers.x-none",
    "request.referer",
    "request.useragent",
    "request.protocol",
    "request.size",
    "request",
    "request.no_such",
    "response.code",
    "response.code_details",
    "response.flags",
    "response.grpc_status",
    "response.headers.x-b",
    "response.headers.x-none",
    "response.size",
    "response.trailers",
    "response",
    "source",
    "connection.mtls",
    "connection.requested_server_name",
    "connection.tls_version",
    "connection.subject_peer_certificate",
    "connection.termination_details",
    "upstream.request_attempt_count",
    "upstream.tls_version",
    "upstream.num_endpoints",
    "upstream.transport_failure_reason",
    "metadata",
    "metadata.filter_metadata",
    "metadata.filter_metadata.no_such",
    "xds.cluster_name",
    "xds.route_name",
    "xds.virtual_host_name",
    "filter_state",
];

/// Properties whose values are each side's own, so that only their sizes are compared.
const OWN: [&str; 22] = [
    "request.id",
    "request.time",
    "request.duration",
    "response.backend_latency",
    "connection.id",
    "source.port",
    "destination.port",
    "upstream.port",
    "upstream.cx_pool_ready_duration",
    "upstream.locality",
    "xds.node.id",
    "xds.node.cluster",
    "xds.cluster_metadata",
    "xds.route_metadata",
    "xds.virtual_host_metadata",
    "xds.listener_metadata",
    "xds.upstream_host_metadata",
    "xds.listener_direction",
    "xds.filter_chain_name",
    "plugin_vm_id",
    "plugin_root_id",
    "no_such",
];

pub(crate) fn cases() -> Vec<Case> {
    let read = |path: &str, how: &str| {
        let get = format!("get_property {path}{how}");
        let script = format!("request_headers: {get} | response_headers: {get} | log: {get}");
        case(SECTION, format!("property-{}", path.replace(['.', '_'], "-")), script)
            .ask(get_request())
            .origin(reply(200, "answer").field("x-b", "1"))
    };
    let mut cases: Vec<Case> = SAME.iter().map(|path| read(path, "")).collect();
    cases.extend(OWN.iter().map(|path| read(path, " %len")));
    cases.extend(plain(
        SECTION,
        &[
            (
                "a-property-is-set",
                "request_headers: set_property mine 'a\\0b'; get_property mine; \
             get_property 'wasm.mine'; get_property 'filter_state\\0wasm.mine' | \
             response_headers: get_property mine | log: get_property mine",
            ),
            (
                "a-property-is-set-again",
                "request_headers: set_property mine 1; set_property mine ''; get_property mine",
            ),
            ("a-property-of-two-words-is-set", "request_headers: set_property mine.own 1; get_property mine.own"),
            (
                "a-property-of-the-hosts-is-not-changed",
                "request_headers: set_property request.path /changed; \
             get_property request.path",
            ),
            (
                "a-header-that-was-added-is-a-property",
                "request_headers: add_header_map_value 0 x-n 1; \
             add_header_map_value 0 x-n 2; get_property request.headers.x-n",
            ),
            (
                "old-names",
                "request_headers: get_property cluster_name; get_property route_name; \
             get_property listener_direction %len",
            ),
            (
                "properties-of-a-root",
                "request_headers: set_effective_context $root; get_property request.path; \
             get_property response.code; get_property plugin_vm_id; set_property a 1; get_property a; \
             get_property xds.node.id %len",
            ),
        ],
    ));
    cases.push(
        case(SECTION, "a-property-is-seen-by-the-next-filter", "request_headers: set_property handed on")
            .then("request_headers: get_property handed | response_headers: set_property back 1"),
    );
    cases.push(
        case(
            SECTION,
            "the-vm-id-is-a-property",
            "request_headers: get_property plugin_vm_id | log: get_property plugin_vm_id",
        )
        .vms(&[("p-one", "")]),
    );
    cases.push(
        case(
            SECTION,
            "request-properties-in-a-body",
            "request_body#1: get_property request.path; get_property request.headers.x-a",
        )
        .ask(post("body").field("x-a", "1")),
    );
    cases.push(
        case(
            SECTION,
            "response-properties-in-a-body",
            "response_body#1: get_property response.headers.x-b; get_property response.code",
        )
        .origin(reply(200, "answer").field("x-b", "1")),
    );
    cases.push(
        case(
            SECTION,
            "properties-over-http2",
            "request_headers: get_property request.protocol; get_property request.scheme; get_property request.host",
        )
        .ask(get("/h2/").version(Version::Http2)),
    );
    cases.push(
        case(
            SECTION,
            "the-size-of-a-body",
            "request_body(end): get_property request.size | log: get_property request.size",
        )
        .ask(post("body").version(Version::Chunked)),
    );
    cases.push(case(
        SECTION,
        "response-properties-of-a-local-response",
        "request_headers: send_local_response 403 'not now' no '' -1; \
         return 1 | log: get_property response.code; get_property response.code_details; \
         get_property response.size; get_property xds.cluster_name; get_property upstream.address; \
         get_property upstream.request_attempt_count; get_property response.flags",
    ));
    cases.push(
        case(
            SECTION,
            "response-properties-of-a-refusal",
            "log: get_property response.code; get_property response.flags; \
                 get_property upstream.request_attempt_count",
        )
        .ask(get("/refuses/")),
    );
    cases
}

fn get_request() -> crate::case::Ask {
    get("/a/b?c=d")
        .field("x-a", "1")
        .field("x-a", "2")
        .field("referer", "http://from.test/")
        .field("user-agent", "tests/1")
}
