//! TLS: the certificate of a hub, and whose certificates a client trusts.
//!
//! Owns the settings of rustls. The cryptography is ring's, named in each setting, so that nothing is installed for
//! the whole process: an application may use rustls otherwise.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, Error as RustlsError, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::Connector;

use super::SyncError;
use super::files::{Reread, Watched};

/// The certificate that a hub shows, which may be replaced while it runs.
pub(crate) struct Certificate {
    current: RwLock<Arc<CertifiedKey>>,
    files: Option<Files>,
}

/// Where a certificate comes from.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    watched: Mutex<[Watched; 2]>,
}

impl Certificate {
    /// From PEM texts: the chain, the hub's own certificate first, and its private key.
    pub(crate) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, SyncError> {
        Ok(Self { current: RwLock::new(certified(certificate, key)?), files: None })
    }

    /// From PEM files, which are read again when they have changed.
    pub(crate) fn from_files(certificate: &Path, key: &Path) -> Result<Self, SyncError> {
        // Looked at before they are read: what changes meanwhile is read again.
        let watched = Mutex::new([Watched::new(certificate), Watched::new(key)]);
        let current = RwLock::new(read(certificate, key)?);
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned(), watched };
        Ok(Self { current, files: Some(files) })
    }

    /// Reads the files again if one has changed, and says whether it did. What cannot be used leaves the certificate as it
    /// was, and is tried again.
    pub(crate) fn reload(&self, reread: Reread) -> Result<bool, SyncError> {
        let Some(files) = &self.files else { return Ok(false) };
        let mut watched = files.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let now = watched.each_ref().map(Watched::look);
        let changed = watched.iter().zip(now).any(|(file, now)| file.has_changed(now));
        if reread == Reread::Changed && !changed {
            return Ok(false);
        }
        let certified = read(&files.certificate, &files.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified;
        watched.iter_mut().zip(now).for_each(|(file, now)| file.note_read(now));
        Ok(true)
    }

    /// What shakes hands with it.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, SyncError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        Ok(Arc::new(config).into())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret.
        f.write_str("Certificate")
    }
}

/// What a client dials with: it trusts the public authorities, or only those in `ca`, in PEM.
pub(super) fn connector(ca: Option<&[u8]>) -> Result<Connector, SyncError> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = certificate
                    .map_err(|error| error.to_string())
                    .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
                added.map_err(|reason| SyncError::BadCertificate { reason })?;
            }
            if roots.is_empty() {
                let reason = "the text has no certificate in PEM".to_owned();
                return Err(SyncError::BadCertificate { reason });
            }
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}

/// Why a dial failed, if TLS is why.
pub(super) fn reason(error: &std::io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<RustlsError>()?;
    let advice = match error {
        RustlsError::InvalidMessage(_) => {
            "it speaks no TLS there: connect with ws://, or have the hub serve TLS"
        }
        RustlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "nobody that is trusted here has signed the hub's certificate: name the authority that has"
        }
        RustlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the hub's certificate is for another name: connect to the name that is in it",
        RustlsError::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the hub's certificate has expired, or the clock here is wrong",
        _ => return Some(error.to_string()),
    };
    Some(format!("{advice}; {error}"))
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, SyncError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| SyncError::BadCertificate {
            reason: format!("{} cannot be read: {error}", path.display()),
        })
    };
    certified(&read(certificate)?, &read(key)?)
}

/// The chain and its key, which must belong together.
fn certified(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, SyncError> {
    let bad = |reason: String| SyncError::BadCertificate { reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| bad(format!("the certificate is no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(bad("the text has no certificate in PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| bad(format!("the private key is no key in PEM: {error}")))?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    certified.map(Arc::new).map_err(|error| bad(format!("certificate and key cannot be used: {error}")))
}

fn unusable(error: &RustlsError) -> SyncError {
    SyncError::BadCertificate { reason: error.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
