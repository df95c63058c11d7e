//! Whose certificates count: authorities from a file or from the system, and revocation lists.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::files::{Content, File, Kind, Made, Owner, Part, Problem};
use super::server::VerifierPart;
use super::{certificates, identity, provider};
use crate::config::ClientAuthMode;

/// The position of each file.
const CA: usize = 0;
const CRL: usize = 1;

/// Reads the authorities whose servers are trusted.
pub(crate) fn load_roots(owner: Owner, ca: File) -> Result<Part<Arc<RootCertStore>>, Problem> {
    Part::load((owner, Kind::Authorities, "roots"), vec![ca], Box::new(authorities))
}

/// Reads the authorities whose clients are let in, and the list of those who are not any more.
///
/// With a list, every certificate of a client's chain must be one that a list speaks of, and a list that is out of date lets
/// nobody in: one that quietly stopped to be renewed would protect nobody.
pub(crate) fn load_verifier(
    owner: Owner,
    ca: File,
    crl: Option<File>,
    mode: ClientAuthMode,
) -> Result<VerifierPart, Problem> {
    let kind = if crl.is_some() { Kind::Revocations } else { Kind::Authorities };
    let files = std::iter::once(ca).chain(crl).collect();
    let way = if mode == ClientAuthMode::Optional { "optional" } else { "required" };
    Part::load((owner, kind, way), files, Box::new(move |contents| verifier(contents, mode)))
}

/// The authorities in PEM text.
///
/// # Errors
/// A clause that says why there are none.
pub(crate) fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    authorities(&[Content::new(pem.to_vec())]).map(|made| made.value).map_err(|problem| problem.why)
}

fn authorities(contents: &[Content]) -> Result<Made<Arc<RootCertStore>>, Problem> {
    let content = contents.first().ok_or_else(|| Problem::new(CA, "it was not read"))?;
    let mut roots = RootCertStore::empty();
    let mut until = i64::MAX;
    for certificate in certificates::chain(content, CA)? {
        let read = identity::read(&certificate).map_err(|why| Problem::new(CA, why))?;
        until = until.min(read.not_after);
        roots.add(certificate).map_err(|_| Problem::new(CA, "it holds a certificate that cannot be an authority's"))?;
    }
    Ok(Made { value: Arc::new(roots), until })
}

fn verifier(contents: &[Content], mode: ClientAuthMode) -> Result<Made<Arc<dyn ClientCertVerifier>>, Problem> {
    let Made { value: roots, mut until } = authorities(contents)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if let Some(content) = contents.get(CRL) {
        let lists;
        (lists, until) = revocations(content)?;
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if mode == ClientAuthMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    let built = builder.build();
    let value =
        built.map_err(|error| Problem::new(contents.len().saturating_sub(1), format!("it cannot be used: {error}")))?;
    Ok(Made { value, until })
}

/// The lists of a file, with the first time at which one of them is out of date.
fn revocations(content: &Content) -> Result<(Vec<CertificateRevocationListDer<'static>>, i64), Problem> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(content).collect();
    let lists = lists.map_err(|_| Problem::new(CRL, "its PEM is malformed"))?;
    if lists.is_empty() {
        return Err(Problem::new(CRL, "it holds no revocation list")
            .help("revocation lists are written in PEM: `-----BEGIN X509 CRL-----`"));
    }
    let mut until = i64::MAX;
    for list in &lists {
        let unreadable = |_| Problem::new(CRL, "it holds a revocation list that cannot be read");
        let (_, read) = CertificateRevocationList::from_der(list).map_err(unreadable)?;
        until = read.next_update().map_or(until, |next| until.min(next.timestamp()));
    }
    Ok((lists, until))
}

/// The authorities that this machine trusts.
///
/// # Errors
/// A clause that says why there are none.
pub(crate) fn of_this_machine() -> Result<Arc<RootCertStore>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(Arc::new(roots)),
        (true, Some(error)) => Err(format!("they cannot be read: {error}")),
        (true, None) => Err("there are none".to_owned()),
    }
}
