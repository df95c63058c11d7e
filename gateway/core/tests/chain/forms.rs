//! How a local reply is written: to HEAD, without a body, to gRPC, with odd statuses (ABI reference §7.4).

use expect_test::expect;

use crate::world::{check, play};

#[test]
fn replies_to_head_and_without_a_body() {
    check(
        "a(reply 403 no)",
        "HEAD / end",
        expect![[r#"
        > HEAD / end
        a.request_headers 3 end     reply 403
        a.response_headers 4 end    continue
            client: 403 x-by=guest content-length=2 content-type=text/plain end
    "#]],
    );
    check(
        "a(reply 204 no)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 204
        a.response_headers 2 end    continue
            client: 204 x-by=guest end
    "#]],
    );
    check(
        "a(reply 304 no)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 304
        a.response_headers 2 end    continue
            client: 304 x-by=guest end
    "#]],
    );
    check(
        "a(reply 200)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     reply 200
        a.response_headers 3 end    continue
            client: 200 x-by=guest content-length=0 end
    "#]],
    );
}

#[test]
fn a_status_no_client_could_read_becomes_500() {
    for status in ["0", "99", "101", "1000", "70000"] {
        let transcript = play(&format!("a[deaf] | b(reply {status})"), "GET / end");
        assert!(transcript.contains("client: 500 "), "{transcript}");
    }
}

#[test]
fn grpc_requests_get_grpc_replies() {
    check(
        "a(reply 403 no)",
        "POST / content-type=application/grpc; body ab",
        expect![[r#"
        > POST / content-type=application/grpc
        a.request_headers 4         reply 403
        a.response_headers 5 end    continue
            client: 200 x-by=guest content-type=application/grpc grpc-status=7 grpc-message=no end
        > body ab
    "#]],
    );
    check(
        "a(grpc_reply 7 no) | b",
        "POST / content-type=application/grpc+proto",
        expect![[r#"
        > POST / content-type=application/grpc+proto
        a.request_headers 4         grpc reply 7
        a.response_headers 5 end    continue
            client: 200 x-by=guest content-type=application/grpc grpc-status=7 grpc-message=no end
    "#]],
    );
    check(
        "a(grpc_reply 7 no)",
        "GET / end",
        expect![[r#"
        > GET / end
        a.request_headers 3 end     grpc reply 7
        a.response_headers 4        continue
        a.response_body 2 end       continue
            client: 403 x-by=guest content-length=2 content-type=text/plain
            client: body "no" end
    "#]],
    );
    check(
        "a",
        "POST / content-type=application/grpc; < fails upstream_connect",
        expect![[r#"
        > POST / content-type=application/grpc
        a.request_headers 4         continue
            upstream: POST / content-type=application/grpc
        > < fails upstream_connect
        a.response_headers 4 end    continue
            client: 200 content-type=application/grpc grpc-status=14 grpc-message=The upstream could not be reached end
    "#]],
    );
}
