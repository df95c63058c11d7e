//! §10: foreign functions.

use crate::case::{Case, case, plain};

const SECTION: &str = "§10";

/// Expressions in CEL and how their values are encoded.
const EXPRESSIONS: [(&str, &str); 16] = [
    ("a-number", "1 + 2"),
    ("a-text", "\"a\" + \"b\""),
    ("a-double", "1.5 * 2.0"),
    ("a-truth", "1 < 2 && !false"),
    ("a-choice", "true ? \"yes\" : \"no\""),
    ("the-path", "request.path"),
    ("the-method-compared", "request.method == \"GET\""),
    ("a-header", "request.headers[\"x-a\"]"),
    ("a-header-that-is-none", "request.headers[\"x-none\"]"),
    ("whether-a-header-is-there", "\"x-a\" in request.headers"),
    ("what-begins-so", "request.path.startsWith(\"/a\")"),
    ("a-size", "size(request.path)"),
    ("a-division-by-zero", "1 / 0"),
    ("an-unknown-name", "no_such.name"),
    ("a-list", "[1, 2]"),
    ("nothing", "null"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = plain(
        SECTION,
        &[
            (
                "a-compressed-text-is-uncompressed",
                "request_headers: call_foreign_function compress 'aaaaaaaaaaaaaaaaaaaa' =c; \
                     call_foreign_function uncompress $c",
            ),
            (
                "what-is-not-compressed-is-not-uncompressed",
                "request_headers: call_foreign_function uncompress nonsense",
            ),
            ("the-route-cache-is-cleared", "request_headers: call_foreign_function clear_route_cache ''"),
            ("an-answer-nobody-wants", "request_headers: call_foreign_function compress a @0 @0"),
            (
                "filter-state-that-is-unknown",
                "request_headers: call_foreign_function set_envoy_filter_state '\\x0a\\x04mine\\x12\\x011'",
            ),
            (
                "filter-state-that-is-malformed",
                "request_headers: call_foreign_function set_envoy_filter_state '\\xff\\xff'",
            ),
            (
                "a-property-is-declared",
                "request_headers: call_foreign_function declare_property '\\x0a\\x08declared\\x18\\x01'; \
                     set_property declared 1; get_property declared; \
                     call_foreign_function declare_property '\\x0a\\x08declared\\x18\\x01'",
            ),
            (
                "a-property-is-declared-for-reading",
                "request_headers: call_foreign_function declare_property '\\x0a\\x04once\\x10\\x01\\x18\\x01'; \
                     set_property once 1; set_property once 2; get_property once",
            ),
            ("a-declaration-that-is-malformed", "request_headers: call_foreign_function declare_property '\\xff\\xff'"),
            ("a-signature-without-a-key", "request_headers: call_foreign_function verify_signature '\\x0a\\x06sha256'"),
            (
                "a-signature-with-a-key-that-is-none",
                "request_headers: call_foreign_function verify_signature '\\x0a\\x06sha256\\x12\\x03abc\\x1a\\x03def\\x22\\x03ghi'",
            ),
            ("a-signature-is-not-made-without-a-key", "request_headers: call_foreign_function sign '\\x0a\\x06sha256'"),
            ("a-limit-of-nothing", "request_headers: call_foreign_function portcullis_limit ''"),
            ("an-expression-that-is-none", "request_headers: call_foreign_function expr_create '1 +'"),
            (
                "an-expression-that-is-unknown",
                "request_headers: call_foreign_function expr_evaluate '\\x7f\\0\\0\\0'; \
                     call_foreign_function expr_delete '\\x7f\\0\\0\\0'; call_foreign_function expr_evaluate x",
            ),
            (
                "an-expression-that-is-deleted",
                "request_headers: call_foreign_function expr_create '1' =e; \
                     call_foreign_function expr_delete $e; call_foreign_function expr_evaluate $e",
            ),
        ],
    );
    cases.extend(EXPRESSIONS.iter().map(|(name, text)| {
        let script = format!(
            "request_headers: call_foreign_function expr_create '{text}' =e; call_foreign_function expr_evaluate $e"
        );
        case(SECTION, format!("an-expression-of-{name}"), script).ask(crate::case::get("/a").field("x-a", "1"))
    }));
    cases
}
