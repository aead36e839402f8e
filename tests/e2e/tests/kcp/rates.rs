//! What KCP makes of bad paths, and what it leaves to others. Rates are stated: a busy machine has other
//! ones. `crates/proto/tests/kcp` asserts them on a virtual clock, and `cargo xtask bench kcp` measures.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use e2e::{
    ClientNode, Download, GatewayNode, Lab, Link, Options, Programs, Stream, Transport, address,
    figure, full_or_short,
};

#[test]
fn a_slow_lossy_long_path_carries_a_file() -> Result<()> {
    let lab = Lab::new()?;
    let (_gateway, client) = crate::connected(&lab, &[])?;
    let lossy = Link { loss: 0.03, ..Link::BAD };
    let _lossy = lab.emulate(lossy, lossy)?;
    let size = full_or_short(60, 4) << 20;
    let sent = lab.make_download("file", size)?;
    let started = Instant::now();
    let download = Download::start(&client.node, address::WEB, "file")?;
    assert_eq!(download.finish(Duration::from_secs(80))?, sent, "SHA-256 of the download");
    let rate = size as f64 * 8.0 / started.elapsed().as_secs_f64();
    figure("download at 20 Mbit/s, 200 ms, 3% lost", rate / 1e6, "Mbit/s");
    Ok(())
}

#[test]
fn two_clients_leave_a_tcp_flow_a_share_of_the_line() -> Result<()> {
    let lab = Lab::with(Options { clients: 3, ..Options::default() })?;
    let programs = Programs::find()?.over(Transport::Kcp);
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let clients = [(0, "alice"), (1, "bob")]
        .map(|(index, user)| ClientNode::connect_new(&lab, index, &programs, &gateway, user));
    let clients = clients.into_iter().collect::<Result<Vec<_>>>()?;
    lab.make_download("file", 1 << 30)?;
    let _iperf3 = lab.start_iperf3()?;
    let shared = Link { loss: 0.0, delay: Duration::from_millis(20), ..Link::BAD };
    let _shared = lab.emulate(shared, shared)?;
    let _downloads = clients
        .iter()
        .map(|client| Download::start(&client.node, address::WEB, "file"))
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_secs(3));
    let received = || -> Result<Vec<u64>> {
        clients.iter().map(|client| Ok(client.status()?.rx_bytes)).collect()
    };
    let (before, started) = (received()?, Instant::now());
    let seconds = u32::try_from(full_or_short(60, 12))?;
    let (tcp, _) = Stream::Down.run(&lab.clients[2], address::WEB.into(), seconds)?;
    let elapsed = started.elapsed().as_secs_f64();
    figure("a TCP flow beside two over KCP", tcp / 1e6, "Mbit/s");
    let mut all = tcp;
    for (before, after) in before.into_iter().zip(received()?) {
        let rate = (after - before) as f64 * 8.0 / elapsed;
        figure("one of them", rate / 1e6, "Mbit/s");
        all += rate;
    }
    // a third each would be even
    assert!(tcp > all / 15.0, "TCP got {tcp} of {all} bit/s");
    Ok(())
}
