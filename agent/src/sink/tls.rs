//! TLS towards servers: whom to believe and as whom to come (the one user of rustls in the sinks).

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};

use super::settings::Tls;
use crate::key_files::{certificates, private_key};

/// The configuration of a client.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub(crate) fn client(settings: &Tls) -> Result<Arc<ClientConfig>, String> {
    let roots = match &settings.ca_file {
        Some(file) => Arc::new(authorities(file)?),
        None => system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match (&settings.certificate_file, &settings.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let secret = private_key(key)?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                format!("{} and {} do not fit together: {error}", certificate.display(), key.display())
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// A configuration that believes nobody, for where no TLS is spoken.
pub(crate) fn none() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // The versions are those that the provider's own suites are for.
    let versions = [&rustls::version::TLS13];
    match ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions) {
        Ok(builder) => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        Err(_) => unreachable!("the ring provider has suites of TLS 1.3"),
    }
}

/// The system's authorities, read once and shared: there are some hundred of them.
fn system() -> Result<Arc<RootCertStore>, String> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = SYSTEM.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(format!("the system has no certificates of authorities{why}; name some by ca_file"));
    }
    Ok(Arc::clone(SYSTEM.get_or_init(|| Arc::new(roots))))
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| format!("{} has an unusable certificate: {error}", file.display()))?;
    }
    Ok(roots)
}
