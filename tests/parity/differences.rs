//! Which cases differ, in which respects, and for which reason. `docs/abi.md` explains the reasons.

use crate::case::Respect::{self, Log, Response, Upstream};

/// Name of the reason, respects, cases.
type Row = (&'static str, &'static [Respect], &'static [&'static str]);

const ROWS: &[Row] = &[
    ("own-functions", &[Log], &["a-limit-of-nothing"]),
    ("reply-without-exchange", &[Response, Upstream], &["a-root-sends-no-response"]),
    (
        "field-order",
        &[Log],
        &["an-added-header-is-appended", "a-replaced-header-takes-the-place-of-all", "headers-over-http2"],
    ),
    ("forwarded-proto", &[Response, Upstream], &["all-headers-are-set"]),
    (
        "pseudo-headers",
        &[Log],
        &[
            "pairs-of-nothing-leave-nothing",
            "short-pairs-are-none",
            "pairs-beyond-their-end-are-none",
            "pairs-with-a-rest-are-none",
            "pairs-without-their-ends-are-none",
        ],
    ),
    ("pseudo-headers", &[Response, Log], &["the-status-is-removed"]),
    ("pseudo-headers", &[Response], &["the-status-is-no-number"]),
    ("pseudo-headers", &[Response, Upstream], &["the-method-is-removed"]),
    ("pseudo-headers", &[Upstream, Log], &["a-second-path-is-added"]),
    ("own-replies", &[Response], &["the-path-is-removed", "headers-without-a-path-have-no-route"]),
    ("empty-host", &[Upstream], &["the-authority-is-removed"]),
    (
        "unwritable-fields",
        &[Response, Upstream],
        &["a-header-splits-the-message", "a-header-name-is-none", "a-request-says-how-it-is-framed"],
    ),
    ("route-stays", &[Response, Upstream], &["a-changed-path-chooses-the-route-again"]),
    ("route-stays", &[Response, Upstream, Log], &["the-old-route-is-told-until-then"]),
    (
        "middle-of-a-body",
        &[Upstream, Log],
        &["a-write-in-between-of-a-request", "a-write-over-the-middle-of-a-request"],
    ),
    (
        "middle-of-a-body",
        &[Response, Log],
        &["a-write-in-between-of-a-response", "a-write-over-the-middle-of-a-response"],
    ),
    (
        "configuration-anywhere",
        &[Log],
        &[
            "the-configuration-in-request-headers",
            "the-configuration-in-request-body",
            "the-configuration-in-response-headers",
            "the-configuration-in-response-body",
            "the-configuration-in-log",
            "the-configuration-in-http-call-response",
            "writes-to-the-configuration",
        ],
    ),
    ("end-with-the-data", &[Response], &["an-empty-end-can-be-written-to"]),
    (
        "end-with-the-data",
        &[Log],
        &[
            "a-request-with-a-body-ends-later",
            "a-response-with-a-body-ends-later",
            "callbacks-of-a-request",
            "callbacks-of-a-request-with-a-body",
            "callbacks-of-a-request-over-http2",
            "callbacks-of-two-filters",
            "the-second-of-three-replies-to-a-body",
            "nobody-replies",
            "headers-alone-are-held-back",
            "response-headers-alone-are-held-back",
        ],
    ),
    ("trailers-without-length", &[Response, Upstream], &["trailers-are-made-at-the-end"]),
    ("stale-length", &[Upstream], &["a-longer-request-with-its-old-length"]),
    (
        "stale-length",
        &[Response],
        &["a-longer-response-with-its-old-length", "a-response-over-http2-with-its-old-length"],
    ),
    (
        "own-replies",
        &[Response],
        &[
            "callbacks-when-an-upstream-refuses",
            "an-upstream-refuses",
            "a-changed-path-chooses-the-route-again-when-told",
            "a-trap-in-request-headers",
            "a-trap-in-a-request-body",
            "a-trap-in-response-headers",
            "an-exit-in-request-headers",
            "a-trap-in-the-second-of-two",
        ],
    ),
    ("own-retries", &[Response, Log], &["response-properties-of-a-refusal"]),
    (
        "parked-head",
        &[Response],
        &[
            "a-trap-in-a-response-body",
            "a-response-in-a-body-that-was-begun",
            "a-response-to-the-trailers-of-a-response",
            "a-response-body-is-closed",
        ],
    ),
    (
        "maps-at-the-ends",
        &[Log],
        &[
            "done-reads-no-map",
            "a-context-that-is-created-has-no-maps",
            "a-context-that-is-deleted-has-no-maps",
            "map-1-in-log",
        ],
    ),
    (
        "map-not-there",
        &[Log],
        &[
            "values-in-request-headers",
            "values-in-request-body",
            "values-in-request-trailers",
            "values-in-response-headers",
            "values-in-response-body",
            "values-in-response-trailers",
            "values-in-http-call-response",
        ],
    ),
    ("field-order", &[Log], &["map-0-in-request-headers", "map-0-in-http-call-response"]),
    (
        "size-of-what-is-read",
        &[Log],
        &[
            "map-0-in-log",
            "map-2-in-log",
            "map-3-in-log",
            "map-6-in-http-call-response",
            "a-call-is-answered",
            "a-call-with-a-body",
            "a-call-with-a-host",
            "a-call-with-a-scheme",
            "a-call-over-http2",
            "a-call-answered-with-trailers",
            "a-call-answered-with-nothing",
        ],
    ),
    ("grpc-length", &[Upstream], &["a-grpc-call-is-answered", "grpc-tokens-count-up"]),
    (
        "grpc-words",
        &[Upstream, Log],
        &[
            "a-grpc-call-fails",
            "a-grpc-call-fails-with-its-headers",
            "a-grpc-call-is-answered-by-http",
            "a-grpc-call-is-answered-by-nothing",
            "a-grpc-call-that-takes-too-long",
        ],
    ),
    (
        "grpc-words",
        &[Log],
        &[
            "a-grpc-stream-is-told",
            "a-grpc-stream-is-closed",
            "a-grpc-stream-fails",
            "a-grpc-stream-fails-at-once",
            "a-grpc-call-that-is-refused",
        ],
    ),
    ("call-trailers", &[Upstream, Log], &["a-call-with-trailers"]),
    ("own-fields", &[Log], &["a-call-says-how-much-came"]),
    ("numbers", &[Log], &["shared-data-has-numbers", "queues-have-numbers", "metrics-have-numbers"]),
    ("gauge-floor", &[Log], &["a-gauge-below-zero"]),
    ("filter-state", &[Log], &["filter-state-that-is-unknown"]),
    ("declared-for-reading", &[Log], &["a-property-is-declared-for-reading"]),
    (
        "request-attributes",
        &[Log],
        &[
            "property-request-path",
            "property-request-url-path",
            "property-request-query",
            "property-request-host",
            "property-request-scheme",
            "property-request-method",
            "property-request-headers-x-a",
            "property-request-referer",
            "property-request-useragent",
            "property-request-id",
            "request-properties-in-a-body",
            "response-properties-in-a-body",
        ],
    ),
    ("endpoints-before-the-request", &[Log], &["property-upstream-num-endpoints"]),
    ("times-beyond", &[Log], &["an-expression-of-a-time-beyond-the-last"]),
    ("large-expressions", &[Log], &["an-expression-of-a-match-of-a-large-expression"]),
    ("property-of-two-words", &[Log], &["a-property-of-two-words-is-set"]),
    ("old-names", &[Log], &["old-names"]),
    ("type-without-body", &[Response], &["a-response-with-a-type-and-no-body"]),
    ("bodiless-reply", &[Response], &["a-response-of-no-content-with-a-body", "a-response-of-nothing-new-with-a-body"]),
    (
        "reply-status",
        &[Response],
        &[
            "a-response-with-status-0",
            "a-response-with-status-99",
            "a-response-with-status-100",
            "a-response-with-status-1000",
        ],
    ),
    ("reply-length-in-log", &[Log], &["the-details-of-a-response"]),
    ("details-word", &[Log], &["a-response-without-details", "a-request-is-closed"]),
    ("headers-after-resume", &[Upstream, Log], &["headers-after-going-on"]),
    ("sent-twice", &[Upstream], &["going-on-in-the-callback-that-goes-on"]),
    (
        "resume-in-response",
        &[Response],
        &["going-on-in-the-response", "response-headers-after-going-on", "the-oldest-abi-goes-on"],
    ),
];

/// Why a case differs, and in which respects; nothing for one that does not.
pub(crate) fn of(case: &str) -> Option<(&'static str, &'static [Respect])> {
    ROWS.iter().find(|(.., cases)| cases.contains(&case)).map(|(why, respects, _)| (*why, *respects))
}

/// The cases that differ.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().flat_map(|(.., cases)| *cases).copied()
}
