//! The Envoy that tests compare with.

use std::env;
use std::path::PathBuf;

use crate::guests::target;

/// What `cargo xtask test` has installed, or whoever runs the tests names by `PORTCULLIS_ENVOY`; nothing, and loudly, where there is none.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let named = env::var_os("PORTCULLIS_ENVOY").map(PathBuf::from);
    let program = named.unwrap_or_else(|| target().join("tools/envoy/bin/envoy"));
    if !program.is_file() {
        eprintln!("SKIPPED: no Envoy here; `cargo xtask test` installs it, or name one by PORTCULLIS_ENVOY");
        return None;
    }
    Some(program)
}
