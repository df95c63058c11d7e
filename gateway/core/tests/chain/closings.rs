//! What the upstream's failures and closed streams become (ABI reference §7.4, §7.5).

use expect_test::expect;

use crate::world::check;

#[test]
fn upstream_failures_run_through_all_filters_like_a_response() {
    check(
        "a | b(response_headers: get :status, set x-b=1; response_body: read) | c",
        "POST /; body ab; < fails upstream_connect; body late end",
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
            > < fails upstream_connect
            c.response_headers 3        continue
            b.response_headers 3        get :status=503, set x-b=1
            a.response_headers 4        continue
            c.response_body 126 end     continue
            b.response_body 126 end     read <upstream_connect>
            a.response_body 126 end     continue
                client: 503 content-type=application/problem+json content-length=126 x-b=1
                client: body <upstream_connect> end
            > body late end
        "#]],
    );
}

#[test]
fn an_upstream_that_fails_midway_breaks_the_response_off() {
    check(
        "a | b",
        "GET / end; < 200; < body ab; < fails upstream_reset",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab
        b.response_body 2           continue
        a.response_body 2           continue
            client: body "ab"
        > < fails upstream_reset
            client: abort upstream_reset
    "#]],
    );
}

#[test]
fn an_upstream_that_fails_while_its_head_is_held_is_replied_for() {
    check(
        "a | b(response_headers: pause)",
        "GET / end; < 200; < fails upstream_reset",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        b.response_headers 1        pause
        > < fails upstream_reset
            client: 502 content-type=application/problem+json content-length=120
            client: body <upstream_reset> end
    "#]],
    );
}

#[test]
fn closing_breaks_the_stream_off_without_a_response() {
    check(
        "a[life](close) | b[life]",
        "POST /; body late end; end",
        expect![[r#"
        > POST /
        a.create                    continue
        a.request_headers 3         close
            client: abort filter_closed
        > body late end
        > end
        a.log                       continue
        b.create                    continue
        b.log                       continue
        a.done                      continue
        a.delete                    continue
        b.done                      continue
        b.delete                    continue
            ended: details filter_closed, 0 bytes sent
    "#]],
    );
    check(
        "a | b(response_headers: close)",
        "GET / end; < 200 end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        b.response_headers 1 end    close
            client: abort filter_closed
    "#]],
    );
    check(
        "a | b(response_body: close)",
        "GET / end; < 200; < body ab",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab
        b.response_body 2           close
            client: abort filter_closed
    "#]],
    );
    check(
        "a(pause; tick: close)",
        "GET / end; tick a",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     pause
        > tick a
        a.tick                      close
            client: abort filter_closed
    "#]],
    );
}

#[test]
fn closing_after_the_response_stops_only_the_request() {
    check(
        "a(request_body: close)",
        "POST /; < 200 end; body ab; wants",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > < 200 end
        a.response_headers 1 end    continue
            client: 200 end
        > body ab
        a.request_body 2            close
        > wants
            request: Closed, response: Nothing
    "#]],
    );
}
