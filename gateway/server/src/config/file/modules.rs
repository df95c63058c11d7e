//! Modules from other machines, as operators write them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::defaults;
use crate::config::private::Private;
use crate::config::written::Text;
use crate::modules::reference::Prefix;
use crate::modules::signature::PublicKey;

/// How modules of plugins are fetched from other machines, and whose signatures they need.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Modules {
    /// What is known of registries and web servers, by `HOST` or `HOST:PORT` as references have it. Others are asked without a name,
    /// over TLS, by the authorities that this machine trusts.
    pub(crate) registries: BTreeMap<String, Registry>,
    /// How old an answer may be before a tag or a URL is asked for again, when the configuration is read. Absent: for ever; what it
    /// once stood for it stands for, as long as the cache has it.
    pub(crate) refresh: Option<Text<Duration>>,
    /// How long all fetching that one reading of the configuration needs may take.
    pub(crate) timeout: Text<Duration>,
    /// The keys, any of which the modules of the gateway's own plugins must be signed with: `ed25519:` and base64, or a public key in
    /// PEM by `${file:…}`. Default: none need be signed.
    pub(crate) signed_by: Vec<Text<PublicKey>>,
    /// What holds for tenants that have no `modules` of their own.
    pub(crate) tenants: TenantModules,
}

/// What is known of a registry or a web server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Who we are there.
    pub(crate) username: Option<String>,
    /// Our password or token there, by reference (`${file:…}`, `${env:…}`).
    #[schemars(with = "Option<String>")]
    pub(crate) password: Option<Private>,
    /// A file with the authorities whose certificates count there. Default: those this machine trusts.
    pub(crate) ca: Option<String>,
    /// Whether it is spoken to in the clear. Registries and `http://` on loopback addresses are without this.
    pub(crate) plain_http: bool,
}

/// Which modules a tenant may fetch, and whose signatures it needs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TenantModules {
    /// What references in the tenant's own files may begin with: `oci://HOST/…`, `https://HOST/…`. Default: it may fetch nothing.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) from: Option<Vec<Text<Prefix>>>,
    /// The keys, any of which all the tenant's modules must be signed with, wherever they are. Default: none need be signed.
    #[schemars(extend("x-explicit" = true))]
    pub(crate) signed_by: Option<Vec<Text<PublicKey>>>,
}

impl Default for Modules {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            refresh: None,
            timeout: Text(defaults::FETCH),
            signed_by: Vec::new(),
            tenants: TenantModules::default(),
        }
    }
}
