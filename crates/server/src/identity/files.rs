//! A certificate from files, which somebody else renews.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::IdentityError;
use crate::config;

/// What is in the files.
pub(super) struct Files {
    config: config::Certificate,
    /// The certificate, and those that lead to its root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// None: the gateway's own.
    pub(super) key: Option<PrivateKeyDer<'static>>,
    stamps: [Option<Stamp>; 2],
}

/// By which a file is known to have changed: inode, length, time.
type Stamp = (u64, u64, i64, i64);

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// They cannot be read, or hold something else.
    pub(super) fn load(config: &config::Certificate) -> Result<Self, IdentityError> {
        let stamps = stamps(config);
        let chain = CertificateDer::pem_file_iter(&config.file).and_then(Iterator::collect);
        let chain: Vec<_> = chain.map_err(|error| unreadable(&config.file, error))?;
        let key = config.key.as_ref().map(|path| {
            PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, error))
        });
        let files = Self { config: config.clone(), chain, key: key.transpose()?, stamps };
        files.pin().map(|_| files)
    }

    /// The same files, if they have changed.
    ///
    /// # Errors
    /// As [`Files::load`].
    pub(super) fn load_if_changed(&mut self) -> Result<Option<Self>, IdentityError> {
        let stamps = stamps(&self.config);
        if stamps == self.stamps {
            return Ok(None);
        }
        // what is wrong is said once
        self.stamps = stamps;
        Files::load(&self.config).map(Some)
    }

    /// Where the certificate is.
    pub(super) fn path(&self) -> &Path {
        &self.config.file
    }

    /// The certificate itself.
    pub(super) fn leaf(&self) -> CertificateDer<'static> {
        self.chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// SHA-256 of its public key (SPKI, DER).
    pub(super) fn pin(&self) -> Result<[u8; 32], IdentityError> {
        let leaf = self.leaf();
        let parsed = X509Certificate::from_der(&leaf);
        let (_, certificate) = parsed.map_err(|error| IdentityError::Unusable {
            path: self.config.file.clone(),
            detail: format!("no certificate: {error}"),
        })?;
        Ok(Sha256::digest(certificate.public_key().raw).into())
    }
}

fn stamps(config: &config::Certificate) -> [Option<Stamp>; 2] {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    [stamp(&config.file), config.key.as_ref().and_then(stamp)]
}

fn unreadable(path: &Path, error: pem::Error) -> IdentityError {
    let path = path.to_owned();
    if let pem::Error::Io(source) = error {
        return IdentityError::Io { doing: "read", path, source };
    }
    IdentityError::Unusable { path, detail: error.to_string() }
}

impl IdentityError {
    /// A certificate for a key that the clients do not know.
    pub(super) fn other_key(path: &Path) -> Self {
        IdentityError::OtherKey { path: path.to_owned() }
    }

    /// The files cannot be renewed from here.
    pub(super) fn not_ours(path: &Path) -> Self {
        IdentityError::NotOurs { path: path.to_owned() }
    }
}
