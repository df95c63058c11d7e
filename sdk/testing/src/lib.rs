//! Native tests of Proxy-Wasm filters: `cargo test` runs them in a simulated gateway, in milliseconds.
//!
//! The ABI's imports are answered here, on top of `gateway/core`, so a filter of `portcullis-sdk` or any plugin of the
//! `proxy-wasm` crate (0.2) runs as it is, under a debugger if you like. Upstreams are closures, and time passes only when
//! nothing else happens.
//!
//! ```
//! use portcullis_sdk::{Config, Filter, Host, Next, Request, Response, StartError, Upstream};
//! use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent};
//!
//! #[derive(Config)]
//! struct Settings {
//!     country: Upstream,
//! }
//!
//! struct Geo(Settings);
//!
//! impl Filter for Geo {
//!     type Config = Settings;
//!     async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> { Ok(Self(settings)) }
//!     async fn handle(&self, mut request: Request, next: Next) -> Response {
//!         if let Ok(reply) = self.0.country.get("/ip").send().await {
//!             request.headers_mut().set("x-country", reply.body());
//!         }
//!         next.run(request).await
//!     }
//! }
//!
//! let mut gateway = Gateway::new()
//!     .upstream("geo", |_| Reply::ok("NL"))
//!     .plugin(Plugin::new("geo", portcullis_sdk::start::<Geo>).config(r#"{ "country": "geo" }"#))
//!     .start();
//! let outcome = gateway.send(Sent::get("/"));
//! assert_eq!(outcome.at_upstream().header("x-country"), Some("NL"));
//! ```
//!
//! Every plugin runs on a thread of its own, since the `proxy-wasm` crate keeps its contexts by thread: so tests, gateways
//! and plugins do not see each other. All callbacks are called, also those that the built module would not export.
//!
//! A panic in a filter of the SDK is what a trap is in a module: that plugin starts anew, and its exchanges get 503. In a
//! plugin that stands on `proxy-wasm` alone a panic ends the test process, with its message: the crate's callbacks are
//! functions of C, through which no panic can pass.

mod externs;
mod gateway;
mod lent;
mod plugin;
mod services;
mod thread;
mod threads;

pub use gateway::{Gateway, Running, StartFailed};
pub use plugin::{Entry, Plugin};
pub use portcullis_simulation::{Call, Line, Outcome, Reply, Request, Seen};
