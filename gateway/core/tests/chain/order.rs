//! Who is called, in which order, and how a context's life goes (ABI reference §7.2, §7.3).

use expect_test::expect;

use crate::world::check;

#[test]
fn requests_walk_from_the_first_filter_to_the_last_and_responses_back() {
    check(
        "a | b | c",
        "POST /; body ab; trailers t=1; < 200; < body cd; < trailers t=1",
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
        b.request_trailers 1        continue
        c.request_trailers 1        continue
            upstream: trailers t=1 end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body cd
        c.response_body 2           continue
        b.response_body 2           continue
        a.response_body 2           continue
            client: body "cd"
        > < trailers t=1
        c.response_trailers 1       continue
        b.response_trailers 1       continue
        a.response_trailers 1       continue
            client: trailers t=1 end
    "#]],
    );
}

#[test]
fn a_message_without_a_body_has_no_body_callback() {
    check(
        "a | b",
        "GET / end; < 204 end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 204 end
        b.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 204 end
    "#]],
    );
}

#[test]
fn the_end_may_come_as_an_empty_chunk() {
    check(
        "a | b",
        "POST /; body ab; body end; < 200; < body ab; < body end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            continue
            upstream: body "ab"
        > body end
        a.request_body 0 end        continue
        b.request_body 0 end        continue
            upstream: body "" end
        > < 200
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab
        b.response_body 2           continue
        a.response_body 2           continue
            client: body "ab"
        > < body end
        b.response_body 0 end       continue
        a.response_body 0 end       continue
            client: body "" end
    "#]],
    );
}

#[test]
fn logs_come_before_everything_ends_and_each_filter_ends_in_turn() {
    check(
        "a[life] | b[life] | c[life]",
        "GET / end; < 200 end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.create                    continue
        b.request_headers 3 end     continue
        c.create                    continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        c.response_headers 1 end    continue
        b.response_headers 1 end    continue
        a.response_headers 1 end    continue
            client: 200 end
        > end
        a.log                       continue
        b.log                       continue
        c.log                       continue
        a.done                      continue
        a.delete                    continue
        b.done                      continue
        b.delete                    continue
        c.done                      continue
        c.delete                    continue
            ended: details none, 0 bytes sent
    "#]],
    );
}

#[test]
fn filters_that_a_request_never_reaches_still_live_and_die() {
    check(
        "a[life] | b[life](reply 403 no) | c[life]",
        "GET / end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.create                    continue
        b.request_headers 3 end     reply 403
        b.response_headers 4        continue
        a.response_headers 4        continue
        b.response_body 2 end       continue
        a.response_body 2 end       continue
            client: 403 x-by=guest content-length=2 content-type=text/plain
            client: body "no" end
        > end
        a.log                       continue
        b.log                       continue
        c.create                    continue
        c.log                       continue
        a.done                      continue
        a.delete                    continue
        b.done                      continue
        b.delete                    continue
        c.done                      continue
        c.delete                    continue
            ended: details said_so, 2 bytes sent
    "#]],
    );
}

#[test]
fn a_request_that_never_came_in_still_gets_its_last_callbacks() {
    check(
        "a[life] | b[life]",
        "end client_gone",
        expect![[r#"
        > end client_gone
        a.create                    continue
        a.log                       continue
        b.create                    continue
        b.log                       continue
        a.done                      continue
        a.delete                    continue
        b.done                      continue
        b.delete                    continue
            ended: details client_gone, 0 bytes sent
    "#]],
    );
}

#[test]
fn a_client_that_goes_away_ends_a_paused_exchange_and_its_callout_finds_nobody() {
    check(
        "a[life](call authz, pause) | b[life]",
        "POST /; body ab; end client_gone; authz 200",
        expect![[r#"
        > POST /
        a.create                    continue
        a.request_headers 3         call authz, pause
        > body ab
        > end client_gone
        a.log                       continue
        b.create                    continue
        b.log                       continue
        a.done                      continue
        a.delete                    continue
        b.done                      continue
        b.delete                    continue
            ended: details client_gone, 0 bytes sent
        > authz 200
        authz 200                   context is gone
    "#]],
    );
}

#[test]
fn a_callback_that_is_not_exported_is_passed_over() {
    check(
        "a[headers] | b[deaf] | c",
        "POST /; body ab end; < 200; < body cd end; end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab end
        c.request_body 2 end        continue
            upstream: body "ab" end
        > < 200
        c.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body cd end
        c.response_body 2 end       continue
            client: body "cd" end
        > end
            ended: details none, 2 bytes sent
    "#]],
    );
}

#[test]
fn an_empty_chain_passes_everything_on() {
    check(
        "",
        "POST / content-length=2; body ab end; < 200; < body cd; < trailers t=1; end",
        expect![[r#"
        > POST / content-length=2
            upstream: POST / content-length=2
        > body ab end
            upstream: body "ab" end
        > < 200
            client: 200
        > < body cd
            client: body "cd"
        > < trailers t=1
            client: trailers t=1 end
        > end
            ended: details none, 2 bytes sent
    "#]],
    );
}

#[test]
fn an_early_response_does_not_wait_for_the_request_to_end() {
    check(
        "a | b",
        "POST /; body ab; < 200; < body cd; body ef end; < body end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            continue
            upstream: body "ab"
        > < 200
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body cd
        b.response_body 2           continue
        a.response_body 2           continue
            client: body "cd"
        > body ef end
        a.request_body 2 end        continue
        b.request_body 2 end        continue
            upstream: body "ef" end
        > < body end
        b.response_body 0 end       continue
        a.response_body 0 end       continue
            client: body "" end
    "#]],
    );
}

#[test]
fn what_comes_after_the_end_is_ignored() {
    check(
        "a[life]",
        "GET / end; < 200 end; < body late end; < fails upstream_reset; end; < 200 end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        a.response_headers 1 end    continue
            client: 200 end
        > < body late end
        > < fails upstream_reset
        > end
        a.log                       continue
        a.done                      continue
        a.delete                    continue
            ended: details none, 0 bytes sent
        > < 200 end
        > end
    "#]],
    );
}

#[test]
fn two_exchanges_share_a_vm_and_do_not_mix() {
    check(
        "a@1(call authz, pause) | b@1(set x-b=1)",
        "1: GET /one end; 2: GET /two end; authz 200; 1: < 200 end; authz 200; 2: < 404 end",
        expect![[r#"
            > 1: GET /one end
            a.request_headers 3 end     call authz, pause
            > 2: GET /two end
            a#2.request_headers 3 end   call authz, pause
            > authz 200
            a#1.authz 200               resume
            b#1.request_headers 3 end   set x-b=1
                upstream#1: GET /one x-b=1 end
            > 1: < 200 end
            b#1.response_headers 1 end  continue
            a#1.response_headers 1 end  continue
                client#1: 200 end
            > authz 200
            a#2.authz 200               resume
            b#2.request_headers 3 end   set x-b=1
                upstream#2: GET /two x-b=1 end
            > 2: < 404 end
            b#2.response_headers 1 end  continue
            a#2.response_headers 1 end  continue
                client#2: 404 end
        "#]],
    );
}
