//! Datagrams beside a connection: what is asked for, and the client's end of what is offered.

use std::{io, net::SocketAddr, sync::Arc};

use cipherwall_proto::{
    cipher::DatagramCipher,
    datagram::{self, KEEPALIVE, Masks},
    message::Welcome,
};
use cipherwall_transport::{
    datagram::{Channel, Start},
    socket::SocketFactory,
    udp::UdpSocket,
};

use super::Dialer;
use crate::profile::Session;

/// The client's end of a connection's datagrams.
pub(crate) struct Datagrams {
    /// What seals and opens them.
    pub(crate) channel: Arc<Channel>,
    /// Where they come to now.
    pub(crate) socket: Arc<UdpSocket>,
    /// Where the gateway takes them.
    pub(crate) gateway: SocketAddr,
    factory: SocketFactory,
}

impl Datagrams {
    /// Another socket, since the way to the gateway may be another one.
    pub(crate) fn rebind(&mut self) -> io::Result<()> {
        self.socket = Arc::new(self.factory.udp_for(self.gateway)?);
        Ok(())
    }
}

impl Dialer {
    /// Asks for datagrams with one of these ciphers, best first; with none of them, for none.
    pub(crate) fn with_datagrams(self, datagrams: Vec<DatagramCipher>) -> Self {
        Self { datagrams, ..self }
    }

    /// What a resume asks for: the cipher has to be known before the answer.
    pub(super) fn resumed_datagrams(&self, session: &Session) -> Vec<DatagramCipher> {
        let before = session.datagram_cipher();
        let same = before.filter(|cipher| self.datagrams.contains(cipher));
        same.or(self.datagrams.first().copied()).into_iter().collect()
    }

    /// The datagrams beside a connection to this address, if the gateway offers any. The client can
    /// do without.
    pub(super) fn datagrams(
        &self,
        channel: Option<datagram::Channel>,
        welcome: &Welcome,
        address: SocketAddr,
    ) -> Option<Datagrams> {
        let (channel, offer) = (channel?, welcome.datagram.as_ref()?);
        let gateway = SocketAddr::new(address.ip(), offer.port);
        let open = || -> io::Result<Datagrams> {
            let socket = Arc::new(self.factory.udp_for(gateway)?);
            let masks = Masks::new(&offer.mask_key.into_array());
            let client = Some((socket.clone(), gateway));
            let (inner_mtu, keepalive) = (welcome.mtu, KEEPALIVE);
            let channel = Channel::new(Start { channel, masks, client, inner_mtu, keepalive })?;
            Ok(Datagrams { channel, socket, gateway, factory: self.factory })
        };
        open().inspect_err(|error| tracing::warn!(%error, "no socket for datagrams")).ok()
    }
}
