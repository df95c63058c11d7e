//! Which map is there in which callback (ABI reference §6.2), as this host has it.
//!
//! Where Envoy answers `BadArgument` to a read of a map that is not there, this host answers `NotFound`: SDKs abort on the former.

use expect_test::expect;

use crate::world::check;

const READ_ALL: &str = "map request_headers, get h, map request_trailers, get t, map response_headers, get h, map response_trailers, get t";
const WRITE_ALL: &str = "map request_headers, set x=1, map request_trailers, set x=1, map response_headers, set x=1, map response_trailers, set x=1";

const EVENTS: &str = "POST / h=rq; body ab; trailers t=rq; < 200 h=rs; < body cd; < trailers t=rs; end";

fn in_every_callback(actions: &str) -> String {
    let callbacks = [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "log",
        "done",
    ];
    let rules: Vec<String> = callbacks.iter().map(|callback| format!("{callback}: {actions}")).collect();
    format!("a[life]({})", rules.join("; "))
}

#[test]
fn maps_are_read_in_their_own_callback_and_in_the_log() {
    check(
        &in_every_callback(READ_ALL),
        EVENTS,
        expect![[r#"
        > POST / h=rq
        a.create                    continue
        a.request_headers 4         map 0,
                                    get h=rq,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 3,
                                    get t: NotFound
            upstream: POST / h=rq
        > body ab
        a.request_body 2            map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 3,
                                    get t: NotFound
            upstream: body "ab"
        > trailers t=rq
        a.request_trailers 1        map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t=rq,
                                    map 2,
                                    get h: NotFound,
                                    map 3,
                                    get t: NotFound
            upstream: trailers t=rq end
        > < 200 h=rs
        a.response_headers 2        map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h=rs,
                                    map 3,
                                    get t: NotFound
            client: 200 h=rs
        > < body cd
        a.response_body 2           map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 3,
                                    get t: NotFound
            client: body "cd"
        > < trailers t=rs
        a.response_trailers 1       map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 3,
                                    get t=rs
            client: trailers t=rs end
        > end
        a.log                       map 0, get h=rq, map 1, get t=rq, map 2, get h=rs, map 3, get t=rs
        a.done                      map 0, get h=rq, map 1, get t=rq, map 2, get h=rs, map 3, get t=rs
        a.delete                    continue
            ended: details none, 2 bytes sent
    "#]],
    );
}

#[test]
fn maps_are_written_in_their_own_callback_only() {
    check(
        &in_every_callback(WRITE_ALL),
        EVENTS,
        expect![[r#"
        > POST / h=rq
        a.create                    continue
        a.request_headers 4         map 0,
                                    set x=1,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
            upstream: POST / h=rq x=1
        > body ab
        a.request_body 2            map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
            upstream: body "ab"
        > trailers t=rq
        a.request_trailers 1        map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
            upstream: trailers t=rq x=1 end
        > < 200 h=rs
        a.response_headers 2        map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1,
                                    map 3,
                                    set x=1: BadArgument
            client: 200 h=rs x=1
        > < body cd
        a.response_body 2           map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
            client: body "cd"
        > < trailers t=rs
        a.response_trailers 1       map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1
            client: trailers t=rs x=1 end
        > end
        a.log                       map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
        a.done                      map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
        a.delete                    continue
            ended: details none, 2 bytes sent
    "#]],
    );
}

#[test]
fn trailers_can_be_made_in_the_last_body_callback_only() {
    check(
        "a(request_body: set t=1 / set t=1; response_headers: map request_trailers, set t=2; response_body: set t=1)",
        "POST /; body ab; body end; < 200; < body cd end",
        expect![[r#"
            > POST /
            a.request_headers 3         continue
                upstream: POST /
            > body ab
            a.request_body 2            set t=1: BadArgument
                upstream: body "ab"
            > body end
            a.request_body 0 end        set t=1
                upstream: trailers t=1 end
            > < 200
            a.response_headers 1        map 1, set t=2: BadArgument
                client: 200
            > < body cd end
            a.response_body 2 end       set t=1
                client: body "cd"
                client: trailers t=1 end
        "#]],
    );
}

#[test]
fn maps_of_a_paused_phase_are_there_for_callouts_and_timers() {
    let all = format!("{READ_ALL}, {WRITE_ALL}").replace("response_trailers", "request_trailers");
    check(
        &format!("a(pause; tick: {all}, resume)"),
        "GET / h=rq end; tick a; tick a",
        expect![[r#"
        > GET / h=rq end
        a.request_headers 4 end     pause
        > tick a
        a.tick                      map 0,
                                    get h=rq,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 0,
                                    set x=1,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    resume
            upstream: GET / h=rq x=1 end
        > tick a
        a.tick                      map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    resume
    "#]],
    );
    check(
        &format!("a(request_trailers: pause; tick: {all})"),
        "POST / h=rq; trailers t=rq; tick a",
        expect![[r#"
        > POST / h=rq
        a.request_headers 4         continue
            upstream: POST / h=rq
        > trailers t=rq
        a.request_trailers 1        pause
        > tick a
        a.tick                      map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t=rq,
                                    map 2,
                                    get h: NotFound,
                                    map 1,
                                    get t=rq,
                                    map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1
    "#]],
    );
    check(
        &format!("a(response_headers: pause; tick: {all})"),
        "GET / h=rq end; < 200 h=rs; tick a",
        expect![[r#"
        > GET / h=rq end
        a.request_headers 4 end     continue
            upstream: GET / h=rq end
        > < 200 h=rs
        a.response_headers 2        pause
        > tick a
        a.tick                      map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h=rs,
                                    map 1,
                                    get t: NotFound,
                                    map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1,
                                    map 1,
                                    set x=1: BadArgument
    "#]],
    );
}

#[test]
fn a_filter_cannot_reach_a_head_that_another_holds() {
    check(
        "a@1(tick: get h, set h=2) | b@1(pause; tick: get h)",
        "GET / h=1 end; tick a; tick b",
        expect![[r#"
        > GET / h=1 end
        a.request_headers 4 end     continue
        b.request_headers 4 end     pause
        > tick a
        a.tick                      get h: NotFound, set h=2: BadArgument
        > tick b
        b.tick                      get h=1
    "#]],
    );
    check(
        "a@1(tick: on b, get h, set h=2) | b@1(pause; tick: get h)",
        "GET / h=1 end; tick a; tick b",
        expect![[r#"
        > GET / h=1 end
        a.request_headers 4 end     continue
        b.request_headers 4 end     pause
        > tick a
        a.tick                      on b, get h=1, set h=2
        > tick b
        b.tick                      get h=2
    "#]],
    );
}

#[test]
fn a_callouts_answer_is_read_in_its_callback_only() {
    check(
        "a(call authz, pause; authz: map callout_headers, get :status, pairs, read, set x=1, map callout_trailers, get t, pairs; tick: map callout_headers, get :status, read)",
        "GET / end; authz 200 yes; tick a",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     call authz, pause
            > authz 200 yes
            a.authz 200                 map 6,
                                        get :status=200,
                                        pairs [:status=200],
                                        read "yes",
                                        set x=1: BadArgument,
                                        map 7,
                                        get t: NotFound,
                                        no pairs
            > tick a
            a.tick                      map 6, get :status: NotFound, read: NotFound
        "#]],
    );
    check(
        "a(call authz, pause; authz: map callout_headers, get :status, pairs, read)",
        "GET / end; authz lost",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     call authz, pause
        > authz lost
        a.authz lost                map 6, get :status: NotFound, no pairs, read ""
    "#]],
    );
}

#[test]
fn the_maps_of_a_local_reply_are_a_responses() {
    check(
        &format!("a[life](response_headers: {READ_ALL}; log: {READ_ALL}) | b(reply 403 no)"),
        "GET / h=rq end; end",
        expect![[r#"
            > GET / h=rq end
            a.create                    continue
            a.request_headers 4 end     continue
            b.request_headers 4 end     reply 403
            b.response_headers 4        continue
            a.response_headers 4        map 0,
                                        get h: NotFound,
                                        map 1,
                                        get t: NotFound,
                                        map 2,
                                        get h: NotFound,
                                        map 3,
                                        get t: NotFound
            b.response_body 2 end       continue
            a.response_body 2 end       continue
                client: 403 x-by=guest content-length=2 content-type=text/plain
                client: body "no" end
            > end
            a.log                       map 0,
                                        get h=rq,
                                        map 1,
                                        get t: NotFound,
                                        map 2,
                                        get h: NotFound,
                                        map 3,
                                        get t: NotFound
            a.done                      continue
            a.delete                    continue
                ended: details said_so, 2 bytes sent
        "#]],
    );
}

#[test]
fn a_log_without_a_request_finds_no_maps() {
    check(
        &format!("a[life](log: {READ_ALL}, {WRITE_ALL})"),
        "end client_gone",
        expect![[r#"
        > end client_gone
        a.create                    continue
        a.log                       map 0,
                                    get h: NotFound,
                                    map 1,
                                    get t: NotFound,
                                    map 2,
                                    get h: NotFound,
                                    map 3,
                                    get t: NotFound,
                                    map 0,
                                    set x=1: BadArgument,
                                    map 1,
                                    set x=1: BadArgument,
                                    map 2,
                                    set x=1: BadArgument,
                                    map 3,
                                    set x=1: BadArgument
        a.done                      continue
        a.delete                    continue
            ended: details client_gone, 0 bytes sent
    "#]],
    );
}
