//! TLS towards clients: 1.2 and 1.3, with one certificate, and no session that outlives the process.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::settings::Settings;
use crate::key_files::{certificates, private_key};

/// Reads certificate and key, where they are configured.
///
/// # Errors
/// A file cannot be read, or the two do not fit together.
pub(super) fn open(settings: &Settings) -> Result<Option<TlsAcceptor>, String> {
    let (Some(certificate), Some(key)) = (&settings.tls_certificate, &settings.tls_key) else { return Ok(None) };
    let chain = certificates(certificate)?;
    let secret = private_key(key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| format!("{} and {} do not fit together: {error}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
