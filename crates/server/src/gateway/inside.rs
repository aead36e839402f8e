//! What clients find on the gateway's inner addresses.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;

use super::Gateway;
use crate::dns::{Forwarder, host_resolvers};

/// The forwarder on the inner addresses.
pub(super) fn start_dns(gateway: &Gateway) -> anyhow::Result<Forwarder> {
    let pool = gateway.accounts.pool();
    let mut upstreams = gateway.config.dns.upstreams.clone();
    if upstreams.is_empty() {
        let text = std::fs::read_to_string(super::RESOLV_CONF).unwrap_or_default();
        upstreams = host_resolvers(&text);
    }
    let listen: [IpAddr; 2] = [pool.gateway_v4().into(), pool.gateway_v6().into()];
    Forwarder::start(listen.to_vec(), upstreams).context("the DNS forwarder")
}

/// The speed test on the inner addresses. The gateway can do without.
pub(super) fn start_speed_test(gateway: &Gateway) -> Option<cipherwall_speedtest::Server> {
    let pool = *gateway.accounts.pool();
    let port = gateway.config.speedtest?;
    let listen = [
        SocketAddr::new(pool.gateway_v4().into(), port),
        SocketAddr::new(pool.gateway_v6().into(), port),
    ];
    let owner = move |address| match address {
        IpAddr::V4(v4) => pool.mirror(v4).into(),
        IpAddr::V6(_) => address,
    };
    cipherwall_speedtest::Server::start(&listen, owner)
        .inspect_err(|error| tracing::warn!("the speed test is off: {error}"))
        .ok()
}
