//! Waiting for too long: for a filter, for the upstream, for anything to move.

use expect_test::expect;

use crate::world::check;

#[test]
fn a_filter_that_never_resumes_ends_with_504() {
    check(
        "a | b(pause) | c",
        "GET / end; wait 30s; wait 1s",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     pause
        > wait 30s
        > wait 1s
            deadline: filter_timeout
        b.response_headers 3        continue
        a.response_headers 3        continue
        b.response_body 136 end     continue
        a.response_body 136 end     continue
            client: 504 content-type=application/problem+json content-length=136
            client: body <filter_timeout> end
    "#]],
    );
    check(
        "a | b(request_body: pause) | c",
        "POST /; body ab end; wait 31s",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab end
        a.request_body 2 end        continue
        b.request_body 2 end        pause
        > wait 31s
            deadline: filter_timeout
        c.response_headers 3        continue
        b.response_headers 3        continue
        a.response_headers 3        continue
        c.response_body 136 end     continue
        b.response_body 136 end     continue
        a.response_body 136 end     continue
            client: 504 content-type=application/problem+json content-length=136
            client: body <filter_timeout> end
    "#]],
    );
    check(
        "a | b(response_headers: pause) | c",
        "GET / end; < 200; wait 31s",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        pause
        > wait 31s
            deadline: filter_timeout
            client: 504 content-type=application/problem+json content-length=136
            client: body <filter_timeout> end
    "#]],
    );
    check(
        "a | b(response_body: pause) | c",
        "GET / end; < 200; < body ab end; wait 31s",
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
        > < body ab end
        c.response_body 2 end       continue
        b.response_body 2 end       pause
        > wait 31s
            deadline: filter_timeout
            client: abort filter_timeout
    "#]],
    );
}

#[test]
fn a_filter_that_collects_a_slow_body_is_not_to_blame() {
    check(
        "a(request_body: pause / pause / continue)",
        "POST /; wait 29s; body ab; wait 29s; body cd; wait 29s; body end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > wait 29s
        > body ab
        a.request_body 2            pause
        > wait 29s
        > body cd
        a.request_body 4            pause
        > wait 29s
        > body end
        a.request_body 4 end        continue
            upstream: body "abcd" end
    "#]],
    );
}

#[test]
fn an_upstream_that_never_answers_ends_with_504() {
    check(
        "a",
        "GET / end; wait 15s; wait 1s",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > wait 15s
        > wait 1s
            deadline: upstream_timeout
        a.response_headers 3        continue
        a.response_body 128 end     continue
            client: 504 content-type=application/problem+json content-length=128
            client: body <upstream_timeout> end
    "#]],
    );
    check(
        "a[headers]",
        "POST /; passes 5; wait 14s; passes end; wait 14s; wait 2s",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > passes 5
        > wait 14s
        > passes end
        > wait 14s
        > wait 2s
            deadline: upstream_timeout
        a.response_headers 3        continue
            client: 504 content-type=application/problem+json content-length=128
            client: body <upstream_timeout> end
    "#]],
    );
}

#[test]
fn an_upload_that_stops_is_the_fault_of_who_does_not_go_on() {
    check(
        "a[headers]",
        "POST /; passes nothing; wait 299s; passes 5; passes nothing; wait 299s; wait 2s",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
                upstream: POST /
            > passes nothing
            > wait 299s
            > passes 5
            > passes nothing
            > wait 299s
            > wait 2s
                deadline: idle_timeout
            a.response_headers 3        continue
                client: 504 content-type=application/problem+json content-length=130
                client: body <idle_timeout> end
        "#]],
    );
    check(
        "a[headers]",
        "POST /; passes 5; wait 14s; passes 5; wait 16s",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > passes 5
        > wait 14s
        > passes 5
        > wait 16s
            deadline: upstream_timeout
        a.response_headers 3        continue
            client: 504 content-type=application/problem+json content-length=128
            client: body <upstream_timeout> end
    "#]],
    );
}

#[test]
fn neither_a_callout_nor_an_upload_eats_into_the_upstreams_time() {
    check(
        "a(call authz, pause)",
        "GET / end; wait 14s; authz 200; wait 14s; < 200 end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     call authz, pause
        > wait 14s
        > authz 200
        a.authz 200                 resume
            upstream: GET / end
        > wait 14s
        > < 200 end
        a.response_headers 1 end    continue
            client: 200 end
    "#]],
    );
    check(
        "a",
        "POST /; wait 14s; body ab; wait 14s; body cd; wait 20s; body end; wait 14s; < 200 end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > wait 14s
        > body ab
        a.request_body 2            continue
            upstream: body "ab"
        > wait 14s
        > body cd
        a.request_body 2            continue
            upstream: body "cd"
        > wait 20s
        > body end
        a.request_body 0 end        continue
            upstream: body "" end
        > wait 14s
        > < 200 end
        a.response_headers 1 end    continue
            client: 200 end
    "#]],
    );
}

#[test]
fn an_upstream_that_has_answered_may_take_its_time() {
    check(
        "a",
        "GET / end; < 200; wait 299s; < body ab; wait 299s; < body end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        a.response_headers 1        continue
            client: 200
        > wait 299s
        > < body ab
        a.response_body 2           continue
            client: body "ab"
        > wait 299s
        > < body end
        a.response_body 0 end       continue
            client: body "" end
    "#]],
    );
}

#[test]
fn an_exchange_in_which_nothing_moves_ends() {
    check(
        "a",
        "POST /; wait 301s",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > wait 301s
            deadline: idle_timeout
        a.response_headers 3        continue
        a.response_body 130 end     continue
            client: 504 content-type=application/problem+json content-length=130
            client: body <idle_timeout> end
    "#]],
    );
    check(
        "a",
        "GET / end; < 200; wait 301s",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        a.response_headers 1        continue
            client: 200
        > wait 301s
            deadline: idle_timeout
            client: abort idle_timeout
    "#]],
    );
    check(
        "a[life]",
        "wait 301s; end",
        expect![[r#"
        > wait 301s
            deadline: idle_timeout
            client: 504 content-type=application/problem+json content-length=130
            client: body <idle_timeout> end
        > end
        a.create                    continue
        a.log                       continue
        a.done                      continue
        a.delete                    continue
            ended: details idle_timeout, 130 bytes sent
    "#]],
    );
}

#[test]
fn a_reply_that_a_filter_never_lets_go_is_replaced() {
    check(
        "a(response_headers: pause) | b(reply 403 no)",
        "GET / end; wait 31s",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     reply 403
        b.response_headers 4        continue
        a.response_headers 4        pause
        b.response_body 2 end       continue
        > wait 31s
            deadline: filter_timeout
            client: 504 content-type=application/problem+json content-length=136
            client: body <filter_timeout> end
    "#]],
    );
}

#[test]
fn an_exchange_that_has_its_response_is_not_overdue() {
    check(
        "a(request_body: pause)",
        "POST /; body ab; < 200 end; wait 31s; end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            pause
        > < 200 end
        a.response_headers 1 end    continue
            client: 200 end
        > wait 31s
        > end
            ended: details none, 0 bytes sent
    "#]],
    );
}
