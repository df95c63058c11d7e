use portcullis_sdk::{ms, start};
use portcullis_testing::{Gateway, Outcome, Plugin, Request, Running};

use super::*;

fn gateway(config: &str) -> Running {
    Gateway::new().plugin(Plugin::new("limit", start::<RateLimit>).config(config)).start()
}

fn told(outcome: &Outcome) -> (u16, Option<&str>, Option<&str>) {
    (outcome.status(), outcome.reply.header("ratelimit"), outcome.reply.header("retry-after"))
}

#[test]
fn a_burst_passes_then_the_rate_and_every_response_says_where_its_bucket_stands() {
    let mut gateway = gateway(r#"{"rate":"2/s"}"#);
    assert_eq!(told(&gateway.send(Request::get("/"))), (200, Some("\"default\";r=1;t=1"), None));
    assert_eq!(told(&gateway.send(Request::get("/"))), (200, Some("\"default\";r=0;t=1"), None));
    let refused = gateway.send(Request::get("/"));
    assert_eq!(told(&refused), (429, Some("\"default\";r=0;t=1"), Some("1")));
    assert_eq!((refused.details.as_str(), refused.upstream), ("rate_limited", None));
    assert_eq!(refused.reply.header("ratelimit-policy"), Some("\"default\";q=2;w=1"));
    gateway.advance(ms(500));
    assert_eq!(gateway.send(Request::get("/")).status(), 200);
}

#[test]
fn keys_have_buckets_of_their_own_and_leaving_the_key_out_is_no_way_around() {
    let mut gateway = gateway(r#"{"rate":"1/m","key":{"header":"x-key"}}"#);
    let mut status = |request: Request| gateway.send(request).status();
    let keyed = |key: &str| Request::get("/").header("x-key", key);
    assert_eq!([status(keyed("a")), status(keyed("a")), status(keyed("b"))], [200, 429, 200]);
    let elsewhere = Request::get("/").from(([198, 51, 100, 1], 1).into());
    assert_eq!([status(Request::get("/")), status(Request::get("/")), status(elsewhere)], [200, 429, 200]);
}

#[test]
fn a_claim_names_whose_bucket_it_is() {
    let mut gateway = gateway(r#"{"rate":"1/m","key":{"claim":"sub"}}"#);
    // {"sub":"ann"} and {"sub":"bob"}
    let mut status = |claims: &str| {
        gateway.send(Request::get("/").header("authorization", format!("Bearer e30.{claims}.sig"))).status()
    };
    assert_eq!([status("eyJzdWIiOiJhbm4ifQ"), status("eyJzdWIiOiJib2IifQ")], [200, 200]);
    assert_eq!([status("eyJzdWIiOiJhbm4ifQ"), status("eyJzdWIiOiJib2IifQ")], [429, 429]);
}

#[test]
fn requests_pass_when_the_store_takes_nothing() {
    let mut gateway = gateway(r#"{"rate":"1/m"}"#);
    gateway.fail("proxy_set_shared_data", 8, 32);
    let outcome = gateway.send(Request::get("/"));
    assert_eq!(told(&outcome), (200, None, None));
    assert!(outcome.logged("a bucket was not stored, and the request passes"));
    assert_eq!([gateway.send(Request::get("/")).status(), gateway.send(Request::get("/")).status()], [200, 429]);
}
