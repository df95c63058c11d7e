//! Resuming: by whom, when, and what it changes (ABI reference §7.3, §12.4).

use expect_test::expect;

use crate::world::check;

#[test]
fn resuming_in_the_callback_that_pauses_resumes_at_once() {
    check(
        "a(resume, pause; request_body: resume, pause; response_headers: resume, pause) | b",
        "POST /; body ab end; < 200 end",
        expect![[r#"
            > POST /
            a.request_headers 3         resume, pause
            b.request_headers 3         continue
                upstream: POST /
            > body ab end
            a.request_body 2 end        resume, pause
            b.request_body 2 end        continue
                upstream: body "ab" end
            > < 200 end
            b.response_headers 1 end    continue
            a.response_headers 1 end    resume response, pause
                client: 200 end
        "#]],
    );
}

#[test]
fn header_maps_stay_writable_after_a_resume_in_the_same_callback() {
    check(
        "a(resume, set x-a=1, get x-a, pause)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     resume, set x-a=1, get x-a=1, pause
            upstream: GET / x-a=1 end
    "#]],
    );
}

#[test]
fn resuming_what_is_not_paused_changes_nothing_now_or_later() {
    check(
        "a(continue; request_body: pause; response_headers: map request_headers, resume)",
        "POST /; resume a; resume a; body ab; resume a; resume a; body end; resume a; < 200; resume a",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
                upstream: POST /
            > resume a
            a.resume                    resume
            > resume a
            a.resume                    resume
            > body ab
            a.request_body 2            pause
            > resume a
            a.resume                    resume
                upstream: body "ab"
            > resume a
            a.resume                    resume
            > body end
            a.request_body 0 end        pause
            > resume a
            a.resume                    resume
                upstream: body "" end
            > < 200
            a.response_headers 1        map 0, resume
                client: 200
            > resume a
            a.resume                    resume
        "#]],
    );
}

#[test]
fn resuming_a_response_that_has_not_begun_is_a_no_op() {
    check(
        "a(map response_headers, resume, pause; response_headers: pause)",
        "GET / end; resume a response; resume a; < 200 end; resume a response",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     map 2, resume response, pause
            > resume a response
            a.resume_response           resume response
            > resume a
            a.resume                    resume
                upstream: GET / end
            > < 200 end
            a.response_headers 1 end    pause
            > resume a response
            a.resume_response           resume response
                client: 200 end
        "#]],
    );
}

#[test]
fn two_filters_paused_at_once_are_resumed_in_either_order() {
    let chain = "a(pause; request_body: pause) | b(continue; request_body: pause)";
    check(
        chain,
        "POST /; body ab; resume a; body cd; resume a; resume b; body end; resume b; resume a; resume b",
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > body ab
        > resume a
        a.resume                    resume
        b.request_headers 3         continue
        a.request_body 2            pause
            upstream: POST /
        > body cd
        a.request_body 4            pause
        > resume a
        a.resume                    resume
        b.request_body 4            pause
        > resume b
        b.resume                    resume
            upstream: body "abcd"
        > body end
        a.request_body 0 end        pause
        > resume b
        b.resume                    resume
        > resume a
        a.resume                    resume
        b.request_body 0 end        pause
        > resume b
        b.resume                    resume
            upstream: body "" end
    "#]],
    );
    let chain = "a(continue; request_body: continue / pause) | b(pause)";
    check(
        chain,
        "POST /; body ab; body cd; resume b; resume a; body ef end; resume a",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         pause
        > body ab
        a.request_body 2            continue
        > body cd
        a.request_body 2            pause
        > resume b
        b.resume                    resume
        b.request_body 2            continue
            upstream: POST /
            upstream: body "ab"
        > resume a
        a.resume                    resume
        b.request_body 2            continue
            upstream: body "cd"
        > body ef end
        a.request_body 2 end        pause
        > resume a
        a.resume                    resume
        b.request_body 2 end        continue
            upstream: body "ef" end
    "#]],
    );
    check(
        chain,
        "POST /; body ab; body cd; resume a; resume b; body ef end; resume a",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         pause
        > body ab
        a.request_body 2            continue
        > body cd
        a.request_body 2            pause
        > resume a
        a.resume                    resume
        > resume b
        b.resume                    resume
        b.request_body 4            continue
            upstream: POST /
            upstream: body "abcd"
        > body ef end
        a.request_body 2 end        pause
        > resume a
        a.resume                    resume
        b.request_body 2 end        continue
            upstream: body "ef" end
    "#]],
    );
}

#[test]
fn one_filter_resumes_another_of_its_vm_through_its_context() {
    check(
        "a@1(pause) | b@1",
        "GET / end; resume a",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     pause
        > resume a
        a.resume                    resume
        b.request_headers 3 end     continue
            upstream: GET / end
    "#]],
    );
    check(
        "a@1 | b@1(pause; resume: on a, resume, on b, resume)",
        "GET / end; resume b",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     pause
        > resume b
        b.resume                    on a, resume, on b, resume
            upstream: GET / end
    "#]],
    );
}

#[test]
fn a_context_of_another_vm_cannot_be_named() {
    check(
        "a@1 | b@2(on c; response_headers: on c, on b) | c@1(on a)",
        "GET / end; < 200 end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     on c: BadArgument
        c.request_headers 3 end     on a
            upstream: GET / end
        > < 200 end
        c.response_headers 1 end    continue
        b.response_headers 1 end    on c: BadArgument, on b
        a.response_headers 1 end    continue
            client: 200 end
    "#]],
    );
}

#[test]
fn the_first_of_two_callouts_resumes_and_the_second_finds_nothing_to_do() {
    check(
        "a(call one, call two, pause) | b",
        "GET / end; two 200; one 200",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     call one, call two, pause
        > two 200
        a.two 200                   resume
        b.request_headers 3 end     continue
            upstream: GET / end
        > one 200
        a.one 200                   resume
    "#]],
    );
}
