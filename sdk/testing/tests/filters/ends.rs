//! What filters hear of the end of an exchange.

use std::cell::Cell;
use std::rc::Rc;

use portcullis_sdk::{Filter, Host, Next, NoConfig, Request, Response, StartError, ms, secs, sleep, start};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent};

/// Logs how every exchange ended, with what its future knew.
struct Records;

impl Filter for Records {
    type Config = NoConfig;
    const LOGS: bool = true;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let (path, seen) = (request.path(), Rc::new(Cell::new("no response")));
        let known = Rc::clone(&seen);
        request.on_log(|_| log::error!("replaced by the next"));
        request.on_log(move |ended| {
            let server = ended.response_headers().text("server").unwrap_or_default();
            let (status, details) = (ended.status(), ended.details());
            log::info!(
                "{path} {status} {details} {server} {} {}",
                ended.request_headers().contains("x-a"),
                known.get()
            );
        });
        if request.path() == "/slow" {
            sleep(secs(10)).await;
        }
        if request.path() == "/refused" {
            return Response::problem(403, "closed").header("server", "filter");
        }
        request.headers_mut().set("x-a", "1");
        let response = next.run(request).await;
        seen.set("responded");
        response
    }
}

#[test]
fn every_exchange_is_recorded_with_what_its_filter_knew() {
    let plugin = Plugin::new("records", start::<Records>);
    let mut gateway = Gateway::new().origin(|_| Reply::status(418).header("server", "pot")).plugin(plugin).start();
    for (request, want) in [
        (Sent::get("/tea"), "/tea 418 via_upstream pot true responded"),
        (Sent::get("/refused"), "/refused 403 closed filter false no response"),
        (Sent::get("/slow").gone_after(ms(20)), "/slow 0 "),
    ] {
        let outcome = gateway.send(request);
        let said: Vec<&str> = outcome.log.iter().map(|line| line.text.as_str()).collect();
        assert!(said.len() == 1 && said[0].starts_with(want), "{said:?}, not {want:?}");
    }
}

/// The same without saying that it wants to hear of it.
struct Forgot;

impl Filter for Forgot {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        request.on_log(|_| log::info!("never"));
        next.run(request).await
    }
}

#[test]
fn a_filter_that_has_not_declared_it_is_told_how_to() {
    let outcome = Gateway::new().plugin(Plugin::new("forgot", start::<Forgot>)).start().send(Sent::get("/"));
    assert!(outcome.logged("add `const LOGS: bool = true;` to the filter's `impl Filter`"));
    assert!(!outcome.logged("never"));
}
