//! §6.2: header maps where they are at hand.

use crate::case::{Case, Version, case, get, plain, post, reply};

const SECTION: &str = "§6.2";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = requests();
    cases.extend(responses());
    cases.extend(pseudo());
    cases.extend(route());
    cases
}

fn requests() -> Vec<Case> {
    let sent = || get("/").field("x-a", "1").field("X-Many", "a").field("x-many", "b").field("x-empty", "");
    let rows = [
        ("a-header-is-found-in-any-case", "request_headers: get_header_map_value 0 X-A; get_header_map_value 0 x-a"),
        (
            "an-absent-header-is-not-found",
            "request_headers: get_header_map_value 0 x-none; \
             get_header_map_value 0 ''",
        ),
        ("an-empty-header-is-found", "request_headers: get_header_map_value 0 x-empty"),
        ("of-many-headers-the-first-is-found", "request_headers: get_header_map_value 0 x-many"),
        ("pairs-come-in-lower-case-and-in-order", "request_headers: get_header_map_pairs 0 %pairs"),
        (
            "an-added-header-is-appended",
            "request_headers: add_header_map_value 0 X-A 2; \
             get_header_map_pairs 0 %pairs",
        ),
        ("an-added-header-may-be-new", "request_headers: add_header_map_value 0 x-new 'a b'"),
        (
            "an-added-header-may-be-empty",
            "request_headers: add_header_map_value 0 x-new ''; get_header_map_value 0 x-new",
        ),
        (
            "a-replaced-header-takes-the-place-of-all",
            "request_headers: replace_header_map_value 0 X-MANY c; get_header_map_pairs 0 %pairs",
        ),
        ("a-replaced-header-may-be-new", "request_headers: replace_header_map_value 0 x-new 1"),
        (
            "a-replaced-header-may-be-emptied",
            "request_headers: replace_header_map_value 0 x-a ''; get_header_map_value 0 x-a",
        ),
        (
            "all-of-a-name-are-removed",
            "request_headers: remove_header_map_value 0 X-Many; get_header_map_value 0 x-many",
        ),
        ("nothing-can-be-removed", "request_headers: remove_header_map_value 0 x-none; remove_header_map_value 0 ''"),
        (
            "all-headers-are-set",
            "request_headers: set_header_map_pairs 0 {:method=PUT :path=/set :authority=set.test :scheme=http X-B=1 x-c= X-B=2}",
        ),
        (
            "host-is-authority",
            "request_headers: get_header_map_value 0 host; get_header_map_value 0 :authority; \
                 get_header_map_value 0 Host",
        ),
        ("values-keep-their-case", "request_headers: add_header_map_value 0 x-new 'MiXed'"),
        (
            "values-may-be-any-text",
            "request_headers: add_header_map_value 0 x-new '\\xc3\\xa9 \\xff'; get_header_map_value 0 x-new",
        ),
        (
            "a-value-keeps-its-blanks",
            "request_headers: add_header_map_value 0 x-new 'a  b'; get_header_map_value 0 x-new",
        ),
        (
            "there-is-no-such-map",
            "request_headers: get_header_map_value 8 a; get_header_map_pairs 8; get_header_map_size 8; \
                 set_header_map_pairs 8 {a=1}; \
             add_header_map_value 8 a 1; replace_header_map_value 8 a 1; remove_header_map_value 8 a; get_header_map_value -1 a",
        ),
        (
            "pairs-of-nothing-leave-nothing",
            "response_headers: set_header_map_pairs 2 ''; get_header_map_pairs 2 %pairs; \
                 replace_header_map_value 2 :status 200",
        ),
    ];
    rows.iter().map(|(name, script)| case(SECTION, *name, *script).ask(sent())).collect()
}

fn responses() -> Vec<Case> {
    let answer = || reply(200, "ok").field("x-a", "1").field("X-Many", "a").field("x-many", "b");
    let rows = [
        ("a-response-header-is-found", "response_headers: get_header_map_value 2 X-A; get_header_map_value 2 x-many"),
        (
            "a-response-header-is-added",
            "response_headers: add_header_map_value 2 X-A 2; add_header_map_value 2 X-New 3",
        ),
        ("a-response-header-is-replaced", "response_headers: replace_header_map_value 2 x-many c"),
        (
            "a-response-header-is-removed",
            "response_headers: remove_header_map_value 2 x-many; remove_header_map_value 2 x-a",
        ),
        ("response-pairs-come-in-order", "response_headers: get_header_map_pairs 2 %pairs"),
        ("all-response-headers-are-set", "response_headers: set_header_map_pairs 2 {:status=201 x-b=1 x-b=2}"),
        ("a-response-has-a-status", "response_headers: get_header_map_value 2 :status"),
        ("the-status-is-replaced", "response_headers: replace_header_map_value 2 :status 418"),
        ("the-length-is-removed", "response_headers: remove_header_map_value 2 content-length"),
    ];
    let mut cases: Vec<Case> =
        rows.iter().map(|(name, script)| case(SECTION, *name, *script).origin(answer())).collect();
    cases.push(case(SECTION, "trailers-are-changed", TRAILERS).ask(trailers()).origin(trailing()));
    cases
}

const TRAILERS: &str = "request_trailers: get_header_map_pairs 1 %pairs; get_header_map_size 1; \
     add_header_map_value 1 x-t 2; \
    replace_header_map_value 1 x-u 3 | response_trailers: get_header_map_pairs 3 %pairs; get_header_map_size 3; \
    add_header_map_value 3 x-t 2; remove_header_map_value 3 x-s; replace_header_map_value 3 x-u 3";

pub(super) fn trailers() -> crate::case::Ask {
    use crate::case::Part::{Data, Trailers};
    post("").path("/h2/").version(Version::Http2).body(&[Data("body"), Trailers(&[("x-t", "1")])])
}

pub(super) fn trailing() -> crate::case::Reply {
    use crate::case::Part::{Data, Trailers};
    reply(200, "").parts(&[Data("ok"), Trailers(&[("x-t", "1"), ("x-s", "0")])])
}

fn pseudo() -> Vec<Case> {
    let mut cases = plain(
        SECTION,
        &[
            (
                "the-path-is-replaced",
                "request_headers: replace_header_map_value 0 :path '/other?a=b'; get_property request.path",
            ),
            (
                "the-method-is-replaced",
                "request_headers: replace_header_map_value 0 :method DELETE; get_property request.method",
            ),
            (
                "the-authority-is-replaced",
                "request_headers: replace_header_map_value 0 :authority else.test; get_header_map_value 0 host",
            ),
            (
                "the-host-is-replaced",
                "request_headers: replace_header_map_value 0 host else.test; get_header_map_value 0 :authority",
            ),
            ("the-path-is-removed", "request_headers: remove_header_map_value 0 :path"),
            ("the-method-is-removed", "request_headers: remove_header_map_value 0 :method"),
            ("the-authority-is-removed", "request_headers: remove_header_map_value 0 :authority"),
            ("headers-without-a-path-have-no-route", "request_headers: set_header_map_pairs 0 {x-a=1}"),
            (
                "a-second-path-is-added",
                "request_headers: add_header_map_value 0 :path /second; get_header_map_pairs 0 %pairs",
            ),
            (
                "the-status-is-removed",
                "response_headers: remove_header_map_value 2 :status; get_header_map_pairs 2 %pairs",
            ),
            ("the-status-is-no-number", "response_headers: replace_header_map_value 2 :status abc"),
            ("a-header-splits-the-message", "request_headers: add_header_map_value 0 x-new 'a\\x0d\\x0ax-injected: 1'"),
            (
                "a-header-name-is-none",
                "request_headers: add_header_map_value 0 'bad name' 1; add_header_map_value 0 '' 1",
            ),
            ("a-request-says-how-it-is-framed", "request_headers: add_header_map_value 0 transfer-encoding chunked"),
            (
                "a-response-says-how-it-is-framed",
                "response_headers: replace_header_map_value 2 transfer-encoding chunked",
            ),
        ],
    );
    let sent = get("/").field("connection", "keep-alive, x-hop").field("x-hop", "1").field("te", "trailers");
    cases.push(
        case("§12.5", "fields-of-the-connection-are-not-shown", "request_headers: get_header_map_pairs 0 %pairs")
            .ask(sent),
    );
    let posted =
        case("§12.5", "a-coding-of-the-connection-is-not-shown", "request_headers: get_header_map_pairs 0 %pairs");
    cases.push(posted.ask(post("body").version(Version::Chunked)));
    cases.push(
        case(SECTION, "headers-over-http2", "request_headers: get_header_map_pairs 0 %pairs")
            .ask(get("/h2/").version(Version::Http2)),
    );
    cases
}

/// Which route is taken when what it was chosen by has changed.
fn route() -> Vec<Case> {
    plain(
        SECTION,
        &[
            ("a-changed-path-chooses-the-route-again", "request_headers: replace_header_map_value 0 :path /refuses/"),
            (
                "a-changed-path-chooses-the-route-again-when-told",
                "request_headers: replace_header_map_value 0 :path /refuses/; \
                     call_foreign_function clear_route_cache ''; get_property xds.route_name",
            ),
            (
                "the-old-route-is-told-until-then",
                "request_headers: get_property xds.route_name; replace_header_map_value 0 :path /refuses/; \
                     get_property xds.route_name | \
             response_headers: get_property xds.route_name",
            ),
        ],
    )
}
