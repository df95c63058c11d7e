//! TLS: certificates and keys from files, encrypted connections on both sides, and who is at the other end.
//!
//! [`server`] accepts clients, [`client`] connects to upstreams; both live in the snapshot and read their files again when those
//! change ([`watch`]), without a new revision: what was good goes on while what is new is not. What follows from a connection's
//! names and certificates is decided in `core::tls`.
//! **Invariant:** nothing here writes a byte of a private key anywhere, not into a log, a diagnostic or a metric.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod server;
pub(crate) mod trust;
pub(crate) mod watch;

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};

use crate::config::TlsVersion;

/// HTTP/2 by its name in ALPN.
pub(crate) const H2: &[u8] = b"h2";
/// HTTP/1.1 by its name in ALPN.
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// The one implementation of cryptography in this process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// The versions from this one on.
fn from_version(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match least {
        TlsVersion::Tls12 => &FROM_1_2,
        TlsVersion::Tls13 => &FROM_1_3,
    }
}
