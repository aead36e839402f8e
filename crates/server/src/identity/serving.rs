//! The identity of a running gateway, which renews its certificate by itself (A15).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cipherwall_transport::tls::{self, TlsError};
use time::OffsetDateTime;

use super::{CertificateInfo, Identity, IdentityError};

/// How often the gateway looks whether a new certificate is due, and whether files have changed.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Keys and certificate in use. Connections that are there do not notice a new certificate; the
/// next handshake shows it.
pub struct Serving {
    inner: Mutex<Inner>,
}

struct Inner {
    identity: Identity,
    early_data: bool,
    tls: tls::ServerConfig,
}

impl Serving {
    /// Takes an identity into use; `early_data`: whether TLS early data is taken.
    ///
    /// # Errors
    /// The TLS library does not take key and certificate.
    pub fn new(identity: Identity, early_data: bool) -> Result<Serving, TlsError> {
        let tls = server_config(&identity, early_data)?;
        Ok(Serving { inner: Mutex::new(Inner { identity, early_data, tls }) })
    }

    /// The TLS settings of a handshake that begins now.
    pub fn tls(&self) -> tls::ServerConfig {
        self.lock().tls.clone()
    }

    /// Pins of the key in use and of the spare key.
    pub fn pins(&self) -> [[u8; 32]; 2] {
        self.lock().identity.pins()
    }

    /// Makes a new certificate with the same key.
    ///
    /// # Errors
    /// [`IdentityError`]; the old one stays in use.
    pub fn renew(&self, now: OffsetDateTime) -> Result<CertificateInfo, IdentityError> {
        let inner = &mut *self.lock();
        inner.identity.renew(now)?;
        match server_config(&inner.identity, inner.early_data) {
            Ok(tls) => inner.tls = tls,
            // it took the last one, and the key is the same
            Err(error) => tracing::error!(%error, "the new certificate is not used"),
        }
        inner.identity.describe()
    }

    /// Makes a new certificate if one is due.
    ///
    /// # Errors
    /// As [`Serving::renew`].
    pub fn renew_if_due(&self, now: OffsetDateTime) -> Result<(), IdentityError> {
        if !self.lock().identity.is_due(now) {
            return Ok(());
        }
        let info = self.renew(now)?;
        tracing::info!(path = %info.path.display(), "the certificate was renewed, with the same key");
        Ok(())
    }

    /// Takes a certificate from files that have changed.
    ///
    /// # Errors
    /// As [`Identity::reload_files`], or the TLS library does not take it; the old one stays in use.
    pub fn reload_files(&self) -> anyhow::Result<()> {
        let inner = &mut *self.lock();
        if inner.identity.reload_files()? {
            inner.tls = server_config(&inner.identity, inner.early_data)?;
            let info = inner.identity.describe()?;
            tracing::info!(path = %info.path.display(), "the certificate was read again");
        }
        Ok(())
    }

    /// Renews the certificate whenever one is due, for as long as the gateway runs. A task of its.
    pub async fn keep_fresh(&self) {
        let mut last_error = String::new();
        loop {
            let renewed = self.renew_if_due(OffsetDateTime::now_utc()).map_err(anyhow::Error::from);
            // clients go by the key, so the old one will do until there is room again
            let error = renewed.and_then(|()| self.reload_files()).err();
            let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
            if !error.is_empty() && error != last_error {
                tracing::error!("the certificate is not renewed: {error}");
            }
            last_error = error;
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server_config(identity: &Identity, early_data: bool) -> Result<tls::ServerConfig, TlsError> {
    let config = tls::ServerConfig::with_chain(identity.chain(), identity.private_key())?;
    Ok(if early_data { config.with_early_data() } else { config })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use cipherwall_transport::tls::ClientConfig;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A handshake of a client that accepts these keys.
    async fn handshake(serving: &Serving, pins: [[u8; 32]; 2]) -> bool {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = async {
            let tcp = TcpStream::connect(address).await.unwrap();
            let client = ClientConfig::new(pins.to_vec()).unwrap();
            client.handshake(tcp, "a.example").await.is_ok()
        };
        let gateway = async {
            let (tcp, _) = listener.accept().await.unwrap();
            serving.tls().handshake(tcp).await.is_ok()
        };
        let (client, gateway) = tokio::join!(client, gateway);
        client && gateway
    }

    #[tokio::test]
    async fn clients_come_in_before_and_after_a_renewal_at_any_clock() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, _) = Identity::init(dir.path(), "a.example").unwrap();
        let pins = identity.pins();
        let serving = Serving::new(identity, false).unwrap();
        assert!(handshake(&serving, pins).await);
        let now = OffsetDateTime::now_utc();
        for days in [0, 1, 244, 600, -366, -20_000] {
            let before = serving.lock().identity.certificate();
            let when = now + time::Duration::days(days);
            let due = serving.lock().identity.is_due(when);
            serving.renew_if_due(when).unwrap();
            assert_eq!(serving.lock().identity.certificate() != before, due, "{days}");
            assert_eq!(due, days.abs() > 1, "{days}");
            assert_eq!(serving.pins(), pins);
            assert!(handshake(&serving, pins).await, "{days}");
        }
        assert!(!handshake(&serving, [[1; 32]; 2]).await, "another key is not accepted");
    }
}
