//! VMs that die while exchanges have contexts in them (ABI reference §11).

use expect_test::expect;

use crate::world::check;

#[test]
fn filters_of_one_vm_fail_together() {
    check(
        "a@1(request_body: pause) | b@1(request_body: continue) | c(tick: continue)",
        "POST /; body ab; die b",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            pause
        > die b
        c.response_headers 3        continue
        c.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
    "#]],
    );
    check(
        "a@1[open](pause) | b@1[open] | c",
        "POST /; body ab end; die a; < 200 end; end",
        expect![[r#"
        > POST /
        a.request_headers 3         pause
        > body ab end
        > die a
        b.request_headers 3         continue
        c.request_headers 3         continue
        b.request_body 2 end        continue
        c.request_body 2 end        continue
            upstream: POST /
            upstream: body "ab" end
        > < 200 end
        c.response_headers 1 end    continue
        b.response_headers 1 end    continue
            client: 200 end
        > end
            ended: details none, 0 bytes sent
    "#]],
    );
    check(
        "a@1[open](request_body: pause) | b@1[open](request_body: fail) | c",
        "POST /; body ab; resume a; body cd end",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         continue
        c.request_headers 3         continue
            upstream: POST /
        > body ab
        a.request_body 2            pause
        > resume a
        a.resume                    resume
        b.request_body 2            fail
        c.request_body 2            continue
            upstream: body "ab"
        > body cd end
        c.request_body 2 end        continue
            upstream: body "cd" end
    "#]],
    );
}

#[test]
fn a_vm_that_dies_elsewhere_fails_the_exchanges_that_wait_for_it() {
    check(
        "a | b(call authz, pause) | c",
        "POST /; body ab; die b; authz 200",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         call authz, pause
        > body ab
        a.request_body 2            continue
        > die b
        a.response_headers 3        continue
        a.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
        > authz 200
            nobody waits
    "#]],
    );
    check(
        "a | b[open](call authz, pause) | c",
        "POST /; body ab end; die b; authz 200",
        expect![[r#"
        > POST /
        a.request_headers 3         continue
        b.request_headers 3         call authz, pause
        > body ab end
        a.request_body 2 end        continue
        > die b
        c.request_headers 3         continue
        c.request_body 2 end        continue
            upstream: POST /
            upstream: body "ab" end
        > authz 200
            nobody waits
    "#]],
    );
    check(
        "a | b(response_headers: pause) | c",
        "GET / end; < 200; < body ab; die b",
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
        > die b
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
    "#]],
    );
    check(
        "a | b | c",
        "GET / end; < 200; < body ab; die b; < body cd end",
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
        > die b
            client: abort filter_failed
        > < body cd end
    "#]],
    );
}

#[test]
fn a_vm_that_died_elsewhere_is_noticed_before_its_filter_is_called() {
    check(
        "a@1[life](response_headers: fail) | b",
        "1: GET / end; 2: POST /; 1: < 200 end; 2: body ab end; 1: end; 2: end",
        expect![[r#"
            > 1: GET / end
            a.create                    continue
            a.request_headers 3 end     continue
            b.request_headers 3 end     continue
                upstream: GET / end
            > 2: POST /
            a#2.create                  continue
            a#2.request_headers 3       continue
            b#2.request_headers 3       continue
                upstream#2: POST /
            > 1: < 200 end
            b#1.response_headers 1 end  continue
            a#1.response_headers 1 end  fail
                client#1: 503 content-type=application/problem+json content-length=119
                client#1: body <filter_failed> end
            b#2.response_headers 3      continue
            b#2.response_body 119 end   continue
                client#2: 503 content-type=application/problem+json content-length=119
                client#2: body <filter_failed> end
            > 2: body ab end
            > 1: end
                ended: details filter_failed, 119 bytes sent
            > 2: end
                ended: details filter_failed, 119 bytes sent
        "#]],
    );
}

#[test]
fn a_callout_whose_vm_died_is_answered_to_nobody() {
    check(
        "a[open](call authz, pause)",
        "GET / end; die a; authz 200; < 200 end; end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     call authz, pause
        > die a
            upstream: GET / end
        > authz 200
            nobody waits
        > < 200 end
            client: 200 end
        > end
            ended: details none, 0 bytes sent
    "#]],
    );
}

#[test]
fn a_failure_in_a_callout_ends_the_exchanges_of_that_vm() {
    check(
        "a@1(call authz, pause; authz: fail) | b",
        "1: GET / end; 2: GET / end; authz 200",
        expect![[r#"
        > 1: GET / end
        a.request_headers 3 end     call authz, pause
        > 2: GET / end
        a#2.request_headers 3 end   call authz, pause
        > authz 200
        a#1.authz 200               fail
            client#1: 503 content-type=application/problem+json content-length=119
            client#1: body <filter_failed> end
            client#2: 503 content-type=application/problem+json content-length=119
            client#2: body <filter_failed> end
    "#]],
    );
}
