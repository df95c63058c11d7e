//! Policies for Portcullis and Envoy, written like middleware: one async function per exchange.
//!
//! A filter gets the request and [`Next`]; local variables live from the request to the response. What it awaits on the way
//! (an upstream's answer, a timer, a body) pauses the exchange and nothing else. It compiles to one `.wasm` of the Proxy-Wasm
//! ABI 0.2.1, and is tested natively with `portcullis-testing`.
//!
//! ```
//! use portcullis_sdk::{ms, Config, Filter, Host, Next, Request, Response, StartError, Upstream};
//!
//! /// Tells the upstream which country a request comes from.
//! #[derive(Config)]
//! struct Settings {
//!     /// The header that gets the country.
//!     header: String,
//!     /// Where countries are looked up.
//!     country: Upstream,
//!     /// Whether a request goes on only with its country.
//!     #[serde(default)]
//!     strict: bool,
//! }
//!
//! struct Geo(Settings);
//!
//! impl Filter for Geo {
//!     type Config = Settings;
//!
//!     async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
//!         Ok(Self(settings))
//!     }
//!
//!     async fn handle(&self, mut request: Request, next: Next) -> Response {
//!         let Some(ip) = request.client_ip() else { return next.run(request).await };
//!         match self.0.country.get(format!("/ip/{ip}")).timeout(ms(50)).send().await {
//!             Ok(reply) => request.headers_mut().set(&self.0.header, reply.body()),
//!             Err(_) if self.0.strict => return Response::problem(503, "geo_unavailable"),
//!             Err(why) => log::warn!("no country for {ip}: {why}"),
//!         }
//!         let mut response = next.run(request).await; // its head is here; its body streams on untouched
//!         response.headers_mut().remove("x-internal");
//!         response
//!     }
//! }
//!
//! portcullis_sdk::export_filter!(Geo);
//! ```
//!
//! # Bodies
//!
//! A body that no filter touches never enters the module, and costs nothing. A filter that reads or changes bodies declares
//! whose ([`Filter::BODIES`]); `cargo xtask plugins` and `portcullis plugin build` take the callbacks for all others out of
//! the module. [`Body::collect`] waits for a whole body up to a limit, [`BodyMut::map_chunks`] changes one as it streams by.
//!
//! # Heads that are held, and heads that are not
//!
//! Hosts differ in what "pause" means for a head whose body is to be read. By default, here and on Envoy, a filter that
//! paused on the head would never see the body; so the head goes on first, and is out of reach when `collect` returns:
//!
//! | after `collect` | head gone on (the default) | head held |
//! | --- | --- | --- |
//! | read headers of that message | nothing is found | yes |
//! | change them | a warning in the log, no change | yes |
//! | replace the body | yes, if collected by `body_mut()` | yes, and `content-length` follows |
//! | refuse a request | yes; the upstream has seen its head | yes; the upstream has seen nothing |
//! | refuse a response | the client's connection is cut | yes |
//!
//! A filter that needs the right column sets [`Filter::HOLDS_HEADERS`]. Portcullis then holds its heads, unless its operator says
//! `allow_on_headers_stop_iteration: false`. On Envoy its operator allows it, with `allow_on_headers_stop_iteration: true` in the
//! plugin's configuration; and since there is no way to ask a host about it, the VM's configuration says it too:
//! `{ "holds_headers": true }`. Without both, the filter works as in the left column.
//!
//! # Errors
//!
//! Nothing here panics, whatever a host answers or a client sends. Three calls go through the `proxy-wasm` crate, which knows
//! three statuses for them and panics on others: HTTP callouts (`Ok`, `BadArgument`, `InternalFailure`), gRPC calls and streams
//! (`Ok`, `ParseFailure`, `InternalFailure`), which are those that Envoy and Portcullis have.

mod body;
mod callout;
mod config;
mod ended;
mod exchange;
mod executor;
mod filter;
pub mod foreign;
pub mod grpc;
mod header_list;
mod headers;
mod host;
mod json;
pub mod limit;
mod local;
pub mod manifest;
mod message;
pub mod metric;
mod pending;
pub mod property;
mod request;
mod response;
mod root;
pub mod schema;
pub mod shared;
mod sys;
mod timer;
mod together;
mod values;

pub use body::{Body, BodyError, BodyMut, Chunk};
pub use callout::{Callout, CalloutError, Reply, Upstream};
pub use config::{Config, NoConfig, parse_config};
pub use ended::Ended;
pub use filter::{Bodies, Filter, StartError};
/// Waits for several futures at once: `let (a, b) = join!(first, second);`.
pub use futures_util::join;
pub use header_list::HeaderList;
pub use headers::{HeaderValue, Headers, HeadersMut, NotText, TrailersMut, Unchanged};
pub use host::Host;
pub use message::{Message, Next};
/// Derives [`trait@Config`]: serde's `Deserialize` with unknown keys refused, and the JSON Schema with the doc comments.
pub use portcullis_macros::Config;
pub use request::Request;
pub use response::Response;
pub use timer::{Elapsed, Sleep, ms, secs, sleep, timeout};
pub use together::{Either, Notify, join_all, race, try_join_all};
pub use values::{HeaderName, HeaderText, Period};

#[doc(hidden)]
pub use {log, proxy_wasm, serde, serde_json};

use proxy_wasm::types::LogLevel;

/// Registers a filter with the dispatcher: what a module's `_initialize` does, and a native test's harness.
///
/// ```
/// # use portcullis_sdk::{Filter, Host, Next, NoConfig, Request, Response, StartError};
/// # struct Nothing;
/// # impl Filter for Nothing {
/// #     type Config = NoConfig;
/// #     async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> { Ok(Self) }
/// #     async fn handle(&self, request: Request, next: Next) -> Response { next.run(request).await }
/// # }
/// let entry: fn() = portcullis_sdk::start::<Nothing>;
/// ```
pub fn start<F: Filter>() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(root::Plugin::<F>::new(id)));
}

/// Runs a callback. In a module a panic ends the VM; in a native test it must not run through the ABI's functions, so it ends
/// here, and the harness finds it in the log.
#[cfg(not(target_family = "wasm"))]
fn guard<R>(otherwise: R, callback: impl FnOnce() -> R) -> R {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback)).unwrap_or(otherwise)
}

#[cfg(target_family = "wasm")]
fn guard<R>(_: R, callback: impl FnOnce() -> R) -> R {
    callback()
}
