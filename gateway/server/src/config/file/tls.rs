//! TLS as operators write it: certificates, keys and authorities, which are files.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::defaults;
use crate::config::written::Text;

/// How the connections of clients are encrypted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificates"]))]
pub(crate) struct ListenerTls {
    /// Certificates with their keys. The name a client wants to reach (SNI) chooses; the first is for clients that name none, or
    /// one that no certificate covers. Read again when the files change.
    #[schemars(length(min = 1))]
    pub(crate) certificates: Vec<CertificateFiles>,
    /// The oldest version of TLS that is spoken.
    pub(crate) min_version: TlsVersion,
    /// Which certificates clients must show. Absent: none.
    pub(crate) client_auth: Option<ClientAuth>,
    /// How long a client may take for its handshake.
    pub(crate) handshake_timeout: Text<Duration>,
}

/// A certificate with its key, in PEM files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(crate) struct CertificateFiles {
    /// The file of the certificate, followed by the intermediate ones, relative to this file.
    #[schemars(length(min = 1))]
    pub(crate) cert: String,
    /// The file of its private key, relative to this file.
    #[schemars(length(min = 1))]
    pub(crate) key: String,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "TLSv1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

/// Which certificates clients must show.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["ca"]))]
pub(crate) struct ClientAuth {
    /// The PEM file of the authorities whose clients are let in, relative to this file. Read again when it changes.
    #[schemars(length(min = 1))]
    pub(crate) ca: String,
    /// The PEM file of revocation lists, one for each authority in a client's chain, relative to this file. Read again when it
    /// changes; one that is out of date lets nobody in.
    pub(crate) crl: Option<String>,
    /// Whether a client without a certificate is let in.
    pub(crate) mode: ClientAuthMode,
}

/// Whether a client without a certificate is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthMode {
    /// It is not.
    #[default]
    Required,
    /// It is; one with a certificate that is not good is not.
    Optional,
}

/// What upstreams are told of the client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ForwardClientCertificate {
    /// What becomes of `x-forwarded-client-cert`. A client's own never passes unless it is one of the `trusted_proxies`.
    pub(crate) mode: ForwardedCertificate,
    /// Whether the whole certificate is told too, as URL-encoded PEM.
    pub(crate) pem: bool,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ForwardedCertificate {
    /// It is removed.
    #[default]
    Strip,
    /// A trusted proxy's is passed on, any other is removed.
    Keep,
    /// It is what the gateway has verified; nothing when the client showed no certificate.
    Set,
    /// A trusted proxy's is passed on with what the gateway has verified behind it.
    Append,
}

/// How connections to an upstream are encrypted. It always has to prove who it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// The PEM file of the authorities that are trusted, relative to this file; read again when it changes. Default: those that
    /// the machine trusts.
    pub(crate) ca: Option<String>,
    /// The name that the upstream's certificate must have. Default: the host of each endpoint.
    pub(crate) server_name: Option<String>,
    /// The gateway's own certificate, for upstreams that ask for one. Read again when the files change.
    pub(crate) certificate: Option<CertificateFiles>,
    /// The oldest version of TLS that is spoken.
    pub(crate) min_version: TlsVersion,
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            min_version: TlsVersion::default(),
            client_auth: None,
            handshake_timeout: Text(defaults::HANDSHAKE),
        }
    }
}
