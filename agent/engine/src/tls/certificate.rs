//! X.509 certificates as far as a report shows them. The one user of x509-parser.

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::model::{Certificate, CertificateOwner};
use crate::text::printable;
use crate::time::Timestamp;

/// Bytes of a distinguished name that are shown. Real ones have some hundred.
const NAME_TEXT: usize = 1024;
/// Alternative names that are shown of one certificate; some content networks have a hundred.
const MAX_NAMES: usize = 100;

/// Reads a certificate from its DER form; `None` where it is none.
pub(super) fn read(der: &[u8], from: CertificateOwner, position: u32) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let (subject, issuer) = (certificate.subject(), certificate.issuer());
    let validity = certificate.validity();
    Some(Certificate {
        from,
        position,
        subject: printable(subject.to_string().as_bytes(), NAME_TEXT),
        issuer: printable(issuer.to_string().as_bytes(), NAME_TEXT),
        names: alternative_names(&certificate),
        not_before: Timestamp::from_parts(validity.not_before.timestamp(), 0),
        not_after: Timestamp::from_parts(validity.not_after.timestamp(), 0),
        self_signed: subject.as_raw() == issuer.as_raw(),
        sha256: hexadecimal(&Sha256::digest(der)),
    })
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some(printable(text.as_bytes(), NAME_TEXT))
        }
        GeneralName::IPAddress(octets) => address(octets),
        GeneralName::DirectoryName(name) => Some(printable(name.to_string().as_bytes(), NAME_TEXT)),
        _ => None,
    });
    names.take(MAX_NAMES).collect()
}

fn address(octets: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(octets).map(std::net::IpAddr::from);
    let sixteen = <[u8; 16]>::try_from(octets).map(std::net::IpAddr::from);
    four.or(sixteen).ok().map(|address| address.to_string())
}

fn hexadecimal(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS.get(usize::from(value)).copied().unwrap_or(b'?'));
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert_eq!(read(b"", CertificateOwner::Server, 0), None);
        assert_eq!(read(&[0x30, 0x82, 0xff, 0xff, 0x30], CertificateOwner::Server, 0), None);
    }

    #[test]
    fn addresses_are_printed_as_such() {
        assert_eq!(address(&[10, 77, 0, 2]).as_deref(), Some("10.77.0.2"));
        assert_eq!(address(&[0; 16]).as_deref(), Some("::"));
        assert_eq!(address(&[1, 2, 3]), None);
        assert_eq!(hexadecimal(&[0, 0xab, 0x5f]), "00ab5f");
    }
}
