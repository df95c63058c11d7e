//! Pausing and resuming (ABI reference §7.3, §12.4).

use expect_test::expect;

use crate::world::{check, play};

#[test]
fn a_paused_filter_holds_the_body_until_its_callout_returns() {
    check(
        "auth(call authz, pause) | tag",
        "POST /pay; body hello end; authz 200",
        expect![[r#"
        > POST /pay
        auth.request_headers 3      call authz, pause
        > body hello end
        > authz 200
        auth.authz 200              resume
        tag.request_headers 3       continue
        auth.request_body 5 end     continue
        tag.request_body 5 end      continue
            upstream: POST /pay
            upstream: body "hello" end
    "#]],
    );
}

#[test]
fn any_other_answer_of_a_headers_callback_stops_everything_as_pause_does() {
    let events = "POST /; body ab; body cd end; resume a";
    check(
        "a(pause) | b",
        events,
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > body ab
        > body cd end
        > resume a
        a.resume                    resume
        b.request_headers 3         continue
        a.request_body 4 end        continue
        b.request_body 4 end        continue
            upstream: POST /
            upstream: body "abcd" end
    "#]],
    );
    let paused = play("a(pause) | b", events);
    for answer in [3, 4, 99] {
        let answered = play(&format!("a(answer {answer}) | b"), events);
        assert_eq!(answered.replace(&format!("answer {answer}"), "pause"), paused);
    }
}

#[test]
fn continue_and_end_stream_is_continue() {
    check(
        "a(answer 2) | b",
        "POST /; body ab end",
        expect![[r#"
        > POST /
        a.request_headers 3         answer 2
        b.request_headers 3         continue
            upstream: POST /
        > body ab end
        a.request_body 2 end        continue
        b.request_body 2 end        continue
            upstream: body "ab" end
    "#]],
    );
}

#[test]
fn a_filter_that_may_hold_headers_goes_on_seeing_the_body() {
    check(
        "a[holds](pause; request_body: map request_headers, set x-a=1, pause / pause / continue) | b",
        "POST /; body ab; body cd; body ef end",
        expect![[r#"
            > POST /
            a.request_headers 3         pause
            > body ab
            a.request_body 2            map 0, set x-a=1, pause
            > body cd
            a.request_body 4            pause
            > body ef end
            a.request_body 6 end        continue
            b.request_headers 4         continue
            b.request_body 6 end        continue
                upstream: POST / x-a=1
                upstream: body "abcdef" end
        "#]],
    );
}

#[test]
fn a_filter_that_holds_headers_can_be_resumed_before_the_body_ends() {
    check(
        "a[holds](pause; request_body: pause) | b",
        "POST /; body ab; resume a; body cd; resume a; body end; resume a",
        expect![[r#"
            > POST /
            a.request_headers 3         pause
            > body ab
            a.request_body 2            pause
            > resume a
            a.resume                    resume
            b.request_headers 3         continue
            b.request_body 2            continue
                upstream: POST /
                upstream: body "ab"
            > body cd
            a.request_body 2            pause
            > resume a
            a.resume                    resume
            b.request_body 2            continue
                upstream: body "cd"
            > body end
            a.request_body 0 end        pause
            > resume a
            a.resume                    resume
            b.request_body 0 end        continue
                upstream: body "" end
        "#]],
    );
}

#[test]
fn held_headers_without_a_body_callback_wait_for_the_resume() {
    check(
        "a[holds headers](pause) | b",
        "POST /; body ab; body cd end; resume a",
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > body ab
        > body cd end
        > resume a
        a.resume                    resume
        b.request_headers 3         continue
        b.request_body 4 end        continue
            upstream: POST /
            upstream: body "abcd" end
    "#]],
    );
}

#[test]
fn held_headers_with_trailers_are_let_go_by_the_trailers_callback() {
    check(
        "a[holds](pause; request_body: pause) | b",
        "POST /; body ab; trailers t=1",
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > body ab
        a.request_body 2            pause
        > trailers t=1
        a.request_trailers 1        continue
        b.request_headers 3         continue
        b.request_body 2            continue
        b.request_trailers 1        continue
            upstream: POST /
            upstream: body "ab"
            upstream: trailers t=1 end
    "#]],
    );
    check(
        "a[holds](pause) | b",
        "POST /; trailers t=1",
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > trailers t=1
        a.request_trailers 1        continue
        b.request_headers 3         continue
        b.request_trailers 1        continue
            upstream: POST /
            upstream: trailers t=1 end
    "#]],
    );
    check(
        "a[holds](pause; request_body: pause; request_trailers: pause) | b",
        "POST /; body ab; trailers t=1; resume a",
        expect![[r#"
            > POST /
            a.request_headers 3         pause
            > body ab
            a.request_body 2            pause
            > trailers t=1
            a.request_trailers 1        pause
            > resume a
            a.resume                    resume
            b.request_headers 3         continue
            b.request_body 2            continue
            b.request_trailers 1        continue
                upstream: POST /
                upstream: body "ab"
                upstream: trailers t=1 end
        "#]],
    );
}

#[test]
fn paused_trailers_wait_for_the_resume() {
    check(
        "a(request_trailers: set t=2, pause) | b",
        "POST /; body ab; trailers t=1; resume a",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            continue
        b.request_body 2            continue
            upstream: body "ab"
        > trailers t=1
        a.request_trailers 1        set t=2, pause
        > resume a
        a.resume                    resume
        b.request_trailers 1        continue
            upstream: trailers t=2 end
    "#]],
    );
}

#[test]
fn trailers_that_arrive_behind_held_headers_are_shown_after_the_resume() {
    check(
        "a(pause; request_body: pause; request_trailers: read, pause) | b",
        "POST /; body ab; trailers t=1; resume a; resume a",
        expect![[r#"
            > POST /
            a.request_headers 3         pause
            > body ab
            > trailers t=1
            > resume a
            a.resume                    resume
            b.request_headers 3         continue
            a.request_body 2            pause
            a.request_trailers 1        read "ab", pause
                upstream: POST /
            > resume a
            a.resume                    resume
            b.request_body 2            continue
            b.request_trailers 1        continue
                upstream: body "ab"
                upstream: trailers t=1 end
        "#]],
    );
}

#[test]
fn a_response_pauses_like_a_request() {
    check(
        "a | b(response_headers: call authz, pause; authz: map response_headers, set x-b=1, resume)",
        "GET / end; < 200; < body ab end; authz 200",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
            b.request_headers 3 end     continue
                upstream: GET / end
            > < 200
            b.response_headers 1        call authz, pause
            > < body ab end
            > authz 200
            b.authz 200                 map 2, set x-b=1, resume response
            a.response_headers 2        continue
            b.response_body 2 end       continue
            a.response_body 2 end       continue
                client: 200 x-b=1
                client: body "ab" end
        "#]],
    );
}

#[test]
fn a_paused_direction_is_not_read() {
    check(
        "a(pause)",
        "POST /; wants; resume a; wants; body ab end; wants",
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > wants
            request: Wait, response: More
        > resume a
        a.resume                    resume
            upstream: POST /
        > wants
            request: More, response: More
        > body ab end
        a.request_body 2 end        continue
            upstream: body "ab" end
        > wants
            request: Nothing, response: More
    "#]],
    );
}
