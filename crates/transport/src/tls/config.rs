//! The TLS settings of both ends.

use std::{io::Write, sync::Arc};

use cipherwall_proto::{
    keys::{EXPORTER_LABEL, Root},
    knock::Alpn,
};
use rustls::{
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::ServerSessionMemoryCache,
};

use super::{
    pin::{Pin, PinVerifier},
    stream::{TlsError, TlsStream},
};
use crate::Carrier;

/// A handshake that is complete.
pub struct Agreed {
    /// The root of all keys of the tunnel.
    pub root: Root,
    /// What the connection speaks until the switch.
    pub alpn: Alpn,
}

/// Tickets that a client keeps: those of one gateway, under one or two names.
const TICKETS_KEPT: usize = 16;
/// Tickets that a gateway keeps, the latest ones. Visitors of its web site get some, too; whose ticket
/// was forgotten makes a full handshake.
const TICKETS_GIVEN: usize = 8_192;

/// The early data that a gateway takes if it takes any, in bytes: as much as nginx.
const EARLY_DATA_MAX: u32 = 16_384;

/// What clients offer, and what a gateway chooses from: as browsers and nginx have it.
fn alpn_protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// TLS 1.3 suites, and the key exchanges X25519MLKEM768 (preferred) and X25519.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

/// The client's settings: which keys it accepts, and the tickets that it has from their holders.
/// Clones share the tickets.
///
/// A resumed handshake shows no certificate. It is bound to the pins all the same: tickets live and
/// die with these settings, so that each comes from a handshake in which the same pins were checked
/// and the gateway proved that it holds the key. Only that gateway's process knows the secret behind
/// the ticket, and shows by its Finished that it does. The key exchange is made anew each time.
#[derive(Clone)]
pub struct ClientConfig(Arc<rustls::ClientConfig>);

impl ClientConfig {
    /// Accepts a gateway that holds one of these keys, and no other.
    pub fn new(pins: Vec<Pin>) -> Result<Self, TlsError> {
        let provider = provider();
        let verifier = PinVerifier { pins, algorithms: provider.signature_verification_algorithms };
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = alpn_protocols();
        config.resumption = Resumption::in_memory_sessions(TICKETS_KEPT);
        Ok(Self(Arc::new(config)))
    }

    /// The handshake on a fresh connection; `name` is shown in it (SNI) unless it is an
    /// address. The caller sets a time limit.
    pub async fn handshake(
        &self,
        carrier: impl Into<Carrier>,
        name: &str,
    ) -> Result<(TlsStream, Agreed), TlsError> {
        let tls = rustls::ClientConnection::new(self.0.clone(), server_name(name)?)?;
        complete(TlsStream::new(carrier.into(), tls.into())).await
    }

    /// The same, with `early` as early data if there is a ticket that allows it. It can be replayed
    /// by whoever sees it, it may be lost, and nothing tells whether it was: it must not matter.
    pub async fn handshake_with_early_data(
        &self,
        carrier: impl Into<Carrier>,
        name: &str,
        early: &[u8],
    ) -> Result<(TlsStream, Agreed), TlsError> {
        let mut config = (*self.0).clone();
        config.enable_early_data = true;
        let mut tls = rustls::ClientConnection::new(Arc::new(config), server_name(name)?)?;
        if let Some(mut writer) = tls.early_data() {
            writer.write_all(early)?;
        }
        complete(TlsStream::new(carrier.into(), tls.into())).await
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
}

/// The gateway's settings: its certificate and key.
#[derive(Clone)]
pub struct ServerConfig(Arc<rustls::ServerConfig>);

impl ServerConfig {
    /// With this certificate and its private key.
    pub fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        Self::with_chain(vec![certificate], key)
    }

    /// With a certificate, those that lead to its root, and its private key.
    pub fn with_chain(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = alpn_protocols();
        // nginx takes these, too
        config.alpn_protocols.extend([b"http/1.0".to_vec(), b"http/0.9".to_vec()]);
        // Stateful tickets, each good for one use: no key that could be stolen opens them, and they
        // end with the process. No early data, unless asked for.
        config.session_storage = ServerSessionMemoryCache::new(TICKETS_GIVEN);
        config.send_tls13_tickets = 2;
        Ok(Self(Arc::new(config)))
    }

    /// Takes early data, and says so in the tickets: what comes with the first use of a ticket.
    #[must_use]
    pub fn with_early_data(mut self) -> Self {
        Arc::make_mut(&mut self.0).max_early_data_size = EARLY_DATA_MAX;
        self
    }

    /// The handshake on an accepted connection. The caller sets a time limit. What comes as early
    /// data is read first.
    pub async fn handshake(
        &self,
        carrier: impl Into<Carrier>,
    ) -> Result<(TlsStream, Agreed), TlsError> {
        self.handshake_with_early_data(carrier, |_| 0).await
    }

    /// The same. `on_early` sees the early data whenever more of it has come, while the handshake
    /// is under way, and says how many bytes at its beginning are not to be read by anybody else.
    pub async fn handshake_with_early_data(
        &self,
        carrier: impl Into<Carrier>,
        on_early: impl FnMut(&[u8]) -> usize,
    ) -> Result<(TlsStream, Agreed), TlsError> {
        let tls = rustls::ServerConnection::new(self.0.clone())?;
        let mut stream = TlsStream::new(carrier.into(), tls.into());
        stream.handshake(on_early).await?;
        agreed(stream)
    }
}

async fn complete(mut stream: TlsStream) -> Result<(TlsStream, Agreed), TlsError> {
    stream.handshake(|_| 0).await?;
    agreed(stream)
}

fn agreed(stream: TlsStream) -> Result<(TlsStream, Agreed), TlsError> {
    let root = stream.tls().export_keying_material([0; 32], EXPORTER_LABEL, None)?;
    let alpn = Alpn::from_name(stream.tls().alpn_protocol());
    Ok((stream, Agreed { root: Root(root), alpn }))
}

#[cfg(test)]
mod tests;
