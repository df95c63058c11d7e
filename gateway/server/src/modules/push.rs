//! Modules put into registries, in the form that Istio and Envoy Gateway read too.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Uri};
use serde_json::json;

use super::fetch::{Ask, Client, FetchError, join, malformed};
use super::oci::{Descriptor, MANIFEST, MAX_WORDS, MODULE, Manifest, Repository, SIGNATURE, checked, escaped};
use super::reference::{Oci, Version};
use super::signature::Signature;
use crate::config::Digest;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of what runtimes shall know of the module: Istio takes artefacts of exactly two layers, this one and the module.
const RUNTIME_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";

/// Pushes a module under the tag of a reference; returns the digest of its manifest.
pub(super) async fn push(
    client: &Client,
    to: &Oci,
    module: Bytes,
    signature: Option<&Signature>,
) -> Result<Digest, FetchError> {
    let Version::Tag(tag) = &to.version else {
        return Err(malformed(&to.to_string(), "a module is pushed to a tag, not to a digest"));
    };
    let repository = Repository::new(client, to, "pull,push");
    let mut layer = Descriptor::new(MODULE, &module);
    layer.annotations.insert("org.opencontainers.image.title".to_owned(), "plugin.wasm".to_owned());
    if let Some(signature) = signature {
        layer.annotations.insert(SIGNATURE.to_owned(), signature.text());
    }
    let runtime = Bytes::from(json!({ "type": "envoy_proxy" }).to_string());
    let runtime_layer = Descriptor::new(RUNTIME_CONFIG, &runtime);
    let layers = vec![layer, runtime_layer];
    let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let root = json!({ "type": "layers", "diff_ids": digests });
    let config = Bytes::from(json!({ "architecture": "wasm", "os": "wasip1", "rootfs": root }).to_string());
    let config_descriptor = Descriptor::new(CONFIG, &config);
    for (descriptor, content) in layers.iter().chain([&config_descriptor]).zip([module, runtime, config]) {
        blob(&repository, descriptor, content).await?;
    }
    let manifest = Manifest::new(config_descriptor, layers);
    let manifest = serde_json::to_vec(&manifest).map_err(|error| malformed("the manifest", error.to_string()))?;
    let digest = checked("the manifest", &manifest, None)?;
    let url = repository.url(&format!("manifests/{tag}"));
    put(&repository, &url, MANIFEST, manifest.into()).await?;
    Ok(digest)
}

/// Pushes a blob in one piece, if it is not there.
async fn blob(repository: &Repository<'_>, descriptor: &Descriptor, content: Bytes) -> Result<(), FetchError> {
    if repository.has(&descriptor.digest).await? {
        return Ok(());
    }
    let url = repository.url("blobs/uploads/");
    let begun = repository.ask(Ask { method: Method::POST, ..Ask::get(&url, MAX_WORDS) }).await?.good(&url)?;
    let location = begun.fields.get(LOCATION).and_then(|to| to.to_str().ok());
    let from: Uri = url.parse().map_err(|_| malformed(&url, "it is not a URL"))?;
    let to = location
        .and_then(|to| join(&from, to))
        .ok_or_else(|| malformed(&url, "its answer does not say where to put it"))?;
    let joint = if to.contains('?') { '&' } else { '?' };
    let to = format!("{to}{joint}digest={}", escaped(&descriptor.digest));
    put(repository, &to, "application/octet-stream", content).await
}

async fn put(repository: &Repository<'_>, url: &str, kind: &'static str, body: Bytes) -> Result<(), FetchError> {
    let mut ask = Ask { method: Method::PUT, body, ..Ask::get(url, MAX_WORDS) };
    ask.fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    repository.ask(ask).await?.good(url).map(|_| ())
}
