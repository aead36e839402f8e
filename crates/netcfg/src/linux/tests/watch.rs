//! What is noticed of changes of the host's network.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::sandbox::{run, sh};
use crate::{MARK_DEFAULT, NetworkPath, NetworkWatch};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn links_addresses_and_routes_on_the_way_to_the_gateway_are_noticed() {
    run(
        "linux::tests::watch::links_addresses_and_routes_on_the_way_to_the_gateway_are_noticed",
        || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(story());
        },
    );
}

async fn story() {
    let gateway: IpAddr = "203.0.113.9".parse().unwrap();
    let gateway_v6: IpAddr = "2001:db8::9".parse().unwrap();
    let mut watch = NetworkWatch::open().unwrap();
    assert_eq!(watch.path(gateway, MARK_DEFAULT).await, None, "no route");

    sh("ip link add wifi type veth peer name far && ip link set far up && ip link set wifi up && \
        ip addr add 192.168.1.2/24 dev wifi && ip route add default via 192.168.1.1 metric 600 && \
        ip -6 addr add 2001:db8:1::2/64 dev wifi nodad && \
        ip -6 route add default via 2001:db8:1::1");
    let wifi = after_change(&mut watch, gateway).await.unwrap();
    assert_eq!(wifi.router, Some("192.168.1.1".parse().unwrap()));
    assert_eq!(wifi.source, Some("192.168.1.2".parse().unwrap()));
    assert!(wifi.carrier);
    let v6 = watch.path(gateway_v6, MARK_DEFAULT).await.unwrap();
    assert_eq!(v6.router, Some("2001:db8:1::1".parse().unwrap()));
    assert_eq!(v6.source, Some("2001:db8:1::2".parse().unwrap()));

    assert_eq!(watch.router_hardware(&wifi).await, None, "not known yet");
    sh("ip neigh replace 192.168.1.1 lladdr 02:00:00:00:00:07 dev wifi && \
        ip neigh replace 192.168.1.9 lladdr 02:00:00:00:00:09 dev wifi && \
        ip neigh replace 2001:db8:1::1 lladdr 02:00:00:00:00:06 dev wifi");
    assert_eq!(watch.router_hardware(&wifi).await, Some(vec![2, 0, 0, 0, 0, 7]));
    assert_eq!(watch.router_hardware(&v6).await, Some(vec![2, 0, 0, 0, 0, 6]));

    sh("ip link set far down");
    let cut = after_change(&mut watch, gateway).await.unwrap();
    assert_eq!(cut, NetworkPath { carrier: false, ..wifi.clone() });
    sh("ip link set far up");
    assert_eq!(after_change(&mut watch, gateway).await, Some(wifi.clone()));

    sh("ip link add cable type veth peer name hub && ip link set hub up && \
        ip link set cable up && ip addr add 10.1.1.2/24 dev cable");
    assert_eq!(after_change(&mut watch, gateway).await, Some(wifi.clone()), "not on the way");
    sh("ip route add default via 10.1.1.1 metric 100");
    let cable = after_change(&mut watch, gateway).await.unwrap();
    assert_eq!(cable.source, Some("10.1.1.2".parse().unwrap()));
    assert_ne!(cable.interface, wifi.interface);

    // a route of the tunnel, which our own packets do not take
    sh("ip rule add not fwmark 0x6377 table 77 && ip route add 0.0.0.0/1 dev lo table 77 && \
        ip route add 128.0.0.0/1 dev lo table 77");
    assert_eq!(watch.path(gateway, MARK_DEFAULT).await, Some(cable));
    sh("ip link set cable down && ip link set wifi down");
    assert_eq!(after_change(&mut watch, gateway).await, None);
}

async fn after_change(watch: &mut NetworkWatch, to: IpAddr) -> Option<NetworkPath> {
    // however often its user looks after something else
    let start = Instant::now();
    while timeout(Duration::from_millis(3), watch.changed()).await.is_err() {
        assert!(start.elapsed() < SOON, "a change is noticed");
    }
    let path = watch.path(to, MARK_DEFAULT).await;
    // nothing is left over for the next step
    while timeout(Duration::from_millis(300), watch.changed()).await.is_ok() {}
    path
}
