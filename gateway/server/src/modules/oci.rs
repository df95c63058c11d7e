//! Registries: artefacts pulled and pushed by the OCI Distribution Specification 1.1.
//!
//! Read are the forms that Istio and Envoy Gateway read: a layer that is the module itself, and an image whose last layer is an
//! archive with `plugin.wasm` in it; also the layer of the CNCF's Wasm artefacts. Written is the first of these, with the two layers
//! that Istio insists on. **Invariant:** what is returned has the digest it was asked for by.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fetch::{Answer, Ask, Client, FetchError, MAX_MODULE, malformed};
use super::image;
use super::reference::{Oci, Version};
use super::signature::Signature;
use crate::config::{Digest, Written as _};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media types of a module as it is: the one of Istio and Envoy Gateway, and that of the CNCF's Wasm artefacts.
pub(super) const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const CNCF_MODULE: &str = "application/wasm";
/// Media types of an archive with the module in it.
const ARCHIVES: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];
/// The annotation of a module's layer that holds its signature in base64.
pub(super) const SIGNATURE: &str = "portcullis.signature.ed25519";

/// Registries accept no larger manifests.
const MAX_MANIFEST: usize = 4 << 20;
/// No token is longer.
const MAX_TOKEN: usize = 64 << 10;
/// What stands in answers that only their status is of interest of.
pub(super) const MAX_WORDS: usize = 64 << 10;

/// An artefact that was found.
pub(super) struct Found {
    /// The digest of its manifest, or of the index that leads to it.
    pub(super) manifest: Digest,
    pub(super) layer: Layer,
}

/// The layer of an artefact that has the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    size: usize,
    form: Form,
    pub(super) signature: Option<Signature>,
}

/// How a module lies in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The layer is the module.
    Plain,
    /// The layer is a compressed archive that has it.
    Archive,
}

impl Layer {
    /// The module's digest, where the manifest tells it.
    pub(super) fn module(&self) -> Option<Digest> {
        (self.form == Form::Plain).then_some(self.digest)
    }
}

/// What is of interest in a manifest, and in an index.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing)]
    manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// One of these layers.
    pub(super) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: MANIFEST.to_owned(), config: Some(config), layers, ..Self::default() }
    }
}

/// A blob or a manifest, as others refer to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: usize,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    platform: Option<Platform>,
}

/// What an image in an index is for.
#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, content: &[u8]) -> Self {
        let digest = format!("sha256:{}", Digest(Sha256::digest(content).into()).write());
        Self { media_type: media_type.to_owned(), digest, size: content.len(), ..Self::default() }
    }

    fn digest(&self) -> Result<Digest, FetchError> {
        let digest = self.digest.strip_prefix("sha256:").and_then(|digest| Digest::read(digest).ok());
        digest.ok_or_else(|| malformed(&self.digest, "it is not a digest of `sha256:`"))
    }
}

/// A repository, and who we are there once it has asked.
pub(super) struct Repository<'a> {
    client: &'a Client,
    pub(super) reference: &'a Oci,
    /// What we want to do: `pull` or `pull,push`.
    actions: &'static str,
    base: String,
    authorization: RefCell<Option<HeaderValue>>,
}

impl<'a> Repository<'a> {
    pub(super) fn new(client: &'a Client, reference: &'a Oci, actions: &'static str) -> Self {
        let scheme = if client.speaks_plainly(&reference.host) { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", host_of_api(&reference.host), reference.repository);
        Self { client, reference, actions, base, authorization: RefCell::default() }
    }

    /// Finds the artefact of the reference.
    pub(super) async fn find(&self) -> Result<Found, FetchError> {
        let (what, want) = match &self.reference.version {
            Version::Tag(tag) => (tag.clone(), None),
            Version::Pinned { manifest, .. } => (format!("sha256:{}", manifest.write()), Some(*manifest)),
        };
        let (manifest, digest) = self.manifest(&what, want).await?;
        let manifest = match image_of(&manifest.manifests) {
            None if manifest.manifests.is_empty() => manifest,
            None => return Err(malformed(&self.reference.to_string(), "none of its images is for WebAssembly")),
            Some(image) => self.manifest(&image.digest, Some(image.digest()?)).await?.0,
        };
        let layer = layer_of(&manifest).map_err(|why| malformed(&self.reference.to_string(), why))?;
        Ok(Found { manifest: digest, layer })
    }

    async fn manifest(&self, what: &str, want: Option<Digest>) -> Result<(Manifest, Digest), FetchError> {
        let url = format!("{}/manifests/{what}", self.base);
        let mut ask = Ask::get(&url, MAX_MANIFEST);
        let accepted = format!("{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}");
        ask.fields.insert(ACCEPT, HeaderValue::try_from(accepted).map_err(|_| malformed(&url, "no media types"))?);
        let body = self.ask(ask).await?.good(&url)?.body;
        let digest = checked(&format!("the manifest of {}", self.reference), &body, want)?;
        let manifest = serde_json::from_slice(&body);
        Ok((manifest.map_err(|error| malformed(&url, format!("it is not a manifest: {error}")))?, digest))
    }

    /// The module in a layer.
    pub(super) async fn module(&self, layer: &Layer) -> Result<Bytes, FetchError> {
        let what = format!("the module of {}", self.reference);
        if layer.size > MAX_MODULE {
            return Err(FetchError::TooLarge { what, most: MAX_MODULE });
        }
        let url = format!("{}/blobs/sha256:{}", self.base, layer.digest.write());
        let blob = self.ask(Ask::get(&url, layer.size)).await?.good(&url)?.body;
        checked(&what, &blob, Some(layer.digest))?;
        match layer.form {
            Form::Plain => Ok(blob),
            Form::Archive => image::module(&blob, MAX_MODULE).map_err(|why| malformed(&what, why)),
        }
    }

    /// The address of something in the repository.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// Asks; if the registry wants to know who we are, says so and asks again.
    pub(super) async fn ask(&self, mut ask: Ask<'_>) -> Result<Answer, FetchError> {
        if let Some(known) = &*self.authorization.borrow() {
            ask.fields.insert(AUTHORIZATION, known.clone());
        }
        let (url, most, method) = (ask.url, ask.most, ask.method.clone());
        let (fields, body) = (ask.fields.clone(), ask.body.clone());
        let answer = self.client.ask(ask).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let logged_in = self.client.host(&self.reference.host).is_some_and(|host| host.login.is_some());
        let unauthorized = || FetchError::Unauthorized { host: self.reference.host.clone(), logged_in };
        if self.authorization.borrow().is_some() {
            return Err(unauthorized());
        }
        let authorization = self.authorize(&answer).await?.ok_or_else(unauthorized)?;
        let mut again = Ask { method, url, fields, body, most };
        again.fields.insert(AUTHORIZATION, authorization.clone());
        self.authorization.replace(Some(authorization));
        let answer = self.client.ask(again).await?;
        if answer.status == StatusCode::UNAUTHORIZED { Err(unauthorized()) } else { Ok(answer) }
    }

    /// What says who we are, as the registry's challenge asks for it; nothing if it asks for what we do not have.
    async fn authorize(&self, refusal: &Answer) -> Result<Option<HeaderValue>, FetchError> {
        let basic = self.client.host(&self.reference.host).and_then(super::fetch::Host::basic);
        let challenges = refusal.fields.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = challenges.filter_map(Challenge::read).collect();
        let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") else {
            return Ok(basic.filter(|_| challenges.iter().any(|challenge| challenge.scheme == "basic")));
        };
        let Some(realm) = bearer.parameters.get("realm") else { return Ok(None) };
        let scope = format!("repository:{}:{}", self.reference.repository, self.actions);
        let service =
            bearer.parameters.get("service").map_or(String::new(), |service| format!("service={}&", escaped(service)));
        let joint = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{joint}{service}scope={}", escaped(&scope));
        let mut ask = Ask::get(&url, MAX_TOKEN);
        if let Some(basic) = basic {
            ask.fields.insert(AUTHORIZATION, basic);
        }
        let answer = self.client.ask(ask).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let token: Token =
            serde_json::from_slice(&answer.good(&url)?.body).map_err(|_| malformed(&url, "its answer has no token"))?;
        let token = token.token.or(token.access_token).ok_or_else(|| malformed(&url, "its answer has no token"))?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| malformed(&url, "its token is none"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Whether there is a blob of this digest.
    pub(super) async fn has(&self, digest: &str) -> Result<bool, FetchError> {
        let url = self.url(&format!("blobs/{digest}"));
        let answer = self.ask(Ask { method: Method::HEAD, ..Ask::get(&url, 0) }).await?;
        Ok(answer.status.is_success())
    }
}

/// What a token service answers (Docker Registry v2 authentication).
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// A challenge of `WWW-Authenticate` (RFC 9110 §11.6.1): the first of its value.
#[derive(Debug)]
struct Challenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    fn read(value: &str) -> Option<Self> {
        let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let mut parameters = BTreeMap::new();
        while let Some((name, after)) = rest.split_once('=') {
            let (text, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            parameters.insert(name.trim().to_ascii_lowercase(), text.to_owned());
            rest = after.trim_start().trim_start_matches(',');
        }
        Some(Self { scheme: scheme.to_ascii_lowercase(), parameters })
    }
}

/// Docker's own registry answers under another name.
fn host_of_api(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// Of the images of an index the one for WebAssembly, or the only one there is; attestations are for no architecture.
fn image_of(images: &[Descriptor]) -> Option<&Descriptor> {
    let architecture = |image: &&Descriptor| image.platform.as_ref().map(|platform| platform.architecture.clone());
    let is_wasm = |image: &&Descriptor| architecture(image).is_some_and(|name| name.starts_with("wasm"));
    let mut others = images.iter().filter(|image| architecture(image).is_none_or(|name| name != "unknown"));
    images.iter().find(is_wasm).or_else(|| others.next().filter(|_| others.next().is_none()))
}

/// The layer that has the module, or a clause that says why none has.
fn layer_of(manifest: &Manifest) -> Result<Layer, String> {
    let plain = manifest.layers.iter().find(|layer| [MODULE, CNCF_MODULE].contains(&layer.media_type.as_str()));
    let archive = manifest.layers.last().filter(|layer| ARCHIVES.contains(&layer.media_type.as_str()));
    let (layer, form) = match (plain, archive) {
        (Some(layer), _) => (layer, Form::Plain),
        (None, Some(layer)) => (layer, Form::Archive),
        (None, None) => {
            let types: Vec<&str> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
            return Err(format!("it has no layer with a module: its layers are {types:?}"));
        }
    };
    let digest = layer.digest().map_err(|error| error.to_string())?;
    let signature = layer.annotations.get(SIGNATURE).or_else(|| manifest.annotations.get(SIGNATURE));
    let signature = signature.and_then(|text| Signature::of_text(text));
    Ok(Layer { digest, size: layer.size, form, signature })
}

/// The digest of what came, which must be the one wanted if there is one.
pub(super) fn checked(what: &str, content: &[u8], want: Option<Digest>) -> Result<Digest, FetchError> {
    let got = Digest(Sha256::digest(content).into());
    match want {
        Some(want) if want != got => Err(FetchError::Digest { what: what.to_owned(), want, got }),
        Some(_) | None => Ok(got),
    }
}

/// A text as part of a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(manifest: serde_json::Value) -> Result<Layer, String> {
        layer_of(&serde_json::from_value(manifest).unwrap())
    }

    #[test]
    fn every_form_of_a_module_is_found() {
        let digest = format!("sha256:{}", "5e".repeat(32));
        let of = |kind: &str| json!({ "mediaType": kind, "digest": digest, "size": 7 });
        let config = of("application/vnd.module.wasm.config.v1+json");
        for (layers, form) in [
            (json!([config, of(MODULE)]), Form::Plain),
            (json!([of(MODULE), config]), Form::Plain),
            (json!([of(CNCF_MODULE)]), Form::Plain),
            (json!([of("application/vnd.oci.image.layer.v1.tar+gzip")]), Form::Archive),
            (json!([config, of("application/vnd.docker.image.rootfs.diff.tar.gzip")]), Form::Archive),
        ] {
            assert_eq!(layer(json!({ "schemaVersion": 2, "layers": layers })).unwrap().form, form);
        }
        assert_eq!(
            layer(json!({ "schemaVersion": 2, "layers": [config] })).unwrap_err(),
            "it has no layer with a module: its layers are [\"application/vnd.module.wasm.config.v1+json\"]"
        );
        let other = json!([{ "mediaType": MODULE, "digest": "md5:9f", "size": 7 }]);
        assert!(layer(json!({ "schemaVersion": 2, "layers": other })).is_err());
    }

    #[test]
    fn of_an_index_the_image_for_wasm_is_taken_or_the_only_one() {
        let of = |architectures: &[&str]| -> Vec<Descriptor> {
            let image = |name: &&str| json!({ "digest": name, "size": 1, "platform": { "architecture": name } });
            serde_json::from_value(architectures.iter().map(image).collect()).unwrap()
        };
        let taken = |architectures: &[&str]| image_of(&of(architectures)).map(|image| image.digest.clone());
        assert_eq!(taken(&["amd64", "wasm32"]).as_deref(), Some("wasm32"));
        assert_eq!(taken(&["amd64", "unknown"]).as_deref(), Some("amd64"));
        assert_eq!(taken(&["amd64", "arm64"]), None);
    }

    #[test]
    fn challenges_are_read() {
        let bearer =
            Challenge::read(r#"Bearer realm="https://auth.example/token",service="r.example",scope="a:b,c""#).unwrap();
        assert_eq!(bearer.scheme, "bearer");
        assert_eq!(bearer.parameters["realm"], "https://auth.example/token");
        assert_eq!(
            (bearer.parameters["service"].as_str(), bearer.parameters["scope"].as_str()),
            ("r.example", "a:b,c")
        );
        assert_eq!(Challenge::read("Basic realm=x").unwrap().parameters["realm"], "x");
        assert_eq!(Challenge::read("Negotiate").unwrap().scheme, "negotiate");
        assert!(Challenge::read(r#"Bearer realm="open"#).is_none());
    }
}
