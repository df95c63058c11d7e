//! What `auth` says of whoever sends a request.

use plugin_common::CLAIMS;
use portcullis_sdk::{Filter, Host, Next, NoConfig, Request, Response, StartError, start};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent};

use super::endpoint;
use crate::Aggregate;

/// Shares claims, as `auth` does.
struct SignsIn;

impl Filter for SignsIn {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        if let Some(claims) = request.headers().text("x-claims") {
            assert!(request.set_property(CLAIMS, claims));
        }
        next.run(request).await
    }
}

#[test]
fn calls_are_made_of_the_claims_that_auth_shares() {
    let calls = r#"{"name":"a","upstream":"a","path":"/of/${claims.sub}",
        "headers":{"x-roles":"${claims.realm.roles}","x-plan":"${claims.\"https://x/plan\"}"},"body":{"n":"${claims.n}"}}"#;
    let gateway = Gateway::new().upstream("a", |_| Reply::ok("1")).plugin(Plugin::new("auth", start::<SignsIn>));
    let mut gateway = gateway.plugin(Plugin::new("aggregate", start::<Aggregate>).config(endpoint(calls))).start();
    let claims = r#"{"sub":"ann b","realm":{"roles":["x","y"]},"https://x/plan":"gold","n":9007199254740993}"#;
    assert_eq!(gateway.send(Sent::get("/").header("x-claims", claims)).status(), 200);
    let calls = gateway.calls();
    let call = &calls[0].request;
    assert_eq!((call.target(), call.text().as_str()), ("/of/ann%20b", r#"{"n":9007199254740993}"#));
    assert_eq!((call.header("x-roles"), call.header("x-plan")), (Some("x,y"), Some("gold")));
    for nobodys in ["{}", "no JSON"] {
        let refused = gateway.send(Sent::get("/").header("x-claims", nobodys));
        assert_eq!((refused.status(), refused.details.as_str()), (400, "value_missing"), "{nobodys}");
    }
}
