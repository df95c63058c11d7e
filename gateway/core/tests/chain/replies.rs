//! Local replies and closing, from every place they can come from (ABI reference §7.4, §7.5).

use expect_test::expect;

use crate::world::{check, play};

#[test]
fn a_reply_to_request_headers_is_seen_by_the_filters_the_request_has_reached() {
    check(
        "a[life](response_headers: set x-a=1) | b[life](reply 403 no, pause; response_body: read) | c[life]",
        "POST /; body late end; end",
        expect![[r#"
            > POST /
            a.create                    continue
            a.request_headers 3         continue
            b.create                    continue
            b.request_headers 3         reply 403, pause
            b.response_headers 4        continue
            a.response_headers 4        set x-a=1
            b.response_body 2 end       read "no"
            a.response_body 2 end       continue
                client: 403 x-by=guest content-length=2 content-type=text/plain x-a=1
                client: body "no" end
            > body late end
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
fn the_answer_of_a_callback_that_replies_does_not_matter() {
    let continued = play("a(reply 403, continue) | b", "POST /; body ab end");
    for answer in ["pause", "answer 3", "answer 99"] {
        let answered = play(&format!("a(reply 403, {answer}) | b"), "POST /; body ab end");
        assert_eq!(answered.replace(answer, "continue"), continued);
    }
}

#[test]
fn a_reply_to_a_request_body_is_seen_by_all_filters() {
    check(
        "a | b(request_body: reply 413 big) | c",
        "POST /; body ab; body late end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            reply 413
        c.response_headers 4        continue
        b.response_headers 4        continue
        a.response_headers 4        continue
        c.response_body 3 end       continue
        b.response_body 3 end       continue
        a.response_body 3 end       continue
            client: 413 x-by=guest content-length=3 content-type=text/plain
            client: body "big" end
        > body late end
    "#]],
    );
}

#[test]
fn a_reply_to_request_trailers_is_seen_by_all_filters() {
    check(
        "a | b(request_trailers: reply 400) | c",
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
        b.request_trailers 1        reply 400
        c.response_headers 3 end    continue
        b.response_headers 3 end    continue
        a.response_headers 3 end    continue
            client: 400 x-by=guest content-length=0 end
    "#]],
    );
}

#[test]
fn a_reply_from_a_callout_is_as_from_the_phase_that_is_paused() {
    let authz = "authz: reply 401 who, resume";
    check(
        &format!("a | b(call authz, pause; {authz}) | c"),
        "POST /; body ab; authz 401",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         call authz, pause
        > body ab
        a.request_body 2            continue
        > authz 401
        b.authz 401                 reply 401, resume
        b.response_headers 4        continue
        a.response_headers 4        continue
        b.response_body 3 end       continue
        a.response_body 3 end       continue
            client: 401 x-by=guest content-length=3 content-type=text/plain
            client: body "who" end
    "#]],
    );
    check(
        &format!("a | b(request_body: call authz, pause; {authz}) | c"),
        "POST /; body ab; authz 401",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            call authz, pause
        > authz 401
        b.authz 401                 reply 401, resume
        c.response_headers 4        continue
        b.response_headers 4        continue
        a.response_headers 4        continue
        c.response_body 3 end       continue
        b.response_body 3 end       continue
        a.response_body 3 end       continue
            client: 401 x-by=guest content-length=3 content-type=text/plain
            client: body "who" end
    "#]],
    );
}

#[test]
fn a_reply_from_a_callout_reaches_an_exchange_that_is_not_paused() {
    check(
        "a(call authz; authz: reply 429) | b",
        "POST /; authz 200; body late end; < 200 end",
        expect![[r#"
        > POST /
        a.request_headers 3         call authz
        b.request_headers 3         continue
            upstream: POST /
        > authz 200
        a.authz 200                 reply 429
        b.response_headers 3 end    continue
        a.response_headers 3 end    continue
            client: 429 x-by=guest content-length=0 end
        > body late end
        > < 200 end
    "#]],
    );
}

#[test]
fn a_reply_to_response_headers_replaces_the_response_unseen() {
    check(
        "a | b(response_headers: reply 502 bad) | c",
        "GET / end; < 200; < body ab end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
        c.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        c.response_headers 1        continue
        b.response_headers 1        reply 502
            client: 502 x-by=guest content-length=3 content-type=text/plain
            client: body "bad" end
        > < body ab end
    "#]],
    );
}

#[test]
fn a_reply_from_a_callout_while_response_headers_are_held_replaces_them_unseen() {
    check(
        "a | b(response_headers: call authz, pause; authz: reply 403 no) | c",
        "GET / end; < 200; < body ab; authz 200; < body late end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
            b.request_headers 3 end     continue
            c.request_headers 3 end     continue
                upstream: GET / end
            > < 200
            c.response_headers 1        continue
            b.response_headers 1        call authz, pause
            > < body ab
            c.response_body 2           continue
            > authz 200
            b.authz 200                 reply 403
                client: 403 x-by=guest content-length=2 content-type=text/plain
                client: body "no" end
            > < body late end
        "#]],
    );
}

#[test]
fn a_reply_to_a_response_body_breaks_off_what_was_sent() {
    check(
        "a | b(response_body: reply 502 bad) | c",
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
        b.response_body 2           reply 502
            client: abort filter_closed
        > < body late end
    "#]],
    );
}

#[test]
fn a_reply_to_a_response_body_replaces_headers_that_are_still_held() {
    check(
        "a | b[holds](response_headers: pause; response_body: reply 502 bad) | c",
        "GET / end; < 200; < body ab; < body late end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
            b.request_headers 3 end     continue
            c.request_headers 3 end     continue
                upstream: GET / end
            > < 200
            c.response_headers 1        continue
            b.response_headers 1        pause
            > < body ab
            c.response_body 2           continue
            b.response_body 2           reply 502
                client: 502 x-by=guest content-length=3 content-type=text/plain
                client: body "bad" end
            > < body late end
        "#]],
    );
}

#[test]
fn a_reply_to_ones_own_reply_replaces_it_unseen() {
    check(
        "a | b(reply 403 one; response_headers: reply 500 two) | c",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     reply 403
        b.response_headers 4        reply 500
            client: 500 x-by=guest content-length=3 content-type=text/plain
            client: body "two" end
    "#]],
    );
}

#[test]
fn the_first_reply_of_a_callback_wins_and_wins_over_a_resume() {
    check(
        "a(reply 403 one, reply 500 two, resume, pause)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 403, reply 500, resume, pause
        a.response_headers 4        continue
        a.response_body 3 end       continue
            client: 403 x-by=guest content-length=3 content-type=text/plain
            client: body "one" end
    "#]],
    );
    check(
        "a(resume, reply 403 one)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     resume, reply 403
        a.response_headers 4        continue
        a.response_body 3 end       continue
            client: 403 x-by=guest content-length=3 content-type=text/plain
            client: body "one" end
    "#]],
    );
}

#[test]
fn the_maps_stay_readable_in_a_callback_that_has_replied() {
    check(
        "a(reply 403 no, get :path, set x-a=1, get x-a)",
        "GET /x end",
        expect![[r#"
        > GET /x end
        a.request_headers 3 end     reply 403, get :path=/x, set x-a=1, get x-a=1
        a.response_headers 4        continue
        a.response_body 2 end       continue
            client: 403 x-by=guest content-length=2 content-type=text/plain
            client: body "no" end
    "#]],
    );
}

#[test]
fn a_reply_when_all_is_said_is_ignored() {
    check(
        "a[life](log: reply 500 x; done: reply 500 x, close; delete: reply 500 x)",
        "GET / end; < 200 end; end",
        expect![[r#"
            > GET / end
            a.create                    continue
            a.request_headers 3 end     continue
                upstream: GET / end
            > < 200 end
            a.response_headers 1 end    continue
                client: 200 end
            > end
            a.log                       reply 500
            a.done                      reply 500, close
            a.delete                    reply 500
                ended: details none, 0 bytes sent
        "#]],
    );
    check(
        "a[life](create: reply 403 early; log: reply 500)",
        "GET / end; end",
        expect![[r#"
        > GET / end
        a.create                    reply 403
        a.request_headers 3 end     continue
        a.response_headers 4        continue
        a.response_body 5 end       continue
            client: 403 x-by=guest content-length=5 content-type=text/plain
            client: body "early" end
        > end
        a.log                       reply 500
        a.done                      continue
        a.delete                    continue
            ended: details said_so, 5 bytes sent
    "#]],
    );
}

#[test]
fn a_reply_after_the_response_stops_only_the_request() {
    check(
        "a(request_body: reply 403) | b",
        "POST /; < 200 end; body ab; wants; body late end",
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
        a.request_body 2            reply 403
        > wants
            request: Closed, response: Nothing
        > body late end
    "#]],
    );
}

#[test]
fn a_reply_can_be_paused_and_changed_like_a_response() {
    check(
        "a(response_headers: call authz, pause; authz: map response_headers, set x-a=1, resume; response_body: replace longer) | b(reply 403 no)",
        "GET / end; authz 200",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
            b.request_headers 3 end     reply 403
            b.response_headers 4        continue
            a.response_headers 4        call authz, pause
            b.response_body 2 end       continue
            > authz 200
            a.authz 200                 map 2, set x-a=1, resume response
            a.response_body 2 end       replace longer
                client: 403 x-by=guest content-length=6 content-type=text/plain x-a=1
                client: body "longer" end
        "#]],
    );
}

#[test]
fn what_the_upstream_still_says_does_not_mix_with_a_paused_reply() {
    check(
        "a(request_body: reply 403 no) | b(response_headers: pause)",
        "POST /; body ab; < 200; < body theirs end; < fails upstream_reset; resume b response",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            reply 403
            b.response_headers 4        pause
            > < 200
            > < body theirs end
            > < fails upstream_reset
            > resume b response
            b.resume_response           resume response
            a.response_headers 4        continue
            b.response_body 2 end       continue
            a.response_body 2 end       continue
                client: 403 x-by=guest content-length=2 content-type=text/plain
                client: body "no" end
        "#]],
    );
}
