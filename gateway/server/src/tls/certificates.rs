//! Certificates with their keys, from PEM files, and which of them a client gets.

use std::sync::Arc;

use portcullis_core::tls::{Certificate, Certificates};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use zeroize::Zeroize as _;

use super::files::{Content, File, Kind, Made, Owner, Part, Problem};
use super::identity;

/// A certificate, its chain and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) says: Arc<Certificate>,
}

/// The position of each file of a pair.
const CERT: usize = 0;
const KEY: usize = 1;

/// Reads a certificate with its key.
pub(crate) fn load(owner: Owner, cert: File, key: File) -> Result<Part<Pair>, Problem> {
    Part::load((owner, Kind::Certificate, "pair"), vec![cert, key], Box::new(pair))
}

fn pair(contents: &[Content]) -> Result<Made<Pair>, Problem> {
    let [cert, key] = contents else { return Err(Problem::new(CERT, "it was not read")) };
    let chain = chain(cert, CERT)?;
    let read = chain.first().map(|leaf| identity::read(leaf)).unwrap_or_else(|| Err("it is empty".to_owned()));
    let read = read.map_err(|why| Problem::new(CERT, why))?;
    let mut der = private_key(key)?;
    let signing = any_supported_type(&der);
    der.zeroize();
    let signing = signing.map_err(|_| {
        Problem::new(KEY, "it holds a key of a kind that cannot be used")
            .help("use an RSA key of 2048 bits or more, or an ECDSA key on P-256, P-384 or P-521, or Ed25519")
    })?;
    let key = CertifiedKey::new(chain, signing);
    match key.keys_match() {
        Ok(()) => {}
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let problem = Problem::new(KEY, "the key does not belong to the certificate");
            return Err(problem.help(
                "the first certificate in the file must be the one the key belongs to; intermediates follow it",
            ));
        }
        Err(error) => return Err(Problem::new(CERT, format!("its certificate cannot be used: {error}"))),
    }
    Ok(Made { until: read.not_after, value: Pair { key: Arc::new(key), says: Arc::new(read.certificate) } })
}

/// Every certificate of a file, at least one.
pub(crate) fn chain(content: &Content, file: usize) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Problem::new(file, "it holds no certificate")
            .help("certificates are written in PEM: `-----BEGIN CERTIFICATE-----`")),
        Err(_) => Err(Problem::new(file, "its PEM is malformed")),
    }
}

fn private_key(content: &Content) -> Result<PrivateKeyDer<'static>, Problem> {
    // The error of the parser could quote the file.
    PrivateKeyDer::from_pem_slice(content).map_err(|error| {
        if !matches!(error, pem::Error::NoItemsFound) {
            Problem::new(KEY, "its PEM is malformed")
        } else if holds(content, b"ENCRYPTED") {
            Problem::new(KEY, "its key is encrypted")
                .help("decrypt it with `openssl pkey -in KEY -out PLAIN`, and let only the gateway read the file")
        } else {
            let problem = Problem::new(KEY, "it holds no private key");
            problem.help("keys are written in PEM: `-----BEGIN PRIVATE KEY-----`")
        }
    })
}

fn holds(content: &[u8], word: &[u8]) -> bool {
    content.windows(word.len()).any(|window| window == word)
}

/// Chooses the certificate for a client: by the name it wants to reach, then by the keys it understands.
pub(crate) struct Chooser {
    pub(crate) certificates: Arc<Certificates>,
    keys: Vec<Arc<CertifiedKey>>,
}

impl Chooser {
    pub(crate) fn new(pairs: &[Pair]) -> Self {
        let certificates = Arc::new(Certificates::new(pairs.iter().map(|pair| pair.says.clone()).collect()));
        Self { certificates, keys: pairs.iter().map(|pair| pair.key.clone()).collect() }
    }
}

impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chooser").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(server_name);
        let fitting = || self.certificates.positions(name.as_deref()).iter().filter_map(|at| self.keys.get(*at));
        let understood = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Where the client understands none, the handshake says so.
        fitting().find(understood).or_else(|| fitting().next()).cloned()
    }
}

/// A name as a client sent it, in the form that names are compared in.
pub(crate) fn server_name(sent: &str) -> Box<str> {
    sent.strip_suffix('.').unwrap_or(sent).to_ascii_lowercase().into()
}
