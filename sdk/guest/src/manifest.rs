//! The manifest: what a module says of itself, in a custom section that hosts pass over.
//!
//! It is made while the filter is compiled, by [`export_filter!`](crate::export_filter), and read by the tools.

use crate::filter::{Bodies, Filter};
use crate::schema::{Piece, Schema};

/// The section's name.
///
/// ```
/// assert_eq!(portcullis_sdk::manifest::SECTION, "portcullis");
/// ```
pub const SECTION: &str = "portcullis";

/// The manifest of a filter, as JSON text in pieces: what it says of its package follows, and then what the filter itself says.
#[doc(hidden)]
pub const HEAD: &str = r#"{"manifest":1,"name":"#;

/// What the filter itself says.
#[doc(hidden)]
pub struct Tail<F>(std::marker::PhantomData<F>);

impl<F: Filter> Tail<F> {
    /// As pieces of JSON text.
    pub const PIECES: &'static [Piece] = &[
        Piece::Text(r#","sdk":"#),
        Piece::Quoted(env!("CARGO_PKG_VERSION")),
        Piece::Text(r#","bodies":"#),
        Piece::Text(bodies(F::BODIES)),
        Piece::Text(r#","holds_headers":"#),
        Piece::Text(if F::HOLDS_HEADERS { "true" } else { "false" }),
        Piece::Text(r#","logs":"#),
        Piece::Text(if F::LOGS { "true" } else { "false" }),
        Piece::Text(r#","provides":"#),
        Piece::List(F::PROVIDES),
        Piece::Text(r#","requires":"#),
        Piece::List(F::REQUIRES),
        Piece::Text(r#","schema":"#),
        Piece::All(<F::Config as Schema>::SCHEMA),
        Piece::Text("}"),
    ];
}

const fn bodies(bodies: Bodies) -> &'static str {
    match (bodies.request(), bodies.response()) {
        (false, false) => "[]",
        (true, false) => r#"["request"]"#,
        (false, true) => r#"["response"]"#,
        (true, true) => r#"["request","response"]"#,
    }
}

/// Makes a filter the module's: its entry, and its manifest.
///
/// In native code this is nothing but a check: tests start filters by [`start`](crate::start).
///
/// ```
/// # use portcullis_sdk::{Filter, Host, Next, NoConfig, Request, Response, StartError};
/// struct Nothing;
///
/// impl Filter for Nothing {
///     type Config = NoConfig;
///     async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> { Ok(Self) }
///     async fn handle(&self, request: Request, next: Next) -> Response { next.run(request).await }
/// }
///
/// portcullis_sdk::export_filter!(Nothing);
/// ```
#[macro_export]
macro_rules! export_filter {
    ($filter:ty) => {
        const _: () = {
            use $crate::schema::Piece;
            const PIECES: &[Piece] = &[
                Piece::Text($crate::manifest::HEAD),
                Piece::Quoted(env!("CARGO_PKG_NAME")),
                Piece::Text(",\"version\":"),
                Piece::Quoted(env!("CARGO_PKG_VERSION")),
                Piece::Text(",\"description\":"),
                Piece::Quoted(env!("CARGO_PKG_DESCRIPTION")),
                Piece::All($crate::manifest::Tail::<$filter>::PIECES),
            ];
            #[cfg_attr(target_family = "wasm", unsafe(link_section = "portcullis"))]
            #[cfg_attr(target_family = "wasm", used)]
            static MANIFEST: [u8; $crate::schema::len(PIECES)] = $crate::schema::render(PIECES);
            let _checked_natively_too = &raw const MANIFEST;
        };

        #[cfg(target_family = "wasm")]
        $crate::proxy_wasm::main! {{
            $crate::start::<$filter>();
        }}
    };
}
