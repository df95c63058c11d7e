//! What the gateway offers beside passing requests on, as operators write it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::CertificateFiles;
use crate::config::private::Private;
use crate::config::written::{Endpoint, Quota, Rate, Text, Zone};
use crate::services::rate_limit;

/// What the gateway offers beside passing requests on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Services {
    /// Limits that several gateways share, by Envoy's rate-limit API. Absent: none.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) rate_limit: Option<RateLimitService>,
}

/// Limits that several gateways share.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimitService {
    /// The address and port to listen on: gRPC, in the clear. Whoever can reach it can use limits up: keep it among the gateways.
    /// Absent: only filters of this gateway ask, by an upstream with `service: rate_limit`.
    pub(crate) bind: Option<Text<SocketAddr>>,
    /// Limits by what descriptors have in them. A descriptor that fits none is held to the limit it brings itself.
    pub(crate) limits: Vec<ServiceLimit>,
    /// Where the states are. Absent: in this process, until it ends.
    pub(crate) store: Option<Store>,
    /// What becomes of requests while the store is away.
    pub(crate) on_store_failure: OnStoreFailure,
}

/// One limit of a service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["domain", "entries"]))]
pub(crate) struct ServiceLimit {
    /// The domain it is for.
    #[schemars(length(min = 1))]
    pub(crate) domain: String,
    /// What a descriptor must have in it: keys, with a value or `*` for any. The limit that names most holds.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) entries: BTreeMap<String, String>,
    /// How many pass, for each combination of values, at an even rate. This, or `quota`.
    pub(crate) rate: Option<Text<Rate>>,
    /// How many pass at once. Default: the count of the rate.
    #[schemars(range(min = 1))]
    pub(crate) burst: Option<u32>,
    /// How many pass in an hour, a day or a month of the calendar. This, or `rate`.
    pub(crate) quota: Option<Text<Quota>>,
    /// Where the calendar's days begin: a place of the IANA Time Zone Database, or an offset from UTC. Default: UTC.
    pub(crate) zone: Option<Text<Zone>>,
}

/// Where states are that outlive this process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["redis"]))]
pub(crate) struct Store {
    /// Redis from 6, or Valkey.
    pub(crate) redis: Redis,
}

/// A Redis or Valkey.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoints"]))]
pub(crate) struct Redis {
    /// Where it listens: `host:port`. Of several, the first that can be connected to; with `cluster` any of its nodes, with
    /// `sentinel` the Sentinels.
    #[schemars(length(min = 1))]
    pub(crate) endpoints: Vec<Text<Endpoint>>,
    /// Whether it is a Cluster. All states of one domain are on one of its nodes.
    pub(crate) cluster: bool,
    /// Who knows which server is the master. Absent: the endpoints are servers.
    pub(crate) sentinel: Option<Sentinel>,
    /// Who we are. Default: the server's default user.
    pub(crate) username: Option<String>,
    /// Our password, by reference (`${file:…}`, `${env:…}`).
    #[schemars(with = "Option<String>")]
    pub(crate) password: Option<Private>,
    /// How connections are encrypted; `{}` for the usual. Absent: not at all.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) tls: Option<RedisTls>,
    /// What every key begins with.
    #[schemars(length(min = 1))]
    pub(crate) prefix: String,
    /// How long one decision may take.
    pub(crate) timeout: Text<Duration>,
}

/// Who knows which server is the master.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["master"]))]
pub(crate) struct Sentinel {
    /// The name that the Sentinels have for it.
    #[schemars(length(min = 1))]
    pub(crate) master: String,
    /// Who we are to the Sentinels.
    pub(crate) username: Option<String>,
    /// Our password for the Sentinels, by reference.
    #[schemars(with = "Option<String>")]
    pub(crate) password: Option<Private>,
}

/// How connections to a store are encrypted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RedisTls {
    /// The PEM file of the authorities that are trusted, relative to this file. Default: those that the machine trusts.
    pub(crate) ca: Option<String>,
    /// The gateway's own certificate, for servers that ask for one.
    pub(crate) certificate: Option<CertificateFiles>,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            cluster: false,
            sentinel: None,
            username: None,
            password: None,
            tls: None,
            prefix: "portcullis".to_owned(),
            timeout: Text(rate_limit::DECISION),
        }
    }
}

/// What becomes of requests while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnStoreFailure {
    /// They are counted in this process, with the same limits.
    #[default]
    Local,
    /// They pass.
    Allow,
    /// They do not.
    Refuse,
}
