//! Certificates for tests: authorities, what they issue, what they take back, and files of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Somebody who issues certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Issued {
    certificate: Certificate,
    key: KeyPair,
    serial: SerialNumber,
}

/// For what a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// For servers.
    Server,
    /// For clients.
    Client,
}

impl Authority {
    /// An authority of this name.
    ///
    /// # Panics
    /// When there is no randomness.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate, in DER.
    #[must_use]
    pub fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for these names; one with a colon in it is a URI, the first is also the common name.
    #[must_use]
    pub fn issue(&self, names: &[&str], usage: Use) -> Issued {
        self.issue_until(names, usage, 2100)
    }

    /// One that was good in the first days of this year, and is so until its end.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn issue_until(&self, names: &[&str], usage: Use, year: i32) -> Issued {
        let (uris, plain): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(|name| name.contains("://"));
        let plain: Vec<String> = plain.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(plain).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![match usage {
            Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let serial = SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate, key, serial }
    }

    /// The list of those it has taken back, good until the end of this year.
    ///
    /// # Panics
    /// When the year is before 2001.
    #[must_use]
    pub fn revocations(&self, revoked: &[&Issued], until: i32) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: date_time_ymd(2000, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(until, 12, 31),
            crl_number: SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

impl Issued {
    /// The certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The certificate, in DER.
    #[must_use]
    pub fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// Its key.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Its key, in DER.
    #[must_use]
    pub fn key_der(&self) -> rustls::pki_types::PrivateKeyDer<'static> {
        rustls::pki_types::PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// A directory of files, gone when it is dropped.
pub struct Files(tempfile::TempDir);

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.path().display())
    }
}

impl Default for Files {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Files {
    /// The path of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a file, for a command line.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, replacing what is there in one step.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, name: &str, content: &str) {
        fs::write(self.path("new"), content).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn put_pair(&self, name: &str, issued: &Issued) {
        self.put(&format!("{name}.pem"), &issued.pem());
        self.put(&format!("{name}.key"), &issued.key_pem());
    }

    /// Writes `NAME.pem` and `NAME.key` as Kubernetes does: both are links into a directory that is swapped as a whole.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn swap_pair(&self, name: &str, issued: &Issued) {
        let version = format!("..{}", issued.serial);
        fs::create_dir(self.path(&version)).unwrap();
        self.put_pair(&format!("{version}/{name}"), issued);
        symlink(&version, self.path("..next")).unwrap();
        fs::rename(self.path("..next"), self.path("..data")).unwrap();
        for file in [format!("{name}.pem"), format!("{name}.key")] {
            if !self.path(&file).exists() {
                symlink(format!("..data/{file}"), self.path(&file)).unwrap();
            }
        }
    }
}
