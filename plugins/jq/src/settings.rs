//! Settings as an operator writes them.

use plugin_bodies::Otherwise;
use portcullis_sdk::Config;

/// Passes JSON bodies through jq programs.
#[derive(Config)]
pub(crate) struct Settings {
    /// The program for bodies of requests: a jq filter that makes one document of one. They pass as they are without it.
    pub(crate) request: Option<String>,
    /// The program for bodies of responses, likewise.
    pub(crate) response: Option<String>,
    /// How long a body may be, before and after, in bytes. 1 MiB unless told otherwise.
    #[serde(default = "default_max_bytes")]
    pub(crate) max_bytes: usize,
    /// How many steps a program may take for one body. 100,000 unless told otherwise.
    #[serde(default = "default_max_steps")]
    pub(crate) max_steps: u64,
    /// What becomes of a body that is longer.
    #[serde(default)]
    pub(crate) on_overflow: Otherwise,
    /// What becomes of one that is no JSON, or cannot be read.
    #[serde(default)]
    pub(crate) on_invalid: Otherwise,
    /// What becomes of one that the program fails for, or takes too many steps for.
    #[serde(default)]
    pub(crate) on_failure: Otherwise,
}

fn default_max_bytes() -> usize {
    1 << 20
}

fn default_max_steps() -> u64 {
    100_000
}
