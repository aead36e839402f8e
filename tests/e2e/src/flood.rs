//! A download while somebody floods the gateway with forged datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::node::Node;
use crate::soak::{figure, full_or_short};
use crate::tools::Page;

/// The web host's file, as made by [`Lab::make_download`].
const NAME: &str = "file";
const URL: &str = "http://198.51.100.80/file";

/// Downloads through `client`'s tunnel again and again, unchanged each time, while forged datagrams
/// come to `gateway` at a million a minute: every other one with the beginning of the one that `real`
/// gives, which has passed by then, so that its session has to look at it. A minute in a full run.
pub fn download_in_a_flood(
    lab: &Lab,
    client: &Node,
    gateway: SocketAddr,
    real: impl FnOnce() -> Option<Vec<u8>>,
) -> Result<()> {
    let sent = lab.make_download(NAME, full_or_short(1_024, 32) << 20)?;
    let (page, _) = Page::download(client, URL)?;
    figure("download without the flood", page.rate * 8.0 / 1e6, "Mbit/s");
    let real = real().context("nothing has passed")?;
    let stop = AtomicBool::new(false);
    let flooded = std::thread::scope(|scope| -> Result<u64> {
        let flooding = scope.spawn(|| flood(&lab.internet, gateway, &real, &stop));
        let downloaded = downloads(client, &sent);
        stop.store(true, Ordering::Relaxed);
        let flooded = flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        downloaded.and(flooded)
    })?;
    figure("forged datagrams", flooded as f64, "");
    ensure!(flooded > full_or_short(900_000, 50_000), "{flooded} forged datagrams are no flood");
    Ok(())
}

fn downloads(client: &Node, sent: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(full_or_short(60, 6));
    while Instant::now() < end {
        let (page, received) = Page::download(client, URL)?;
        ensure!(received == sent, "SHA-256 of a download in the flood: {received}, not {sent}");
        figure("download in the flood", page.rate * 8.0 / 1e6, "Mbit/s");
    }
    Ok(())
}

fn flood(node: &Node, gateway: SocketAddr, real: &[u8], stop: &AtomicBool) -> Result<u64> {
    node.enter_network()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut chance = fastrand::Rng::with_seed(1);
    let mut forged = real.to_vec();
    let (start, mut sent) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        while sent * 60 < start.elapsed().as_millis() as u64 * 1_000 {
            if sent.is_multiple_of(2) {
                forged.copy_from_slice(real);
                let (last, _) = forged.split_last_mut().context("nothing has passed")?;
                *last ^= chance.u8(1..);
            } else {
                chance.fill(&mut forged);
            }
            // a full socket loses some, which does no harm
            let _ = socket.send_to(&forged, gateway);
            sent += 1;
        }
        sleep(Duration::from_millis(1));
    }
    Ok(sent)
}
