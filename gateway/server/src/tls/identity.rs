//! Reading certificates: whose they are, what they are good for, until when.
//!
//! Whether one is to be believed has been verified by rustls before a client's is read here. A certificate that this cannot
//! read is refused all the same: what cannot be said to filters and upstreams must not be let in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use portcullis_core::tls::{Certificate, hex};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A certificate that was read.
pub(crate) struct Read {
    /// What it says.
    pub(crate) certificate: Certificate,
    /// Its last second, since the Unix epoch.
    pub(crate) not_after: i64,
}

/// Reads a certificate.
///
/// # Errors
/// A clause that says why it cannot be.
pub(crate) fn read(der: &[u8]) -> Result<Read, String> {
    let unreadable = || "it holds a certificate that cannot be read".to_owned();
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
    let mut certificate = Certificate {
        subject: distinguished_name(parsed.subject()),
        sha256: hex(&Sha256::digest(der)),
        der: Bytes::copy_from_slice(der),
        ..Certificate::default()
    };
    let names = parsed.subject_alternative_name().map_err(|_| unreadable())?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => certificate.dns_names.push(name.to_ascii_lowercase()),
            GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => {}
        }
    }
    Ok(Read { certificate, not_after: parsed.validity().not_after.timestamp() })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).ok()
}

/// A name as RFC 2253 writes it, the last part first, in ASCII.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    match (short_name(&oid), attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        // RFC 2253 §2.4: what has no name is shown by its encoding.
        (name, _) => format!("{}=#{}", name.unwrap_or(&oid), hex(attribute.as_slice())),
    }
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// RFC 2253 §2.4, with everything beyond printable ASCII as the hexadecimal digits of its UTF-8.
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        let at_an_end = (at == 0 && matches!(byte, b' ' | b'#')) || (at == last && byte == b' ');
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(byte)]),
            _ if at_an_end => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn a_certificate_says_whose_it_is_in_the_words_of_rfc_2253() {
        let mut params = CertificateParams::new(vec!["Orders.Test".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://test/orders".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Acme, \"Söhne\" + Co"),
            (DnType::CommonName, " #orders "),
            (DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99]), "x"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let key = KeyPair::generate().unwrap();
        let read = read(params.self_signed(&key).unwrap().der()).unwrap();
        let said = read.certificate;
        assert_eq!(said.subject, r#"1.3.6.1.4.1.99=#78,CN=\ #orders\ ,O=Acme\, \"S\C3\B6hne\" \+ Co,C=DE"#);
        assert_eq!(said.dns_names, ["orders.test"]);
        assert_eq!(said.uris, ["spiffe://test/orders"]);
        assert_eq!(said.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(said.sha256.len(), 64);
        assert_eq!(read.not_after, 1_893_542_400);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(super::read(b"").is_err() && super::read(&[0x30, 0x82, 0xff, 0xff]).is_err());
    }
}
