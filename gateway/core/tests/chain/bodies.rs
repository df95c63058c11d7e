//! What a filter sees of a body, what it may do to it, and what becomes of it (ABI reference §6.3, §7.3).

use expect_test::expect;

use crate::world::check;

#[test]
fn a_pausing_filter_sees_the_body_accumulate() {
    check(
        "a(request_body: read, pause / read, pause / read, pause / read, continue) | b",
        "POST /; body ab; body cd; body ef; body end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            read "ab", pause
            > body cd
            a.request_body 4            read "abcd", pause
            > body ef
            a.request_body 6            read "abcdef", pause
            > body end
            a.request_body 6 end        read "abcdef", continue
            b.request_body 6 end        continue
                upstream: body "abcdef" end
        "#]],
    );
}

#[test]
fn a_continuing_filter_sees_each_chunk_alone() {
    check(
        "a(response_body: read, continue)",
        "GET / end; < 200; < body ab; < body cd; < body end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        a.response_headers 1        continue
            client: 200
        > < body ab
        a.response_body 2           read "ab", continue
            client: body "ab"
        > < body cd
        a.response_body 2           read "cd", continue
            client: body "cd"
        > < body end
        a.response_body 0 end       read "", continue
            client: body "" end
    "#]],
    );
}

#[test]
fn watermark_shows_only_what_is_new_and_forwards_everything() {
    check(
        "a(request_body: read, answer 2 / read, answer 2 / read, continue) | b",
        "POST /; body ab; body cd; body ef end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            read "ab", answer 2
            > body cd
            a.request_body 2            read "cd", answer 2
            > body ef end
            a.request_body 2 end        read "ef", continue
            b.request_body 6 end        continue
                upstream: body "abcdef" end
        "#]],
    );
}

#[test]
fn watermark_then_buffer_shows_everything_again() {
    check(
        "a(request_body: answer 2 / read, pause / read, continue) | b",
        "POST /; body ab; body cd; body ef end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            answer 2
            > body cd
            a.request_body 2            read "cd", pause
            > body ef end
            a.request_body 6 end        read "abcdef", continue
            b.request_body 6 end        continue
                upstream: body "abcdef" end
        "#]],
    );
}

#[test]
fn dropped_chunks_are_gone_and_larger_answers_drop_too() {
    check(
        "a(request_body: answer 3 / answer 77 / continue) | b",
        "POST / content-length=6; body ab; body cd; body ef end",
        expect![[r#"
            > POST / content-length=6
            a.request_headers 4         continue
            b.request_headers 4         continue
            > body ab
            a.request_body 2            answer 3
            > body cd
            a.request_body 2            answer 77
            > body ef end
            a.request_body 2 end        continue
            b.request_body 2 end        continue
                upstream: POST / content-length=2
                upstream: body "ef" end
        "#]],
    );
}

#[test]
fn a_filter_that_dropped_everything_can_put_its_own_body_there() {
    check(
        "a(request_body: answer 3; resume: replace mine, resume) | b",
        "POST /; body ab; body cd end; resume a",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            answer 3
            > body cd end
            a.request_body 2 end        answer 3
            > resume a
            a.resume                    replace mine, resume
            b.request_body 4 end        continue
                upstream: body "mine" end
        "#]],
    );
}

#[test]
fn a_pause_at_the_end_is_not_called_again_when_resumed() {
    check(
        "a(request_body: pause) | b",
        "POST /; body ab; body cd end; resume a",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            pause
        > body cd end
        a.request_body 4 end        pause
        > resume a
        a.resume                    resume
        b.request_body 4 end        continue
            upstream: body "abcd" end
    "#]],
    );
}

#[test]
fn a_resume_midway_forwards_what_is_held_and_the_filter_sees_the_rest() {
    check(
        "a(request_body: pause / continue) | b",
        "POST /; body ab; resume a; body cd; body end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            pause
            > resume a
            a.resume                    resume
            b.request_body 2            continue
                upstream: body "ab"
            > body cd
            a.request_body 2            continue
            b.request_body 2            continue
                upstream: body "cd"
            > body end
            a.request_body 0 end        continue
            b.request_body 0 end        continue
                upstream: body "" end
        "#]],
    );
}

#[test]
fn a_paused_body_can_be_replaced_when_a_callout_returns() {
    check(
        "a(request_body: pause / call authz, pause; authz: read, replace new, read, resume) | b(request_body: read)",
        "POST /; body ab; body cd end; authz 200",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            pause
            > body cd end
            a.request_body 4 end        call authz, pause
            > authz 200
            a.authz 200                 read "abcd", replace new, read "new", resume
            b.request_body 3 end        read "new"
                upstream: body "new" end
        "#]],
    );
}

#[test]
fn each_chunk_can_be_edited_at_its_ends_or_replaced() {
    check(
        "a(request_body: prepend <, append >, read / replace X, read / read, append tail)",
        "POST /; body ab; body cd; body end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            prepend <, append >, read "<ab>"
                upstream: body "<ab>"
            > body cd
            a.request_body 2            replace X, read "X"
                upstream: body "X"
            > body end
            a.request_body 0 end        read "", append tail
                upstream: body "tail" end
        "#]],
    );
}

#[test]
fn a_body_can_be_written_only_where_there_is_one() {
    check(
        "a(append x; request_body: append y; request_trailers: append z; response_headers: append v, map request_headers, append w)",
        "POST /; body ab; trailers t=1; < 200 end",
        expect![[r#"
            > POST /
            a.request_headers 3         append x: BadArgument
                upstream: POST /
            > body ab
            a.request_body 2            append y
                upstream: body "aby"
            > trailers t=1
            a.request_trailers 1        append z: BadArgument
                upstream: trailers t=1 end
            > < 200 end
            a.response_headers 1 end    append v: BadArgument, map 0, append w: BadArgument
                client: 200 end
        "#]],
    );
    check(
        "a(pause; resume: append x, resume)",
        "GET / end; resume a",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     pause
        > resume a
        a.resume                    append x: BadArgument, resume
            upstream: GET / end
    "#]],
    );
    check(
        "a[holds](pause; resume: append x, resume)",
        "GET / end; resume a",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     pause
            > resume a
            a.resume                    append x, resume
                upstream: GET /
                upstream: body "x" end
        "#]],
    );
}

#[test]
fn a_body_behind_held_headers_is_not_shown_before_its_callback() {
    check(
        "a(pause; resume: read, replace new, resume; request_body: read)",
        "POST /; body ab end; resume a",
        expect![[r#"
            > POST /
            a.request_headers 3         pause
            > body ab end
            > resume a
            a.resume                    read "", replace new: BadArgument, resume
            a.request_body 2 end        read "ab"
                upstream: POST /
                upstream: body "ab" end
        "#]],
    );
}

#[test]
fn a_body_held_until_the_trailers_is_shown_and_changed_there() {
    check(
        "a(request_body: pause; request_trailers: read, replace new, set t=2)",
        "POST /; body ab; trailers t=1",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            pause
            > trailers t=1
            a.request_trailers 1        read "ab", replace new, set t=2
                upstream: body "new"
                upstream: trailers t=2 end
        "#]],
    );
}

#[test]
fn trailers_are_made_by_the_first_write_at_the_end_of_a_body() {
    check(
        "a(request_body: set t=1 / get t, set t=1, get t) | b",
        "POST /; body ab; body cd end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
            b.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            set t=1: BadArgument
            b.request_body 2            continue
                upstream: body "ab"
            > body cd end
            a.request_body 2 end        get t: NotFound, set t=1, get t=1
            b.request_body 2            continue
            b.request_trailers 1        continue
                upstream: body "cd"
                upstream: trailers t=1 end
        "#]],
    );
    check(
        "a | b(response_body: set t=1, pause)",
        "GET / end; < 200; < body ab end; resume b response",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     continue
        b.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        b.response_headers 1        continue
        a.response_headers 1        continue
            client: 200
        > < body ab end
        b.response_body 2 end       set t=1, pause
        > resume b response
        b.resume_response           resume response
        a.response_body 2           continue
        a.response_trailers 1       continue
            client: body "ab"
            client: trailers t=1 end
    "#]],
    );
}

#[test]
fn trailers_made_while_the_body_is_paused_follow_it() {
    check(
        "a(response_body: set t=1, pause; resume_response: map response_trailers, get t, set u=2, resume) | b",
        "GET / end; < 200 content-length=2; < body ab end; resume a response",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
            b.request_headers 3 end     continue
                upstream: GET / end
            > < 200 content-length=2
            b.response_headers 2        continue
            a.response_headers 2        continue
            > < body ab end
            b.response_body 2 end       continue
            a.response_body 2 end       set t=1, pause
            > resume a response
            a.resume_response           map 3, get t=1, set u=2, resume response
                client: 200
                client: body "ab"
                client: trailers t=1 u=2 end
        "#]],
    );
}

#[test]
fn a_message_that_ends_with_its_head_is_given_a_body() {
    for filter in ["a[holds](replace abc, continue)", "a[holds](replace abc, pause)"] {
        let events = "GET / end; resume a";
        let played = crate::world::play(&format!("{filter} | b"), events);
        let sent = "upstream: GET /\n    upstream: body \"abc\" end\n";
        assert!(played.contains(sent), "{filter}\n{played}");
    }
}

#[test]
fn what_is_set_when_the_trailers_are_there_goes_on_before_them() {
    check(
        "a[holds](response_trailers: append !)",
        "GET / end; < 200; < body ab; < trailers x=1",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
                upstream: GET / end
            > < 200
            a.response_headers 1        continue
                client: 200
            > < body ab
            a.response_body 2           continue
                client: body "ab"
            > < trailers x=1
            a.response_trailers 1       append !
                client: body "!"
                client: trailers x=1 end
        "#]],
    );
}
