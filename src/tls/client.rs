//! Towards origins, key directories and databases: built-in roots, or the operator's.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Settings for HTTP/1.1 over TLS; `ca_file` (PEM) replaces the built-in roots.
///
/// # Errors
/// Says what is wrong with the file.
pub fn http(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut config = plain(ca_file)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Settings for PostgreSQL over TLS.
///
/// # Errors
/// As [`http()`].
pub fn database(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    plain(ca_file).map(Arc::new)
}

fn plain(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let pem = fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| format!("is not PEM: {e}"))?;
                roots.add(certificate).map_err(|e| format!("has a certificate that can't be a root: {e}"))?;
            }
            if roots.is_empty() {
                return Err("holds no certificate".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(versions.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
