//! Bad paths.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Direction, Lab, Link, Ping, Reorder, address};

use crate::Pair;

#[test]
fn losses_and_another_order_are_borne() -> Result<()> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let fast = Link { delay: Duration::from_millis(20), rate: Some(50_000_000), ..Link::default() };
    // 100 full packets take 24 ms
    let reorder = Some(Reorder { share: 0.05, delay: Duration::from_millis(24) });
    let emulator = lab.emulate(Link { reorder, ..fast }, Link { reorder, ..fast })?;
    lab.transfer(&pair.client.node, 4 << 20).context("in another order")?;
    let pinged = Ping::send(&pair.client.node, address::WEB.into(), 100)?;
    assert_eq!(pinged.received, 100, "nothing that is late is taken for a repetition");
    for direction in [Direction::Up, Direction::Down] {
        emulator.set(direction, Link { loss: 0.05, ..fast });
    }
    lab.transfer(&pair.client.node, 2 << 20).context("with losses")
}

/// No datagram is ever cut on the way, nor could it be: the network in between takes none that is
/// longer.
#[test]
fn no_datagram_is_fragmented() -> Result<()> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let ends = format!("{{ {}, {} }}", address::CARRIER, address::GATEWAY);
    let outside = format!("ip saddr {ends} ip daddr {ends} ip protocol udp");
    lab.internet.nft(&format!(
        "table inet fragments {{\n counter seen {{ }}\n counter cut {{ }}\n counter may {{ }}\n \
         chain c {{\n type filter hook prerouting priority -500;\n {outside} counter name seen\n \
         {outside} ip frag-off & 0x3fff != 0 counter name cut\n \
         {outside} ip frag-off & 0x4000 == 0 counter name may\n }}\n }}\n"
    ))?;
    lab.transfer(&pair.client.node, 4 << 20)?;
    let large = ["-s", "3000", "-M", "dont"];
    let pinged = Ping::send_with(&pair.client.node, address::WEB.into(), 5, &large)?;
    assert_eq!(pinged.received, 5, "packets that were cut inside");
    let counters = lab.internet.ok(&["nft", "list", "counters", "table", "inet", "fragments"])?;
    assert_eq!(
        counters.matches("packets 0 ").count(),
        2,
        "all but those that were seen: {counters}"
    );
    Ok(())
}

/// A path that takes less than usual: the owner gives `--mtu`, and everything passes.
#[test]
fn a_narrow_path_works_with_the_mtu_given_by_the_client_alone_for_tcp() -> Result<()> {
    let lab = Lab::new()?;
    lab.set_path_mtu(1_400)?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&[])?;
    pair.start_client(&["--mtu", "1320"])?;
    lab.transfer(&pair.client.node, 4 << 20)
}
