//! Small files that somebody configured: secrets, certificates and their keys.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest one that is read: chains of certificates have some kilobytes, the authorities of a system some hundred.
const LARGEST: u64 = 1 << 20;

/// A file, as text.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub(crate) fn text(file: &Path) -> Result<String, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", file.display());
    let length = std::fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if length > LARGEST {
        return Err(unreadable(&"it has more than 1 MiB"));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(&error))
}

/// The certificates in a file of PEM, of which there is at least one.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = text(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} has no certificate in PEM form", file.display())),
    }
}

/// The private key in a file of PEM.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    // What the parser says could quote the key.
    PrivateKeyDer::from_pem_slice(text(file)?.as_bytes())
        .map_err(|_| format!("{} has no private key in PEM form", file.display()))
}
