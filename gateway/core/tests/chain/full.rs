//! Bodies that are held until there is no more room (ABI reference §7.3).

use expect_test::expect;

use crate::world::check;

#[test]
fn a_full_request_is_refused() {
    check(
        "a(request_body: pause) | b",
        "limit 4; POST /; body abc; body de; body late end",
        expect![[r#"
        > limit 4
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
            upstream: POST /
        > body abc
        a.request_body 3            pause
        > body de
        a.request_body 5            pause
        b.response_headers 3        continue
        a.response_headers 3        continue
        b.response_body 137 end     continue
        a.response_body 137 end     continue
            client: 413 content-type=application/problem+json content-length=137
            client: body <request_too_large> end
        > body late end
    "#]],
    );
}

#[test]
fn a_full_response_is_refused_while_its_head_is_here() {
    let chain = "a | b[holds](response_headers: pause; response_body: pause)";
    check(
        chain,
        "limit 4; GET / end; < 200; < body abc; < body de; < body late end",
        expect![[r#"
        > limit 4
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        b.response_headers 1        pause
        > < body abc
        b.response_body 3           pause
        > < body de
        b.response_body 5           pause
            client: 502 content-type=application/problem+json content-length=139
            client: body <response_too_large> end
        > < body late end
    "#]],
    );
}

#[test]
fn a_full_response_breaks_off_when_its_head_was_sent() {
    check(
        "a | b(response_body: pause)",
        "limit 4; GET / end; < 200; < body abc; < body de",
        expect![[r#"
        > limit 4
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body abc
        b.response_body 3           pause
        > < body de
        b.response_body 5           pause
            client: abort response_too_large
    "#]],
    );
}

#[test]
fn a_full_response_of_known_length_is_refused_since_its_head_is_still_here() {
    check(
        "a(response_body: pause)",
        "limit 4; GET / end; < 200 content-length=5; < body abc; < body de",
        expect![[r#"
        > limit 4
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 content-length=5
        a.response_headers 2        continue
        > < body abc
        a.response_body 3           pause
        > < body de
        a.response_body 5           pause
            client: 502 content-type=application/problem+json content-length=139
            client: body <response_too_large> end
    "#]],
    );
}

#[test]
fn watermark_and_a_plain_pause_push_back_instead() {
    check(
        "a(request_body: answer 2)",
        "limit 4; POST /; body abc; wants; body de; wants; resume a; wants; body end; resume a",
        expect![[r#"
            > limit 4
            > POST /
            a.request_headers 3         continue
                upstream: POST /
            > body abc
            a.request_body 3            answer 2
            > wants
                request: More, response: More
            > body de
            a.request_body 2            answer 2
            > wants
                request: Wait, response: More
            > resume a
            a.resume                    resume
                upstream: body "abcde"
            > wants
                request: More, response: More
            > body end
            a.request_body 0 end        answer 2
            > resume a
            a.resume                    resume
                upstream: body "" end
        "#]],
    );
    check(
        "a(pause)",
        "limit 4; POST /; body abcde; wants; resume a",
        expect![[r#"
        > limit 4
        > POST /
        a.request_headers 3         pause
        > body abcde
        > wants
            request: Wait, response: More
        > resume a
        a.resume                    resume
        a.request_body 5            continue
            upstream: POST /
            upstream: body "abcde"
    "#]],
    );
}

#[test]
fn headers_paused_to_buffer_are_refused_when_full() {
    check(
        "a(answer 3)",
        "limit 4; POST /; wants; body abc; body de",
        expect![[r#"
        > limit 4
        > POST /
        a.request_headers 3         answer 3
        > wants
            request: More, response: More
        > body abc
        > body de
        a.response_headers 3        continue
        a.response_body 137 end     continue
            client: 413 content-type=application/problem+json content-length=137
            client: body <request_too_large> end
    "#]],
    );
}
