//! From where datagrams are sent: answers come from the address that the client has sent to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::udp::UdpSocket;

/// The present address of the other end, the one before, and one on trial.
const KNOWN: usize = 3;

/// A socket, and the own address that datagrams leave from.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) socket: Arc<UdpSocket>,
    /// The own address; none: the system chooses.
    pub(super) address: Option<IpAddr>,
}

/// How each address of the other end is reached.
#[derive(Debug)]
pub(super) enum Homes {
    /// A client's socket reaches all.
    One(Home),
    /// A gateway learns from what comes. The newest first.
    Learned(Vec<(SocketAddr, Home)>),
}

impl Homes {
    /// Another socket from now on: a client's.
    pub(super) fn replace(&mut self, socket: Arc<UdpSocket>) {
        *self = Homes::One(Home { socket, address: None });
    }

    /// Something authentic has come from there to here.
    pub(super) fn learn(&mut self, from: SocketAddr, socket: &Arc<UdpSocket>, to: Option<IpAddr>) {
        let Homes::Learned(known) = self else { return };
        let is_same = |(first, home): &(SocketAddr, Home)| {
            *first == from && home.address == to && Arc::ptr_eq(&home.socket, socket)
        };
        if known.first().is_some_and(is_same) {
            return;
        }
        known.retain(|(known, _)| *known != from);
        known.truncate(KNOWN - 1);
        known.insert(0, (from, Home { socket: socket.clone(), address: to }));
    }

    /// How this address is reached.
    pub(super) fn find(&self, to: SocketAddr) -> Option<Home> {
        match self {
            Homes::One(home) => Some(home.clone()),
            Homes::Learned(known) => {
                known.iter().find(|(known, _)| *known == to).map(|(_, home)| home.clone())
            }
        }
    }
}
