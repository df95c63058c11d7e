//! Properties: what can be read when, how values are encoded, and what guests store (ABI reference §8).

use expect_test::expect;

use crate::world::check;

#[test]
fn request_attributes() {
    check(
        "a(property request.path, property request.url_path, property request.query, property request.host, \
           property request.scheme, property request.method, property request.protocol, property request.referer, \
           property request.useragent, property request.id, property request.headers.x, property request.headers.none, \
           property request.time, property request.size, property request.total_size, property request.headers_bytes)",
        "GET /a?b=1 host=a.test x=1 x=2 user-agent=me x-request-id=id-1 end",
        expect![[r#"
            > GET /a?b=1 host=a.test x=1 x=2 user-agent=me x-request-id=id-1 end
            a.request_headers 8 end     request.path="/a?b=1",
                                        request.url_path="/a",
                                        request.query="b=1",
                                        request.host="a.test",
                                        request.scheme="http",
                                        request.method="GET",
                                        request.protocol="HTTP/1.1",
                                        request.referer: NotFound,
                                        request.useragent="me",
                                        request.id="id-1",
                                        request.headers.x="1,2",
                                        request.headers.none: NotFound,
                                        request.time=1000000000,
                                        request.size=0,
                                        request.total_size=80,
                                        request.headers_bytes=80
                upstream: GET /a?b=1 host=a.test x=1 x=2 user-agent=me x-request-id=id-1 end
        "#]],
    );
    check(
        "a(property request.query, property request.host, property request.size)",
        "POST /a content-length=5",
        expect![[r#"
        > POST /a content-length=5
        a.request_headers 4         request.query="", request.host: NotFound, request.size=5
    "#]],
    );
    check(
        "a(property request.headers)",
        "GET / x=1 x=2 end",
        expect![[r#"
        > GET / x=1 x=2 end
        a.request_headers 5 end     request.headers=[4, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 58, 112, 97, 116, 104, 0, 47, 0, 58, 109, 101, 116, 104, 111, 100, 0, 71, 69, 84, 0, 58, 115, 99, 104, 101, 109, 101, 0, 104, 116, 116, 112, 0, 120, 0, 49, 44, 50, 0]
            upstream: GET / x=1 x=2 end
    "#]],
    );
}

#[test]
fn request_attributes_stay_readable_for_the_whole_exchange() {
    let read = "property request.path, property request.headers.x, property request.duration";
    check(
        &format!("a[life](request_body: {read}; response_headers: {read}; response_body: {read}; log: {read})"),
        "POST /a x=1; body ab end; wait 2s; < 200; < body cd end; end",
        expect![[r#"
            > POST /a x=1
            a.create                    continue
            a.request_headers 4         continue
                upstream: POST /a x=1
            > body ab end
            a.request_body 2 end        request.path="/a", request.headers.x="1", request.duration: NotFound
                upstream: body "ab" end
            > wait 2s
            > < 200
            a.response_headers 1        request.path="/a", request.headers.x="1", request.duration: NotFound
                client: 200
            > < body cd end
            a.response_body 2 end       request.path="/a", request.headers.x="1", request.duration: NotFound
                client: body "cd" end
            > end
            a.log                       request.path="/a", request.headers.x="1", request.duration=2000000000
            a.done                      continue
            a.delete                    continue
                ended: details none, 2 bytes sent
        "#]],
    );
}

#[test]
fn response_attributes() {
    let read = "property response.code, property response.code_details, property response.headers.x, property response.flags, \
                property response.size, property response.total_size, property response.headers_bytes, \
                property response.grpc_status, property response.backend_latency, property response.trailers";
    check(
        &format!("a[life]({read}; response_headers: {read}; response_body: {read}; log: {read})"),
        "GET / end; wait 2s; < 200 x=1; < body abc; < trailers t=1; end",
        expect![[r#"
            > GET / end
            a.create                    continue
            a.request_headers 3 end     response.code: NotFound,
                                        response.code_details: NotFound,
                                        response.headers.x: NotFound,
                                        response.flags=0,
                                        response.size=0,
                                        response.total_size: NotFound,
                                        response.headers_bytes: NotFound,
                                        response.grpc_status: NotFound,
                                        response.backend_latency: NotFound,
                                        response.trailers=[0, 0, 0, 0]
                upstream: GET / end
            > wait 2s
            > < 200 x=1
            a.response_headers 2        response.code=200,
                                        response.code_details="via_upstream",
                                        response.headers.x="1",
                                        response.flags=0,
                                        response.size=0,
                                        response.total_size: NotFound,
                                        response.headers_bytes: NotFound,
                                        response.grpc_status=2,
                                        response.backend_latency: NotFound,
                                        response.trailers=[0, 0, 0, 0]
                client: 200 x=1
            > < body abc
            a.response_body 3           response.code=200,
                                        response.code_details="via_upstream",
                                        response.headers.x="1",
                                        response.flags=0,
                                        response.size=0,
                                        response.total_size: NotFound,
                                        response.headers_bytes: NotFound,
                                        response.grpc_status=2,
                                        response.backend_latency: NotFound,
                                        response.trailers=[0, 0, 0, 0]
                client: body "abc"
            > < trailers t=1
            a.response_trailers 1       continue
                client: trailers t=1 end
            > end
            a.log                       response.code=200,
                                        response.code_details="via_upstream",
                                        response.headers.x="1",
                                        response.flags=0,
                                        response.size=3,
                                        response.total_size=15,
                                        response.headers_bytes=12,
                                        response.grpc_status=2,
                                        response.backend_latency=2000000000,
                                        response.trailers=[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 116, 0, 49, 0]
            a.done                      continue
            a.delete                    continue
                ended: details none, 3 bytes sent
        "#]],
    );
}

#[test]
fn code_details_say_whose_response_it_is() {
    let log = "[life](log: property response.code, property response.code_details)";
    check(
        &format!("a{log} | b(reply 403 no)"),
        "GET / end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.request_headers 3 end     reply 403
        b.response_headers 4        continue
        a.response_headers 4        continue
        b.response_body 2 end       continue
        a.response_body 2 end       continue
            client: 403 x-by=guest content-length=2 content-type=text/plain
            client: body "no" end
        > end
        a.log                       response.code=403, response.code_details="said_so"
        a.done                      continue
        a.delete                    continue
            ended: details said_so, 2 bytes sent
    "#]],
    );
    check(
        &format!("a{log}"),
        "GET / end; < fails upstream_timeout; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
            upstream: GET / end
        > < fails upstream_timeout
        a.response_headers 3        continue
        a.response_body 128 end     continue
            client: 504 content-type=application/problem+json content-length=128
            client: body <upstream_timeout> end
        > end
        a.log                       response.code=504, response.code_details="upstream_timeout"
        a.done                      continue
        a.delete                    continue
            ended: details upstream_timeout, 128 bytes sent
    "#]],
    );
    check(
        &format!("a{log} | b(fail)"),
        "GET / end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
        b.request_headers 3 end     fail
        a.response_headers 3        continue
        a.response_body 119 end     continue
            client: 503 content-type=application/problem+json content-length=119
            client: body <filter_failed> end
        > end
        a.log                       response.code=503, response.code_details="filter_failed"
        a.done                      continue
        a.delete                    continue
            ended: details filter_failed, 119 bytes sent
    "#]],
    );
    check(
        &format!("a{log}"),
        "GET / end; end client_gone",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
            upstream: GET / end
        > end client_gone
        a.log                       response.code: NotFound, response.code_details="client_gone"
        a.done                      continue
        a.delete                    continue
            ended: details client_gone, 0 bytes sent
    "#]],
    );
}

#[test]
fn the_grpc_status_is_in_the_trailers_or_in_a_head_that_is_all() {
    let log = "a[life](log: property response.grpc_status)";
    check(
        log,
        "GET / end; < 200; < body ab; < trailers grpc-status=7; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200
        a.response_headers 1        continue
            client: 200
        > < body ab
        a.response_body 2           continue
            client: body "ab"
        > < trailers grpc-status=7
        a.response_trailers 1       continue
            client: trailers grpc-status=7 end
        > end
        a.log                       response.grpc_status=7
        a.done                      continue
        a.delete                    continue
            ended: details none, 2 bytes sent
    "#]],
    );
    check(
        log,
        "GET / end; < 200 grpc-status=5 end; end",
        expect![[r#"
        > GET / end
        a.create                    continue
        a.request_headers 3 end     continue
            upstream: GET / end
        > < 200 grpc-status=5 end
        a.response_headers 2 end    continue
            client: 200 grpc-status=5 end
        > end
        a.log                       response.grpc_status=5
        a.done                      continue
        a.delete                    continue
            ended: details none, 0 bytes sent
    "#]],
    );
}

#[test]
fn connection_and_place_attributes() {
    check(
        "a(property source.address, property source.port, property destination.address, property destination.port, \
           property connection.id, property connection_id, property connection.mtls, property connection.requested_server_name, \
           property connection.tls_version, property upstream.address, property xds.cluster_name, property cluster_name, \
           property xds.route_name, property route_name, property xds.virtual_host_name, property xds.listener_direction, \
           property plugin_name, property plugin_root_id, property plugin_vm_id)",
        "GET / end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     source.address="192.0.2.7:4711",
                                        source.port=4711,
                                        destination.address="127.0.0.1:8080",
                                        destination.port=8080,
                                        connection.id=7,
                                        connection_id=7,
                                        connection.mtls=[0],
                                        connection.requested_server_name="",
                                        connection.tls_version: NotFound,
                                        upstream.address: NotFound,
                                        xds.cluster_name="shop",
                                        cluster_name="shop",
                                        xds.route_name="orders",
                                        route_name="orders",
                                        xds.virtual_host_name="acme",
                                        xds.listener_direction=1,
                                        plugin_name="a",
                                        plugin_root_id="a",
                                        plugin_vm_id="vm of a"
                upstream: GET / end
        "#]],
    );
}

#[test]
fn objects_have_no_single_value_and_unknown_names_none() {
    check(
        "a(property request, property response, property source, property xds, property filter_state, property metadata, \
           property metadata.filter_metadata, property metadata.filter_metadata.ns, property , property nonsense, property request.nonsense)",
        "GET / end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     request: SerializationFailure,
                                        response: SerializationFailure,
                                        source: SerializationFailure,
                                        xds: SerializationFailure,
                                        filter_state: SerializationFailure,
                                        metadata="",
                                        metadata.filter_metadata=[0, 0, 0, 0],
                                        metadata.filter_metadata.ns: NotFound,
                                        : SerializationFailure,
                                        nonsense: NotFound,
                                        request.nonsense: NotFound
                upstream: GET / end
        "#]],
    );
}

#[test]
fn a_stored_value_is_seen_by_later_filters_of_any_vm_and_in_the_log() {
    check(
        "a[life](store mine=1, property mine; response_headers: property mine; log: property mine) | \
         b(property mine, property filter_state.wasm~mine, store mine=2, store a.b=3, property a.b, property a)",
        "GET / end; < 200 end; end",
        expect![[r#"
            > GET / end
            a.create                    continue
            a.request_headers 3 end     store mine=1, mine="1"
            b.request_headers 3 end     mine="1",
                                        filter_state.wasm~mine="1",
                                        store mine=2,
                                        store a.b=3,
                                        a.b="3",
                                        a: NotFound
                upstream: GET / end
            > < 200 end
            b.response_headers 1 end    continue
            a.response_headers 1 end    mine="2"
                client: 200 end
            > end
            a.log                       mine="2"
            a.done                      continue
            a.delete                    continue
                ended: details none, 0 bytes sent
        "#]],
    );
}

#[test]
fn a_stored_value_does_not_hide_the_gateways_own() {
    check(
        "a(store request.path=/fake, property request.path)",
        "GET /real end",
        expect![[r#"
        > GET /real end
        a.request_headers 3 end     store request.path=/fake, request.path="/real"
            upstream: GET /real end
    "#]],
    );
}

#[test]
fn a_stored_value_ends_with_its_exchange() {
    check(
        "a(property mine, store mine=1)",
        "1: GET / end; 1: end; 2: GET / end",
        expect![[r#"
        > 1: GET / end
        a.request_headers 3 end     mine: NotFound, store mine=1
            upstream: GET / end
        > 1: end
            ended: details none, 0 bytes sent
        > 2: GET / end
        a#2.request_headers 3 end   mine: NotFound, store mine=1
            upstream#2: GET / end
    "#]],
    );
}

#[test]
fn how_an_upstream_was_reached_is_no_other_exchanges() {
    check(
        "a(property upstream.num_endpoints)",
        "1: GET / end; 1: tries 3; 1: end; 2: GET / end",
        expect![[r#"
        > 1: GET / end
        a.request_headers 3 end     upstream.num_endpoints: NotFound
            upstream: GET / end
        > 1: tries 3
        > 1: end
            ended: details none, 0 bytes sent
        > 2: GET / end
        a#2.request_headers 3 end   upstream.num_endpoints: NotFound
            upstream#2: GET / end
    "#]],
    );
}

#[test]
fn an_exchange_knows_how_often_an_endpoint_was_tried() {
    check(
        "a(property upstream.request_attempt_count, property upstream.num_endpoints; \
           response_headers: property upstream.request_attempt_count, property upstream.address, \
           property upstream.num_endpoints, property upstream.cx_pool_ready_duration)",
        "GET / end; tries 3; < 200 end",
        expect![[r#"
            > GET / end
            a.request_headers 3 end     upstream.request_attempt_count=0, upstream.num_endpoints: NotFound
                upstream: GET / end
            > tries 3
            > < 200 end
            a.response_headers 1 end    upstream.request_attempt_count=3,
                                        upstream.address="192.0.2.9:80",
                                        upstream.num_endpoints=2,
                                        upstream.cx_pool_ready_duration=3000000
                client: 200 end
        "#]],
    );
}
