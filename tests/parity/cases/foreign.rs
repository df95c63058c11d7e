//! §10: foreign functions.

use crate::case::{Case, case, plain};

const SECTION: &str = "§10";

/// Expressions in CEL and how their values are encoded.
const EXPRESSIONS: [(&str, &str); 53] = [
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
    ("a-match", r#"request.path.matches("^/[a-z]$")"#),
    ("a-match-of-a-part", r#"request.path.matches("[a-c]")"#),
    ("a-match-that-is-none", r#"request.path.matches("^[a-z]")"#),
    ("a-match-by-a-function", r#"matches(request.path, "a$")"#),
    ("a-match-of-a-letter-and-a-digit", r#""é1".matches(r"^.\\d$")"#),
    ("a-match-of-a-digit-of-arabic", r#""٣".matches(r"^\\d$")"#),
    ("a-match-of-two-classes", r#""a_1 &".matches(r"^\\w+\\s[[:punct:]&]$")"#),
    ("a-match-that-looks-back", r#""aa".matches(r"^(a)\\1$")"#),
    ("a-match-of-no-expression", r#""a".matches("(")"#),
    ("a-match-of-a-large-expression", r#""a".matches("a{1000}")"#),
    ("a-match-of-what-is-joined", r#""a/b".matches("^" + "a")"#),
    ("a-time", r#"timestamp("1970-01-01T00:00:01.5Z")"#),
    ("a-time-elsewhere", r#"timestamp("2026-11-27T13:14:15+02:00")"#),
    ("a-time-that-is-none", r#"timestamp("yesterday")"#),
    ("a-time-of-a-number", "timestamp(1)"),
    ("the-last-time", r#"timestamp("9999-12-31T23:59:59Z")"#),
    ("the-first-time", r#"timestamp("0001-01-01T00:00:00Z")"#),
    ("a-time-compared", r#"request.time > timestamp("2020-01-01T00:00:00Z")"#),
    ("a-time-and-a-span", r#"timestamp("2026-11-27T13:00:00Z") + duration("-1h")"#),
    ("a-time-beyond-the-last", r#"timestamp("9999-12-31T23:59:59Z") + duration("1h")"#),
    ("a-time-since-another", r#"timestamp("2026-11-27T13:00:00Z") - timestamp("2026-11-26T12:59:59Z")"#),
    ("a-year", r#"timestamp("2026-11-27T13:14:15.678Z").getFullYear()"#),
    ("a-month", r#"timestamp("2026-11-27T13:14:15.678Z").getMonth()"#),
    ("a-date", r#"timestamp("2026-11-27T13:14:15.678Z").getDate()"#),
    ("a-day-of-the-month", r#"timestamp("2026-11-27T13:14:15.678Z").getDayOfMonth()"#),
    ("a-day-of-the-year", r#"timestamp("2026-11-27T13:14:15.678Z").getDayOfYear()"#),
    ("a-day-of-the-week", r#"timestamp("2026-11-27T13:14:15.678Z").getDayOfWeek()"#),
    ("hours", r#"timestamp("2026-11-27T13:14:15.678Z").getHours()"#),
    ("hours-elsewhere", r#"timestamp("2026-11-27T13:14:15.678Z").getHours("-02:00")"#),
    ("hours-in-a-city", r#"timestamp("2026-07-27T13:14:15Z").getHours("America/Los_Angeles")"#),
    ("hours-nowhere", r#"timestamp("2026-11-27T13:14:15.678Z").getHours("Nowhere")"#),
    ("minutes", r#"timestamp("2026-11-27T13:14:15.678Z").getMinutes()"#),
    ("seconds", r#"timestamp("2026-11-27T13:14:15.678Z").getSeconds()"#),
    ("milliseconds", r#"timestamp("2026-11-27T13:14:15.678Z").getMilliseconds()"#),
    ("a-span", r#"duration("1h1.5s")"#),
    ("a-span-that-is-none", r#"duration("1y")"#),
    ("a-span-in-hours-and-minutes", r#"duration("-90m").getHours() * 1000 + duration("90m1.5s").getMinutes()"#),
];

/// Signatures of the text `text` by keys on elliptic curves, made with OpenSSL: the curve and the hash function, the key as
/// `SubjectPublicKeyInfo` and the signature, both in DER, in hexadecimal digits.
const SIGNATURES: [(&str, &str, &str, &str); 4] = [
    (
        "p-256",
        "sha256",
        "3059301306072a8648ce3d020106082a8648ce3d03010703420004a491f7b6ed9f6d7fa173bc708dd7374079be8ec5bc8ed7f3e7cecc4d58\
         a4d734fab0d6ed5719204a3a7d494bea62286888644e66b80902bb9abd0fe5d9cc17c7",
        "3045022100965c9e09dc82332ffc67c39d0f856ecff9e42200a92de485061048a4c2cc419d022062155845f3c72af8a952443063b9332341\
         f2d768980761a16d875bf5b9711a9d",
    ),
    (
        "p-256",
        "sha512",
        "3059301306072a8648ce3d020106082a8648ce3d03010703420004a491f7b6ed9f6d7fa173bc708dd7374079be8ec5bc8ed7f3e7cecc4d58\
         a4d734fab0d6ed5719204a3a7d494bea62286888644e66b80902bb9abd0fe5d9cc17c7",
        "3044022074f8a36b5b6920c58ed24fa83751ea6004db649aa6b30e250a0a6ec7c38df3bc022077f438a394a5ff0a0f7e47e95772d1f47e93\
         a91cb1c88feb12a9eea06cd67439",
    ),
    (
        "p-384",
        "sha384",
        "3076301006072a8648ce3d020106052b81040022036200041aca8c24e2145b95b5aac57ad527057fd3cd1f4305dd79fb838aee04eeefca5b\
         4b142296dada587b484144065db43df2491ef3ab96f9e08f8fe99639d38e74ceef4d2458e0d25e37226076833beaafc0bcc3896f6cd92756\
         0c80a8f5689a6fdc",
        "3064023063d34926958c512234ce986a040cd0d02b6c3fb3cc90b73a0e3cf704440fa507d982b2fcaf2b05f71ffeb1cd915f6b07023000c7\
         c22b6c3f1af2735bc4b6c4b8cf4d75fa4c62a57c5e9c2ab8e00fa1d4ed990cab82fc6d134a8f5ffb9ece94774a71",
    ),
    (
        "p-521",
        "sha512",
        "30819b301006072a8648ce3d020106052b810400230381860004011f255709d1e77199a2dec5c028c0c451366f004abe4fe375df5aab6d9e\
         8361e08e3dd00313fc7f307a25f27920258ea9982bf6b00944744e1053287c34207b01280192037a71d8dce14c8fd7ac8580b4437f7d9978\
         53259ee6b7b62ee5c5b639f813862d3aff021997408a873925b6dac96d4f21ebbd1b2ce3aaec882bd63ecb5d6350",
        "308188024200914264458d563eedfcd8e69c86c305d89d94886ba1e8d70d0ce9a81aedf20555a5116b96a045cbefd6c5deccc2aebe14604e\
         82ae3642b5386a535ed78c05d40a0e024200c8395fdf1a1dddf289ae973efb98b83ebdd759019226b1b44c7cdd478ffc4b0c4f4af55a878f\
         52151b595c5a0f8922a75865509bd1e42be8678dbe48a1302657e6",
    ),
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
    cases.extend(SIGNATURES.iter().flat_map(|(curve, hash, key, signature)| {
        [("fits", "74657874"), ("is-of-another-text", "74657875")].map(|(what, text)| {
            let name: String = hash.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            let fields =
                [field(1, &name), field(2, &escaped(key)), field(3, &escaped(signature)), field(4, &escaped(text))];
            let script = format!("request_headers: call_foreign_function verify_signature '{}'", fields.concat());
            case(SECTION, format!("a-signature-of-{curve}-with-{hash}-{what}"), script)
        })
    }));
    let create = |texts: &[&str]| -> String {
        let steps = |text: &&str| {
            format!("call_foreign_function expr_create '{text}' =e; call_foreign_function expr_evaluate $e %len; ")
        };
        texts.iter().map(steps).collect()
    };
    let times = create(&["request.time", "request.duration", "response.backend_latency"]);
    cases.push(case(SECTION, "times-in-expressions", format!("request_headers: {times} | log: {times}")));
    cases
}

/// Hexadecimal digits as a script has bytes.
fn escaped(digits: &str) -> String {
    digits.as_bytes().chunks(2).map(|byte| format!("\\x{}", String::from_utf8_lossy(byte))).collect()
}

/// A field of a message: bytes, each written as four characters, fewer than 2^14 of them.
fn field(number: usize, bytes: &str) -> String {
    let len = bytes.len() / 4;
    let len =
        if len < 0x80 { format!("\\x{len:02x}") } else { format!("\\x{:02x}\\x{:02x}", len & 0x7f | 0x80, len >> 7) };
    format!("\\x{:02x}{len}{bytes}", number << 3 | 2)
}
