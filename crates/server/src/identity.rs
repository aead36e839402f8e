//! The gateway's keys (A15, design 3.1): an ECDSA P-256 key with a self-signed certificate of one
//! year, and a spare key that is in no use. Clients pin both public keys, so that the certificate
//! can be made anew at any time, and the spare can take over, without breaking anybody. No clock
//! decides more than when that happens.

mod files;
mod serving;

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

const KEY_FILE: &str = "gateway.key";
const SPARE_KEY_FILE: &str = "spare.key";
const CERTIFICATE_FILE: &str = "gateway.crt";
/// Validity of a certificate (A15).
const VALID: Duration = Duration::days(365);

pub use serving::Serving;

use crate::config;
use files::Files;

/// The keys and the certificate of a gateway.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    certificate_path: PathBuf,
    host: String,
    pins: [[u8; 32]; 2],
    /// In place of the gateway's own certificate, if there are any.
    files: Option<Files>,
}

/// What `cert show` says of the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// The file.
    pub path: PathBuf,
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// Unix s.
    pub not_before: i64,
    /// Unix s.
    pub not_after: i64,
    /// From when on the gateway makes a new one, two thirds of the way; Unix s. None: somebody else
    /// renews it.
    pub renews: Option<i64>,
}

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// "read" or "write".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none yet.
    #[error(
        "{path} is missing; restore it from a backup, or run `cipherwall-server init --endpoint \
         HOST[:PORT]` for a new one (clients then need new invitations)", path = path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error(
        "{path} is damaged ({detail}); restore it from a backup, or move it away and run \
         `cipherwall-server init` again (clients then need new invitations)", path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A configured file holds something else.
    #[error("{path}: {detail}; put a certificate or key in PEM there, or take `certificate` out of \
         server.yaml", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A configured certificate is for a key that clients do not accept.
    #[error(
        "{path} is for another key than the one that clients know this gateway by; have it made for \
         that key (`cipherwall-server cert request`), or name its own as `certificate.key` in \
         server.yaml and start anew (clients then need new invitations)", path = path.display()
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// A configured certificate is renewed by somebody else.
    #[error("the certificate is from {path}: renew it there, and the gateway reads it again by itself",
         path = path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Making a key or certificate failed.
    #[error("cannot make a key or certificate")]
    Crypto(#[from] rcgen::Error),
}

impl IdentityError {
    /// Whether the caller lacks rights (exit code 3) rather than anything being wrong.
    pub fn is_not_permitted(&self) -> bool {
        match self {
            IdentityError::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            IdentityError::Missing { .. }
            | IdentityError::Damaged { .. }
            | IdentityError::Unusable { .. }
            | IdentityError::OtherKey { .. }
            | IdentityError::NotOurs { .. }
            | IdentityError::Crypto(_) => false,
        }
    }
}

impl Identity {
    /// Makes the keys that are missing, keeps those that are there, and loads all. Returns
    /// whether the gateway key is new.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn init(state_dir: &Path, host: &str) -> Result<(Identity, bool), IdentityError> {
        let mut new = false;
        for name in [KEY_FILE, SPARE_KEY_FILE] {
            let path = state_dir.join(name);
            if !path.exists() {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                write_private(&path, &key.serialize_pem())?;
                new |= name == KEY_FILE;
            }
        }
        Ok((Identity::load(state_dir, host)?, new))
    }

    /// Loads the keys and the certificate, and makes the certificate anew if it is missing or for
    /// another key or host. One that is merely to be renewed stays: that is [`Serving`]'s task.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn load(state_dir: &Path, host: &str) -> Result<Identity, IdentityError> {
        let key = read_key(&state_dir.join(KEY_FILE))?;
        let spare = read_key(&state_dir.join(SPARE_KEY_FILE))?;
        let certificate_path = state_dir.join(CERTIFICATE_FILE);
        let pins = [pin(&key), pin(&spare)];
        let certificate = CertificateDer::from_pem_file(&certificate_path)
            .ok()
            .filter(|certificate| is_for(certificate, &key, host));
        let missing = certificate.is_none();
        let host = host.to_owned();
        let certificate = certificate.unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let mut identity = Identity { key, certificate, certificate_path, host, pins, files: None };
        // Whatever was there instead: nothing depends on a certificate of ours but its key.
        if missing {
            identity.renew(OffsetDateTime::now_utc())?;
        }
        Ok(identity)
    }

    /// With a certificate from files in place of its own, if any is configured.
    ///
    /// # Errors
    /// They cannot be read, or the certificate is for another key than it should be.
    pub fn with_files(
        mut self,
        config: Option<&config::Certificate>,
    ) -> Result<Identity, IdentityError> {
        let Some(config) = config else { return Ok(self) };
        let files = Files::load(config)?;
        let pin = files.pin()?;
        if files.key.is_some() {
            self.pins[0] = pin;
        }
        self.take_files(files)?;
        Ok(self)
    }

    /// Reads the files again if they have changed; whether they have.
    ///
    /// # Errors
    /// As [`Identity::with_files`]; the old certificate stays.
    pub fn reload_files(&mut self) -> Result<bool, IdentityError> {
        let Some(files) = &mut self.files else { return Ok(false) };
        let Some(files) = files.load_if_changed()? else { return Ok(false) };
        self.take_files(files).map(|()| true)
    }

    fn take_files(&mut self, files: Files) -> Result<(), IdentityError> {
        if files.pin()? != self.pins[0] {
            return Err(IdentityError::other_key(files.path()));
        }
        self.files = Some(files);
        Ok(())
    }

    /// A request for a certificate of the gateway's own key, for a certificate authority; PEM.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`]
    pub fn request(&self, names: Vec<String>) -> Result<String, IdentityError> {
        let mut params = CertificateParams::new(names.clone())?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, names.first().unwrap_or(&self.host).as_str());
        params.distinguished_name = subject;
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// The host that the certificate is for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Makes a new certificate with the same key, and keeps it.
    ///
    /// # Errors
    /// [`IdentityError`]; the old certificate is still there then.
    pub fn renew(&mut self, now: OffsetDateTime) -> Result<(), IdentityError> {
        if let Some(files) = &self.files {
            return Err(IdentityError::not_ours(files.path()));
        }
        let certificate = make_certificate(&self.key, &self.host, now)?;
        write_private(&self.certificate_path, &certificate.pem())?;
        self.certificate = certificate.der().clone();
        Ok(())
    }

    /// Whether the certificate has come so far that a new one is due. One that is not valid yet
    /// was made while the clock was wrong.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        let now = now.unix_timestamp();
        let is_due = |info: CertificateInfo| {
            info.renews.is_some_and(|renews| now < info.not_before || now >= renews)
        };
        self.describe().map_or(self.files.is_none(), is_due)
    }

    /// SHA-256 of the public keys (SPKI, DER) that clients accept: the one in use and the spare.
    pub fn pins(&self) -> [[u8; 32]; 2] {
        self.pins
    }

    /// For the TLS library.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.files.as_ref().map_or_else(|| self.certificate.clone(), Files::leaf)
    }

    /// The certificate, and those that lead to its root.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let files = self.files.as_ref();
        files.map_or_else(|| vec![self.certificate.clone()], |files| files.chain.clone())
    }

    /// For the TLS library.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        if let Some(key) = self.files.as_ref().and_then(|files| files.key.as_ref()) {
            return key.clone_key();
        }
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// What is in the certificate.
    ///
    /// # Errors
    /// None for a certificate that was made or checked here.
    pub fn describe(&self) -> Result<CertificateInfo, IdentityError> {
        let own_path = self.certificate_path.as_path();
        let path = self.files.as_ref().map_or(own_path, Files::path).to_owned();
        let der = self.certificate();
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| {
            IdentityError::Damaged { path: path.clone(), detail: error.to_string() }
        })?;
        let validity = certificate.validity();
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        let is_own = self.files.is_none();
        let renews = is_own.then_some(not_before + (not_after - not_before) / 3 * 2);
        Ok(CertificateInfo { path, names: names(&certificate), not_before, not_after, renews })
    }
}

fn pin(key: &KeyPair) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}

/// A certificate with nothing in it that tells it from any other web server's.
fn make_certificate(
    key: &KeyPair,
    host: &str,
    now: OffsetDateTime,
) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::new([host.to_owned()])?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, host);
    params.distinguished_name = subject;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive and of full length: RFC 5280, section 4.1.2.2.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // For clocks that are a little late.
    params.not_before = now - Duration::days(1);
    params.not_after = params.not_before + VALID;
    params.self_signed(key)
}

fn is_for(certificate: &[u8], key: &KeyPair, host: &str) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    certificate.public_key().raw == key.subject_public_key_info()
        && names(&certificate).iter().any(|name| name == host)
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    #[allow(clippy::wildcard_enum_match_arm)] // we make only these two
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    let v6 =
        || <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
    v4.or_else(|_| v6()).ok()
}

fn read_key(path: &Path) -> Result<KeyPair, IdentityError> {
    let pem = match std::fs::read_to_string(path) {
        Ok(pem) => zeroize::Zeroizing::new(pem),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::Missing { path: path.to_owned() });
        }
        Err(source) => {
            return Err(IdentityError::Io { doing: "read", path: path.to_owned(), source });
        }
    };
    KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256).map_err(|error| {
        IdentityError::Damaged { path: path.to_owned(), detail: error.to_string() }
    })
}

/// Writes a file for root only, whole or not at all.
fn write_private(path: &Path, content: &str) -> Result<(), IdentityError> {
    let new_path = path.with_extension("new");
    let written = || -> io::Result<()> {
        match std::fs::remove_file(&new_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new_path)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new_path, path)
    };
    written().map_err(|source| IdentityError::Io { doing: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
