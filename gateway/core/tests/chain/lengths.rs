//! No peer receives more or less than the head declared, whatever filters do (ABI reference §12.3, RFC 9110 §8.6).
//!
//! `wire` asserts the rule itself in every test; these show how each case is met.

use expect_test::expect;

use crate::world::check;

#[test]
fn a_body_that_is_not_changed_keeps_its_length() {
    check(
        "a",
        "POST / content-length=4; body ab; body cd end; < 200 content-length=2; < body ef end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            continue
            upstream: POST / content-length=4
            upstream: body "ab"
        > body cd end
        a.request_body 2 end        continue
            upstream: body "cd" end
        > < 200 content-length=2
        a.response_headers 2        continue
        > < body ef end
        a.response_body 2 end       continue
            client: 200 content-length=2
            client: body "ef" end
    "#]],
    );
}

#[test]
fn a_changed_body_that_is_whole_gets_its_new_length() {
    check(
        "a(request_body: pause / replace longer)",
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            pause
        > body cd end
        a.request_body 4 end        replace longer
            upstream: POST / content-length=6
            upstream: body "longer" end
    "#]],
    );
    check(
        "a(response_body: replace x)",
        "GET / end; < 200 content-length=2; < body ab end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 content-length=2
        a.response_headers 2        continue
        > < body ab end
        a.response_body 2 end       replace x
            client: 200 content-length=1
            client: body "x" end
    "#]],
    );
    check(
        "a(response_body: replace )",
        "GET / end; < 200 content-length=2; < body ab end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 content-length=2
        a.response_headers 2        continue
        > < body ab end
        a.response_body 2 end       replace
            client: 200 content-length=0
            client: body "" end
    "#]],
    );
}

#[test]
fn a_changed_body_that_streams_has_no_declared_length() {
    check(
        "a(request_body: replace longer)",
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            replace longer
            upstream: POST /
            upstream: body "longer"
        > body cd end
        a.request_body 2 end        replace longer
            upstream: body "longer" end
    "#]],
    );
}

#[test]
fn a_body_that_was_dropped_and_paused_gets_the_length_of_what_is_left() {
    check(
        "a(request_body: answer 3)",
        "POST / content-length=4; body ab; body cd end; resume a",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            answer 3
        > body cd end
        a.request_body 2 end        answer 3
        > resume a
        a.resume                    resume
            upstream: POST / content-length=0
            upstream: body "" end
    "#]],
    );
    check(
        "a(request_body: answer 3; request_trailers: continue)",
        "POST / content-length=2; body ab; trailers t=1",
        expect![[r#"
        > POST / content-length=2
        a.request_headers 4         continue
        > body ab
        a.request_body 2            answer 3
        > trailers t=1
        a.request_trailers 1        continue
            upstream: POST /
            upstream: trailers t=1 end
    "#]],
    );
}

#[test]
fn a_change_after_the_head_was_sent_breaks_the_message_off() {
    let longer = "a(request_body: continue / append more)";
    check(
        longer,
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            continue
            upstream: POST / content-length=4
            upstream: body "ab"
        > body cd end
        a.request_body 2 end        append more
        a.response_headers 3        continue
        a.response_body 132 end     continue
            client: 502 content-type=application/problem+json content-length=132
            client: body <length_mismatch> end
    "#]],
    );
    let shorter = "a(response_body: continue / replace x)";
    check(
        shorter,
        "GET / end; < 200 content-length=4; < body ab; < body cd end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 content-length=4
        a.response_headers 2        continue
        > < body ab
        a.response_body 2           continue
            client: 200 content-length=4
            client: body "ab"
        > < body cd end
        a.response_body 2 end       replace x
            client: abort length_mismatch
    "#]],
    );
    let dropped = "a(response_body: continue / answer 3)";
    check(
        dropped,
        "GET / end; < 200 content-length=4; < body ab; < body cd; < trailers t=1",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 content-length=4
        a.response_headers 2        continue
        > < body ab
        a.response_body 2           continue
            client: 200 content-length=4
            client: body "ab"
        > < body cd
        a.response_body 2           answer 3
        > < trailers t=1
        a.response_trailers 1       continue
            client: abort length_mismatch
    "#]],
    );
}

#[test]
fn a_change_of_the_same_length_after_the_head_was_sent_is_fine() {
    check(
        "a(request_body: continue / replace XY)",
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            continue
            upstream: POST / content-length=4
            upstream: body "ab"
        > body cd end
        a.request_body 2 end        replace XY
            upstream: body "XY" end
    "#]],
    );
}

#[test]
fn a_filter_may_take_the_length_away() {
    check(
        "a(remove content-length; request_body: append more)",
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         remove content-length
            upstream: POST /
        > body ab
        a.request_body 2            append more
            upstream: body "abmore"
        > body cd end
        a.request_body 2 end        append more
            upstream: body "cdmore" end
    "#]],
    );
}

#[test]
fn a_length_that_a_filter_makes_up_is_not_believed() {
    check(
        "a(set content-length=9)",
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         set content-length=9
        > body ab
        a.request_body 2            continue
            upstream: POST /
            upstream: body "ab"
        > body cd end
        a.request_body 2 end        continue
            upstream: body "cd" end
    "#]],
    );
    check(
        "a(set content-length=9)",
        "POST /; body ab end",
        expect![[r#"
        > POST /
        a.request_headers 3         set content-length=9
        > body ab end
        a.request_body 2 end        continue
            upstream: POST / content-length=2
            upstream: body "ab" end
    "#]],
    );
    check(
        "a[headers](set content-length=9)",
        "POST / content-length=4; body abcd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         set content-length=9
            upstream: POST /
        > body abcd end
            upstream: body "abcd" end
    "#]],
    );
    check(
        "a(set content-length=9)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     set content-length=9
            upstream: GET / content-length=0 end
    "#]],
    );
    check(
        "a(response_headers: set content-length=9)",
        "GET / end; < 200 end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 end
        a.response_headers 1 end    set content-length=9
            client: 200 content-length=0 end
    "#]],
    );
    check(
        "a(reply 403 no; response_headers: set content-length=9)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 403
        a.response_headers 4        set content-length=9
        a.response_body 2 end       continue
            client: 403 x-by=guest content-length=2 content-type=text/plain
            client: body "no" end
    "#]],
    );
    check(
        "a(reply 403; response_headers: set content-length=9)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 403
        a.response_headers 3 end    set content-length=9
            client: 403 x-by=guest content-length=0 end
    "#]],
    );
}

#[test]
fn messages_without_a_body_end_with_their_head() {
    check(
        "a",
        "HEAD / end; < 200 content-length=5; < body late end",
        expect![[r#"
        > HEAD / end
        a.request_headers 3 end     continue
            upstream: HEAD / end
        > < 200 content-length=5
        a.response_headers 2 end    continue
            client: 200 content-length=5 end
        > < body late end
    "#]],
    );
    check(
        "a",
        "GET / end; < 304 content-length=5; < body late end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 304 content-length=5
        a.response_headers 2 end    continue
            client: 304 content-length=5 end
        > < body late end
    "#]],
    );
    check(
        "a",
        "GET / end; < 204; < body end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 204
        a.response_headers 1 end    continue
            client: 204 end
        > < body end
    "#]],
    );
    check(
        "a(response_headers: pause)",
        "HEAD / end; < 200; < body end; resume a response",
        expect![[r#"
        > HEAD / end
        a.request_headers 3 end     continue
            upstream: HEAD / end
        > < 200
        a.response_headers 1 end    pause
        > < body end
        > resume a response
        a.resume_response           resume response
            client: 200 end
    "#]],
    );
}

#[test]
fn a_status_that_a_filter_changes_decides_about_the_body() {
    check(
        "a(response_headers: set :status=204)",
        "GET / end; < 200 content-length=2; < body ab end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
                upstream: GET / end
            > < 200 content-length=2
            a.response_headers 2        set :status=204
                client: 204 end
            > < body ab end
        "#]],
    );
    check(
        "a(response_headers: set :status=304)",
        "GET / end; < 200 content-length=2; < body ab end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
                upstream: GET / end
            > < 200 content-length=2
            a.response_headers 2        set :status=304
                client: 304 content-length=2 end
            > < body ab end
        "#]],
    );
    check(
        "a(response_headers: set :status=200)",
        "GET / end; < 304 content-length=5",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 304 content-length=5
        a.response_headers 2 end    set :status=200
            client: 200 content-length=0 end
    "#]],
    );
    check(
        "a(response_headers: set :status=101)",
        "GET / end; < 200; < body ab end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        a.response_headers 1        set :status=101
            client: 500
        > < body ab end
        a.response_body 2 end       continue
            client: body "ab" end
    "#]],
    );
}

#[test]
fn a_filter_that_makes_trailers_takes_the_length_away_where_it_still_can() {
    check(
        "a(request_body: set t=1)",
        "POST / content-length=2; body ab end",
        expect![[r#"
        > POST / content-length=2
        a.request_headers 4         continue
        > body ab end
        a.request_body 2 end        set t=1
            upstream: POST /
            upstream: body "ab"
            upstream: trailers t=1 end
    "#]],
    );
    check(
        "a(request_body: continue / set t=1)",
        "POST / content-length=4; body ab; body cd end",
        expect![[r#"
        > POST / content-length=4
        a.request_headers 4         continue
        > body ab
        a.request_body 2            continue
            upstream: POST / content-length=4
            upstream: body "ab"
        > body cd end
        a.request_body 2 end        set t=1
            upstream: body "cd"
            upstream: trailers t=1 end
    "#]],
    );
}

#[test]
fn a_body_behind_a_status_that_has_none_is_shown_to_nobody() {
    check(
        "a(response_headers: set :status=204, pause; response_body: reply 503)",
        "GET / end; < 200; < body ab end; resume a response; wants",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
                upstream: GET / end
            > < 200
            a.response_headers 1        set :status=204, pause
            > < body ab end
            > resume a response
            a.resume_response           resume response
                client: 204 end
            > wants
                request: Nothing, response: Nothing
        "#]],
    );
}
