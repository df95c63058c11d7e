//! Filters that fail, and VMs that die elsewhere (ABI reference §11).

use expect_test::expect;

use crate::world::{check, play};

#[test]
fn a_closed_filter_that_fails_on_request_headers_ends_the_exchange_with_503() {
    check(
        "a[life] | b[life](fail) | c[life]",
        "POST /; body late end; end",
        expect![[r#"
        > POST /
        a.create                    continue
        a.request_headers 3         continue
        b.create                    continue
        b.request_headers 3         fail
        a.response_headers 3        continue
        a.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
        > body late end
        > end
        a.log                       continue
        c.create                    continue
        c.log                       continue
        a.done                      continue
        a.delete                    continue
        c.done                      continue
        c.delete                    continue
            ended: details filter_failed, 119 bytes sent
    "#]],
    );
}

#[test]
fn an_open_filter_that_fails_on_request_headers_is_left_out() {
    check(
        "a | b[open life](fail) | c",
        "POST /; body ab end; < 200; < body cd end; end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.create                    continue
        b.request_headers 3         fail
        c.request_headers 3         continue
            upstream: POST /
        > body ab end
        a.request_body 2 end        continue
        c.request_body 2 end        continue
            upstream: body "ab" end
        > < 200
        c.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body cd end
        c.response_body 2 end       continue
        a.response_body 2 end       continue
            client: body "cd" end
        > end
            ended: details none, 2 bytes sent
    "#]],
    );
}

#[test]
fn a_filter_that_cannot_be_started_fails_like_one_that_traps() {
    check(
        "a | b(create: fail) | c",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.create                    fail
        a.response_headers 3        continue
        a.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
    "#]],
    );
    check(
        "a | b[open](create: fail) | c",
        "GET / end; < 200 end; end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.create                    fail
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        c.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 200 end
        > end
            ended: details none, 0 bytes sent
    "#]],
    );
}

#[test]
fn a_closed_filter_that_fails_in_a_later_callback_of_the_request() {
    check(
        "a | b(request_body: pause / fail) | c",
        "POST /; body ab; body cd end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            pause
        > body cd end
        a.request_body 2 end        continue
        b.request_body 4 end        fail
        c.response_headers 3        continue
        a.response_headers 3        continue
        c.response_body 119 end     continue
        a.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
    "#]],
    );
    check(
        "a | b(request_trailers: fail) | c",
        "POST /; body ab; trailers t=1",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            continue
        c.request_body 2            continue
            upstream: body "ab"
        > trailers t=1
        a.request_trailers 1        continue
        b.request_trailers 1        fail
        c.response_headers 3        continue
        a.response_headers 3        continue
        c.response_body 119 end     continue
        a.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
    "#]],
    );
}

#[test]
fn an_open_filter_that_fails_in_a_later_callback_lets_go_what_it_held() {
    check(
        "a | b[open](request_body: pause / fail) | c",
        "POST /; body ab; body cd; body ef end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            pause
        > body cd
        a.request_body 2            continue
        b.request_body 4            fail
        c.request_body 4            continue
            upstream: body "abcd"
        > body ef end
        a.request_body 2 end        continue
        c.request_body 2 end        continue
            upstream: body "ef" end
    "#]],
    );
    check(
        "b[open holds](pause; request_body: pause / fail) | c",
        "POST /; body ab; body cd; body ef end",
        expect![[r#"
        > POST /
        b.request_headers 3         pause
        > body ab
        b.request_body 2            pause
        > body cd
        b.request_body 4            fail
        c.request_headers 3         continue
        c.request_body 4            continue
            upstream: POST /
            upstream: body "abcd"
        > body ef end
        c.request_body 2 end        continue
            upstream: body "ef" end
    "#]],
    );
    check(
        "b[open](request_body: pause; request_trailers: fail) | c",
        "POST /; body ab; trailers t=1",
        expect![[r#"
        > POST /
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        b.request_body 2            pause
        > trailers t=1
        b.request_trailers 1        fail
        c.request_body 2            continue
        c.request_trailers 1        continue
            upstream: body "ab"
            upstream: trailers t=1 end
    "#]],
    );
}

#[test]
fn an_open_filter_that_fails_in_one_direction_lets_go_what_it_held_in_the_other() {
    check(
        "a | b[open](request_body: pause; response_headers: fail) | c",
        "POST /; body ab; < 200; body cd end; < body ef end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
            c.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            continue
            b.request_body 2            pause
            > < 200
            c.response_headers 1        continue
            b.response_headers 1        fail
            a.response_headers 1        continue
            c.request_body 2            continue
                upstream: body "ab"
                client: 200
            > body cd end
            a.request_body 2 end        continue
            c.request_body 2 end        continue
                upstream: body "cd" end
            > < body ef end
            c.response_body 2 end       continue
            a.response_body 2 end       continue
                client: body "ef" end
        "#]],
    );
}

#[test]
fn a_closed_filter_that_fails_on_response_headers_is_replied_for_unseen() {
    check(
        "a | b(response_headers: fail) | c",
        "GET / end; < 200; < body late end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        fail
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
        > < body late end
    "#]],
    );
}

#[test]
fn a_closed_filter_that_fails_on_a_response_body_breaks_the_response_off() {
    check(
        "a | b(response_body: fail) | c",
        "GET / end; < 200; < body ab; < body late end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab
        c.response_body 2           continue
        b.response_body 2           fail
            client: abort filter_failed
        > < body late end
    "#]],
    );
    check(
        "a | b(response_trailers: fail) | c",
        "GET / end; < 200; < body ab; < trailers t=1",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab
        c.response_body 2           continue
        b.response_body 2           continue
        a.response_body 2           continue
            client: body "ab"
        > < trailers t=1
        c.response_trailers 1       continue
        b.response_trailers 1       fail
            client: abort filter_failed
    "#]],
    );
}

#[test]
fn an_open_filter_that_fails_in_the_response_is_left_out() {
    check(
        "a | b[open](response_headers: fail) | c",
        "GET / end; < 200; < body ab end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        fail
        a.response_headers 1        continue
            client: 200
        > < body ab end
        c.response_body 2 end       continue
        a.response_body 2 end       continue
            client: body "ab" end
    "#]],
    );
    check(
        "a | b[open](response_body: pause / fail) | c",
        "GET / end; < 200; < body ab; < body cd; < body end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab
        c.response_body 2           continue
        b.response_body 2           pause
        > < body cd
        c.response_body 2           continue
        b.response_body 4           fail
        a.response_body 4           continue
            client: body "abcd"
        > < body end
        c.response_body 0 end       continue
        a.response_body 0 end       continue
            client: body "" end
    "#]],
    );
}

#[test]
fn a_failure_in_the_last_callbacks_changes_nothing_and_ends_that_context() {
    check(
        "a[life](log: fail) | b[life]",
        "GET / end; < 200 end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.create                    continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        b.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 200 end
        > end
        a.log                       fail
        b.log                       continue
        b.done                      continue
        b.delete                    continue
            ended: details none, 0 bytes sent
    "#]],
    );
    check(
        "a[life](done: fail) | b[life]",
        "GET / end; < 200 end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.create                    continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        b.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 200 end
        > end
        a.log                       continue
        b.log                       continue
        a.done                      fail
        b.done                      continue
        b.delete                    continue
            ended: details none, 0 bytes sent
    "#]],
    );
    check(
        "a[life](delete: fail) | b[life]",
        "GET / end; < 200 end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.create                    continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        b.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 200 end
        > end
        a.log                       continue
        b.log                       continue
        a.done                      continue
        a.delete                    fail
        b.done                      continue
        b.delete                    continue
            ended: details none, 0 bytes sent
    "#]],
    );
    check(
        "a(reply 403) | b[life](create: fail)",
        "GET / end; end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 403
        a.response_headers 3 end    continue
            client: 403 x-by=guest content-length=0 end
        > end
        b.create                    fail
            ended: details said_so, 0 bytes sent
    "#]],
    );
}

#[test]
fn a_failure_after_the_response_stops_only_the_request() {
    check(
        "a(request_body: fail) | b",
        "POST /; < 200 end; body ab; wants",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
            upstream: POST /
        > < 200 end
        b.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 200 end
        > body ab
        a.request_body 2            fail
        > wants
            request: Closed, response: Nothing
    "#]],
    );
}

#[test]
fn a_failing_filter_changes_nothing_that_an_open_chain_would_send() {
    for when in ["request_headers", "request_body", "request_trailers", "response_headers", "response_body"] {
        let events = "POST / content-length=4; body ab; body cd; body end; < 200; < body ef; < body gh end";
        let transcript = play(&format!("a | b[open]({when}: fail) | c"), events);
        for line in ["upstream: POST / content-length=4", "upstream: body \"\" end", "client: body \"gh\" end"] {
            assert!(transcript.contains(line), "{when}: {transcript}");
        }
    }
}
