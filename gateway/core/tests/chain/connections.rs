//! TCP connections in the chain (ABI reference §7.6).

use expect_test::expect;

use crate::world::check;

#[test]
fn bytes_pass_every_filter_on_the_way_up_and_in_reverse_on_the_way_down() {
    check(
        "a[tcp] | b[tcp]",
        "accepted; connected; body hello; < body hi; < body bye end; body x end; end",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > body hello
            a.downstream_data 5         continue
            b.downstream_data 5         continue
                upstream: body "hello"
            > < body hi
            b.upstream_data 2           continue
            a.upstream_data 2           continue
                client: body "hi"
            > < body bye end
            b.upstream_data 3 end       continue
            b.upstream_close Unknown    continue
            a.upstream_data 3 end       continue
            a.upstream_close Unknown    continue
                client: body "bye" end
            > body x end
            a.downstream_data 1 end     continue
            b.downstream_data 1 end     continue
                upstream: body "x" end
            > end
            a.downstream_close Remote   continue
            b.downstream_close Remote   continue
                ended: details none, 5 bytes sent
        "#]],
    );
}

#[test]
fn a_filter_that_stops_a_connection_holds_the_upstream_back_until_it_resumes() {
    check(
        "a[tcp](new_connection: call who, pause) | b[tcp]",
        "accepted; who 200; connected; body hello",
        expect![[r#"
            > accepted
            a.new_connection            call who, pause
                held
            > who 200
            a.who 200                   resume
            b.new_connection            continue
            > connected
            > body hello
            a.downstream_data 5         continue
            b.downstream_data 5         continue
                upstream: body "hello"
        "#]],
    );
}

#[test]
fn a_filter_that_stopped_a_connection_still_sees_the_clients_first_bytes_and_may_let_them_pass() {
    check(
        "a[tcp](new_connection: pause; downstream_data: read, pause / read, continue) | b[tcp]",
        "accepted; body hel; body lo; connected; body !",
        expect![[r#"
            > accepted
            a.new_connection            pause
                held
            > body hel
            a.downstream_data 3         read "hel", pause
            > body lo
            a.downstream_data 5         read "hello", continue
            b.new_connection            continue
            b.downstream_data 5         continue
                upstream: body "hello"
            > connected
            > body !
            a.downstream_data 1         read "!", continue
            b.downstream_data 1         continue
                upstream: body "!"
        "#]],
    );
}

#[test]
fn held_bytes_add_up_and_can_be_changed() {
    check(
        "a[tcp](downstream_data: read, pause / read, replace new, continue) | b[tcp](downstream_data: read)",
        "accepted; connected; body one; body two; body three",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > body one
            a.downstream_data 3         read "one", pause
            > body two
            a.downstream_data 6         read "onetwo", replace new, continue
            b.downstream_data 3         read "new"
                upstream: body "new"
            > body three
            a.downstream_data 5         read "three", replace new, continue
            b.downstream_data 3         read "new"
                upstream: body "new"
        "#]],
    );
    check(
        "a[tcp] | b[tcp](upstream_data: read, pause / read, prepend >, append <)",
        "accepted; connected; < body one; < body two end",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > < body one
            b.upstream_data 3           read "one", pause
            > < body two end
            b.upstream_data 6 end       read "onetwo", prepend >, append <
            b.upstream_close Unknown    continue
            a.upstream_data 8 end       continue
            a.upstream_close Unknown    continue
                client: body ">onetwo<" end
        "#]],
    );
}

#[test]
fn the_upstreams_side_cannot_be_resumed_and_http_means_nothing_here() {
    check(
        "a[tcp](upstream_data: pause, resume; downstream_data: reply 200 no, get :path, set a=b, property request.path, \
         property source.address, property upstream.address)",
        "accepted; connected; < body one; body two; < body three",
        expect![[r#"
            > accepted
            a.new_connection            continue
                let in
            > connected
            > < body one
            a.upstream_data 3           pause, resume response: Unimplemented
            > body two
            a.downstream_data 3         reply 200,
                                        get :path: NotFound,
                                        set a=b: BadArgument,
                                        request.path: NotFound,
                                        source.address="192.0.2.7:4711",
                                        upstream.address="192.0.2.9:80"
                upstream: body "two"
            > < body three
            a.upstream_data 8           pause, resume response: Unimplemented
        "#]],
    );
}

#[test]
fn a_filter_that_closes_lets_out_what_has_passed() {
    check(
        "a[tcp] | b[tcp](downstream_data: close)",
        "accepted; connected; body one; body two; end filter_closed",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > body one
            a.downstream_data 3         continue
            b.downstream_data 3         close
                upstream: abort filter_closed
                client: abort filter_closed
            > body two
            > end filter_closed
            a.upstream_close Unknown    continue
            a.downstream_close Local    continue
            b.upstream_close Unknown    continue
            b.downstream_close Local    continue
                ended: details filter_closed, 0 bytes sent
        "#]],
    );
}

#[test]
fn filters_hear_of_the_end_in_the_order_of_the_text() {
    check(
        "a[tcp life] | b[tcp life]",
        "accepted; connected; < body one end; end client_gone",
        expect![[r#"
            > accepted
            a.create                    continue
            a.new_connection            continue
            b.create                    continue
            b.new_connection            continue
                let in
            > connected
            > < body one end
            b.upstream_data 3 end       continue
            b.upstream_close Unknown    continue
            a.upstream_data 3 end       continue
            a.upstream_close Unknown    continue
                client: body "one" end
            > end client_gone
            a.downstream_close Remote   continue
            a.done                      continue
            a.log                       continue
            a.delete                    continue
            b.downstream_close Remote   continue
            b.done                      continue
            b.log                       continue
            b.delete                    continue
                ended: details client_gone, 3 bytes sent
        "#]],
    );
    check(
        "a[tcp life] | b[tcp silent life]",
        "accepted; end client_gone",
        expect![[r#"
            > accepted
            a.create                    continue
            a.new_connection            continue
            b.create                    continue
            b.new_connection            continue
                let in
            > end client_gone
            a.downstream_close Remote   continue
            a.done                      continue
            a.log                       continue
            a.delete                    continue
            b.downstream_close Remote   continue
            b.done                      continue
            b.log                       continue
            b.delete                    continue
                ended: details client_gone, 0 bytes sent
        "#]],
    );
    check(
        "a[tcp] | b[tcp silent]",
        "accepted; connected; body one; < body one end; end",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > body one
            a.downstream_data 3         continue
                upstream: body "one"
            > < body one end
            b.upstream_close Unknown    continue
            a.upstream_data 3 end       continue
            a.upstream_close Unknown    continue
                client: body "one" end
            > end
            a.downstream_close Local    continue
            b.downstream_close Local    continue
                ended: details none, 3 bytes sent
        "#]],
    );
}

#[test]
fn a_filter_that_fails_closes_or_is_passed_over() {
    check(
        "a[tcp](downstream_data: fail) | b[tcp]",
        "accepted; connected; body one; body two",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > body one
            a.downstream_data 3         fail
                client: abort filter_failed
            > body two
        "#]],
    );
    check(
        "a[tcp open](downstream_data: pause / fail) | b[tcp]",
        "accepted; connected; body one; body two",
        expect![[r#"
            > accepted
            a.new_connection            continue
            b.new_connection            continue
                let in
            > connected
            > body one
            a.downstream_data 3         pause
            > body two
            a.downstream_data 6         fail
            b.downstream_data 6         continue
                upstream: body "onetwo"
        "#]],
    );
    check(
        "a[tcp open](new_connection: fail) | b[tcp]",
        "accepted; connected; body one",
        expect![[r#"
            > accepted
            a.new_connection            fail
            b.new_connection            continue
                let in
            > connected
            > body one
            b.downstream_data 3         continue
                upstream: body "one"
        "#]],
    );
}

#[test]
fn what_is_held_keeps_more_from_being_read() {
    check(
        "a[tcp](downstream_data: pause)",
        "limit 5; accepted; connected; wants; body three; wants; body more; wants; < body down; wants; wait 400s",
        expect![[r#"
            > limit 5
            > accepted
            a.new_connection            continue
                let in
            > connected
            > wants
                request: More, response: More
            > body three
            a.downstream_data 5         pause
            > wants
                request: More, response: More
            > body more
            a.downstream_data 9         pause
            > wants
                request: Wait, response: More
            > < body down
            a.upstream_data 4           continue
                client: body "down"
            > wants
                request: Wait, response: More
            > wait 400s
                deadline: idle_timeout
                client: abort idle_timeout
        "#]],
    );
}
