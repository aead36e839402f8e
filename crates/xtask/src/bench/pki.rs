//! Throw-away certificates for the peers.

use std::path::Path;

use anyhow::{Context, Result};
use e2e::{Node, address};

/// A self-signed certificate with its key, as PEM files.
pub(crate) struct Certificate {
    pub(crate) key: String,
    pub(crate) certificate: String,
    /// SHA-256 of the certificate, in hexadecimal digits with colons.
    pub(crate) fingerprint: String,
    /// SHA-256 of the public key, in base64.
    pub(crate) pin: String,
}

/// Makes `NAME.key` and `NAME.crt` in `dir`, for the gateway's address.
pub(crate) fn make(node: &Node, dir: &Path, name: &str) -> Result<Certificate> {
    let path = |ending: &str| dir.join(format!("{name}.{ending}")).display().to_string();
    let (key, certificate) = (path("key"), path("crt"));
    let subject = format!("/CN={name}.lab.test");
    let address = format!("subjectAltName=IP:{}", address::GATEWAY);
    let mut words = vec!["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"];
    words.extend(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &subject]);
    words.extend(["-addext", &address, "-keyout", &key, "-out", &certificate]);
    node.ok(&words)?;
    let words = ["openssl", "x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"];
    let line = node.ok(&words)?;
    let (_, fingerprint) = line.trim().split_once('=').context("openssl shows no fingerprint")?;
    let pin = node.ok(&[
        "sh",
        "-c",
        "openssl x509 -in \"$1\" -pubkey -noout | openssl pkey -pubin -outform der \
         | openssl dgst -sha256 -binary | base64",
        "sh",
        &certificate,
    ])?;
    let (fingerprint, pin) = (fingerprint.to_owned(), pin.trim().to_owned());
    Ok(Certificate { key, certificate, fingerprint, pin })
}
