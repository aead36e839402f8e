//! The TLS settings of both ends.

use std::sync::Arc;

use cipherwall_proto::{
    keys::{EXPORTER_LABEL, Root},
    knock::Alpn,
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::net::TcpStream;

use super::{
    pin::{Pin, PinVerifier},
    stream::{TlsError, TlsStream},
};

/// A handshake that is complete.
pub struct Agreed {
    /// The root of all keys of the tunnel.
    pub root: Root,
    /// What the connection speaks until the switch.
    pub alpn: Alpn,
}

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

/// The client's settings: which keys it accepts.
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
        // tickets come back with resumption; until then they would only tie connections together
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The handshake on a fresh TCP connection; `name` is shown in it (SNI) unless it is an
    /// address. The caller sets a time limit.
    pub async fn handshake(
        &self,
        tcp: TcpStream,
        name: &str,
    ) -> Result<(TlsStream, Agreed), TlsError> {
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let tls = rustls::ClientConnection::new(self.0.clone(), name)?;
        complete(TlsStream::new(tcp, tls.into())).await
    }
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
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = alpn_protocols();
        Ok(Self(Arc::new(config)))
    }

    /// The handshake on an accepted TCP connection. The caller sets a time limit.
    pub async fn handshake(&self, tcp: TcpStream) -> Result<(TlsStream, Agreed), TlsError> {
        let tls = rustls::ServerConnection::new(self.0.clone())?;
        complete(TlsStream::new(tcp, tls.into())).await
    }
}

async fn complete(mut stream: TlsStream) -> Result<(TlsStream, Agreed), TlsError> {
    stream.handshake().await?;
    let root = stream.tls().export_keying_material([0; 32], EXPORTER_LABEL, None)?;
    let alpn = Alpn::from_name(stream.tls().alpn_protocol());
    Ok((stream, Agreed { root: Root(root), alpn }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::{NamedGroup, ProtocolVersion, crypto::SupportedKxGroup};

    use super::*;
    use crate::tls::spki_pin;

    fn server() -> (ServerConfig, Pin) {
        let signed = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
        let certificate = CertificateDer::from(signed.cert.der().to_vec());
        let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
        let pin = spki_pin(&certificate).unwrap();
        (ServerConfig::new(certificate, key).unwrap(), pin)
    }

    /// Passes bytes between both ends until the handshake is complete or fails.
    fn handshake(
        client: rustls::ClientConfig,
        server: ServerConfig,
    ) -> Result<rustls::Connection, rustls::Error> {
        let name = ServerName::try_from("gateway.test").unwrap();
        let mut client: rustls::Connection =
            rustls::ClientConnection::new(Arc::new(client), name)?.into();
        let mut server: rustls::Connection = rustls::ServerConnection::new(server.0)?.into();
        for _ in 0..4 {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
        }
        client.writer().write_all(b"hello").unwrap();
        pass(&mut client, &mut server)?;
        let mut got = [0; 5];
        server.reader().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        Ok(client)
    }

    fn pass(
        from: &mut rustls::Connection,
        to: &mut rustls::Connection,
    ) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    fn client(pin: Pin, groups: &[&'static dyn SupportedKxGroup]) -> rustls::ClientConfig {
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..(*provider()).clone() };
        let algorithms = provider.signature_verification_algorithms;
        rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier { pins: vec![pin], algorithms }))
            .with_no_client_auth()
    }

    /// C9, A1.
    #[test]
    fn our_own_ends_agree_on_the_hybrid_key_exchange_and_h2() {
        let (server, pin) = server();
        let ours = ClientConfig::new(vec![pin]).unwrap();
        let connection = handshake((*ours.0).clone(), server).unwrap();
        let group = connection.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    }

    #[test]
    fn x25519_alone_is_accepted_and_nothing_older() {
        let (server, pin) = server();
        let x25519 = handshake(client(pin, &[aws_lc_rs::kx_group::X25519]), server.clone());
        assert!(x25519.is_ok());
        let p256 = handshake(client(pin, &[aws_lc_rs::kx_group::SECP256R1]), server);
        assert!(p256.is_err());
    }
}
