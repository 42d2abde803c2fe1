//! For those who come in: several certificates by the name that a client asks for (SNI), read again without a restart.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Largest file of certificates or a key.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong with a certificate's files.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct CertificateError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// A certificate's file and that of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the server's certificate, then those that lead to a root.
    pub cert_file: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

/// The certificates of a gateway, as they were last read.
#[derive(Debug)]
pub struct Certificates {
    current: RwLock<Arc<Named>>,
}

/// Certificates by name.
#[derive(Clone, Debug)]
struct Named {
    pairs: Vec<Pair>,
    /// Where no name fits.
    first: Arc<CertifiedKey>,
    /// `example.com`
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.com` as `example.com`
    below: HashMap<String, Arc<CertifiedKey>>,
    /// Of all files, before they were read.
    stamps: Vec<Stamp>,
}

/// What shows that a file is another one. A link that points elsewhere does, too.
type Stamp = Option<(SystemTime, u64)>;

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that can't be used.
    pub fn read(pairs: Vec<Pair>) -> Result<Arc<Certificates>, CertificateError> {
        Ok(Arc::new(Certificates { current: RwLock::new(Arc::new(Named::read(pairs)?)) }))
    }

    /// Serves other files from now on.
    ///
    /// # Errors
    /// The first file that can't be used; then all stays as it was.
    pub fn replace(&self, pairs: Vec<Pair>) -> Result<(), CertificateError> {
        self.set(Named::read(pairs)?);
        Ok(())
    }

    /// Reads files that have changed; true if there were any. What could not be used leaves everything as it was, and is
    /// tried again once it has changed.
    ///
    /// # Errors
    /// The first file that can't be used.
    pub fn read_again(&self) -> Result<bool, CertificateError> {
        let before = self.named();
        let stamps = stamps(&before.pairs);
        if stamps == before.stamps {
            return Ok(false);
        }
        match Named::read(before.pairs.clone()) {
            Ok(named) => {
                self.set(named);
                Ok(true)
            }
            Err(error) => {
                self.set(Named { stamps, ..(*before).clone() });
                Err(error)
            }
        }
    }

    /// Settings of listeners: HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 and 1.3, tickets, no client certificates, no early data.
    ///
    /// # Errors
    /// Says what the library has against it.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, String> {
        let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let versions = versions.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
        let mut config = versions.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(|e| e.to_string())?;
        // A session is resumed by its ticket; two of them let a client open two connections.
        config.send_tls13_tickets = 2;
        Ok(Arc::new(config))
    }

    fn named(&self) -> Arc<Named> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, named: Named) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(named);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.named().find(hello.server_name()))
    }
}

impl Named {
    fn read(pairs: Vec<Pair>) -> Result<Named, CertificateError> {
        let stamps = stamps(&pairs);
        let (mut first, mut exact, mut below) = (None, HashMap::new(), HashMap::new());
        for pair in &pairs {
            let (key, names) = certified(pair)?;
            for name in names {
                // The first that has a name keeps it.
                match name.strip_prefix("*.") {
                    Some(rest) => below.entry(rest.to_owned()).or_insert_with(|| key.clone()),
                    None => exact.entry(name).or_insert_with(|| key.clone()),
                };
            }
            first.get_or_insert(key);
        }
        let nothing = || CertificateError { path: PathBuf::new(), reason: "no certificate is configured".to_owned() };
        Ok(Named { first: first.ok_or_else(nothing)?, pairs, exact, below, stamps })
    }

    fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        // rustls has made it lower case, without a point at its end.
        let by_name = name.and_then(|name| {
            let below = || self.below.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(below)
        });
        by_name.unwrap_or(&self.first).clone()
    }
}

fn stamps(pairs: &[Pair]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    pairs.iter().flat_map(|pair| [stamp(&pair.cert_file), stamp(&pair.key_file)]).collect()
}

/// A certificate with its key, and the names that it is for.
fn certified(pair: &Pair) -> Result<(Arc<CertifiedKey>, Vec<String>), CertificateError> {
    let of = |path: &Path, reason: String| CertificateError { path: path.to_owned(), reason };
    let cert = |reason: String| of(&pair.cert_file, reason);
    let key = |reason: String| of(&pair.key_file, reason);
    let pem = read(&pair.cert_file).map_err(cert)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| cert(format!("is not PEM: {e}")))?;
    let Some(end) = chain.first() else {
        return Err(cert("holds no certificate: expected `-----BEGIN CERTIFICATE-----`".to_owned()));
    };
    let end =
        webpki::EndEntityCert::try_from(end).map_err(|e| cert(format!("its first certificate can't be read: {e}")))?;
    let names: Vec<String> = end.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let pem = read(&pair.key_file).map_err(key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let locked = pem.windows(9).any(|part| part == b"ENCRYPTED");
        key(if locked {
            "the key is locked with a password: `openssl pkey -in KEY -out KEY.open` unlocks it".to_owned()
        } else {
            "holds no private key: expected `-----BEGIN PRIVATE KEY-----`".to_owned()
        })
    })?;
    let certified = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            key(format!("is not the key of the certificate in {}", pair.cert_file.display()))
        }
        other => key(format!("can't be used: {other}")),
    })?;
    Ok((Arc::new(certified), names))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let meta = fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!("has {} bytes, at most {FILE_BYTES_MAX} are read", meta.len()));
    }
    fs::read(path).map_err(failed)
}
