//! What a write to a map comes to (ABI reference §6.2).

use expect_test::expect;

use crate::world::check;

#[test]
fn writes_go_where_they_say_and_are_seen_by_the_next_filter() {
    check(
        "a(set h=2, add h=3, set X-New=Value, remove gone, remove never, set :path=/b, set :method=PUT) | b(pairs, get H, get x-new)",
        "GET /a h=1 gone=1 end; < 200 h=1 end",
        expect![[r#"
            > GET /a h=1 gone=1 end
            a.request_headers 5 end     set h=2,
                                        add h=3,
                                        set X-New=Value,
                                        remove gone,
                                        remove never,
                                        set :path=/b,
                                        set :method=PUT
            b.request_headers 6 end     pairs [:path=/b :method=PUT :scheme=http h=2 h=3 x-new=Value],
                                        get H=2,
                                        get x-new=Value
                upstream: PUT /b h=2 h=3 x-new=Value end
            > < 200 h=1 end
            b.response_headers 2 end    continue
            a.response_headers 2 end    continue
                client: 200 h=1 end
        "#]],
    );
    check(
        "a(response_headers: get h, pairs) | b(response_headers: set :status=404, set h=2)",
        "GET / end; < 200 h=1 end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     continue
            b.request_headers 3 end     continue
                upstream: GET / end
            > < 200 h=1 end
            b.response_headers 2 end    set :status=404, set h=2
            a.response_headers 2 end    get h=2, pairs [:status=404 h=2]
                client: 404 h=2 end
        "#]],
    );
}

#[test]
fn what_cannot_be_written_on_a_wire_is_left_out_and_the_guest_hears_ok() {
    check(
        "a(set connection=close, set content-length=many, set :path=nowhere, set :status=200)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     set connection=close: left out, the field belongs to the connection, not to the message,
                                    set content-length=many: left out, the value cannot be written on the wire,
                                    set :path=nowhere: left out, the value cannot be written on the wire,
                                    set :status=200: left out, the name is not a valid field name here
            upstream: GET / end
    "#]],
    );
}
