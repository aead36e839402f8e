//! The emulated link, measured from outside: if a figure of a test on it looks odd, look here
//! first.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    ClientNode, Counters, Direction, Emulator, GatewayNode, HostState, Lab, Link, Node, Page, Ping,
    Programs, Reorder, Stream, address, figure, full_or_short, until,
};

const MS: Duration = Duration::from_millis(1);
const TARGETS: [IpAddr; 3] =
    [IpAddr::V4(address::WEB), IpAddr::V6(address::WEB_V6), IpAddr::V4(address::GATEWAY)];

fn counters(link: &Emulator) -> [Counters; 2] {
    [Direction::Up, Direction::Down].map(|direction| link.counters(direction))
}

/// What the devices threw away before the emulator saw it.
fn thrown_away(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for device in ["emu-up", "emu-down"] {
        for figure in ["tx_dropped", "rx_dropped"] {
            let path = format!("/sys/class/net/{device}/statistics/{figure}");
            sum += lab.internet.read_file(&path)?.trim().parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// One TCP stream of iperf3 over the direct path, in bits per second.
fn throughput(node: &Node, congestion: &str, reverse: bool, seconds: u32) -> Result<f64> {
    let (server, seconds) = (address::WEB.to_string(), seconds.to_string());
    let mut words = vec!["iperf3", "--json", "-C", congestion, "-c", &server, "-t", &seconds];
    if reverse {
        words.push("-R");
    }
    let report = node.run_with(&words, "", Duration::from_secs(90))?.ok()?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 measured nothing")
}

#[test]
fn the_delay_is_exact_and_nobody_else_has_it() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];
    let direct = Ping::send(client, address::WEB.into(), 10)?.median;
    let between = Ping::send(&lab.gateway, address::WEB.into(), 10)?.median;

    let up = Link { delay: 10 * MS, ..Link::default() };
    let link = lab.emulate(up, Link { delay: 30 * MS, ..up })?;
    for target in TARGETS {
        let ping = Ping::send(client, target, 50)?;
        assert_eq!(ping.received, 50, "{target}");
        let added = ping.median.saturating_sub(direct);
        figure(&format!("added to {target} by 40 ms"), added.as_secs_f64() * 1e3, "ms");
        assert!((40 * MS..45 * MS).contains(&added), "{target}: {added:?} for 40 ms");
    }
    let without = Ping::send(&lab.gateway, address::WEB.into(), 10)?.median;
    assert!(without < between + 5 * MS, "gateway to web: {without:?}, before {between:?}");

    link.set(Direction::Down, Link::default());
    let shorter = Ping::send(client, address::WEB.into(), 10)?.median;
    assert!((10 * MS..15 * MS).contains(&shorter), "{shorter:?} for 10 ms");
    Ok(())
}

#[test]
fn as_much_is_lost_as_was_asked_for_in_each_direction() -> Result<()> {
    let lab = Lab::new()?;
    let up = Link { loss: 0.1, ..Link::default() };
    let link = lab.emulate(up, Link { loss: 0.2, ..Link::default() })?;
    let ping = Ping::send_with(&lab.clients[0], address::WEB.into(), 1000, &["-i", "0.002"])?;
    // 720 expected, standard deviation 14
    assert!((650..790).contains(&ping.received), "{} answers to 1000", ping.received);
    let [up, down] = counters(&link);
    assert!((60..140).contains(&up.lost), "{up:?}");
    assert_eq!(up.packets, up.delivered + up.lost, "{up:?}");
    assert_eq!(down.packets, up.delivered, "every request that arrived was answered: {down:?}");
    assert_eq!(down.delivered, ping.received as u64, "{down:?}");
    Ok(())
}

#[test]
fn the_rate_holds_for_tcp_and_udp_and_a_full_queue_drops() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];
    let _iperf3 = lab.start_iperf3()?;
    let link = Link { rate: Some(50_000_000), queue: 50 * MS, ..Link::default() };
    let emulator = lab.emulate(link, Link { rate: Some(10_000_000), ..link })?;
    let expect = |rate: f64, wanted: f64, what: &str| {
        figure(&format!("{what} on a link of {} Mbit/s", wanted / 1e6), rate / 1e6, "Mbit/s");
        assert!((0.8..1.01).contains(&(rate / wanted)), "{what}: {rate} of {wanted} bit/s");
    };
    expect(throughput(client, "cubic", false, 3)?, 50e6, "TCP up");
    expect(throughput(client, "cubic", true, 3)?, 10e6, "TCP down");
    let before = emulator.counters(Direction::Up).dropped;
    let (rate, lost) = Stream::UdpUp(100_000_000).run(client, address::WEB.into(), 3)?;
    expect(rate, 50e6, "UDP up");
    assert!((0.4..0.6).contains(&lost), "{lost} of twice the rate");
    assert!(emulator.counters(Direction::Up).dropped > before + 10_000);
    assert_eq!(thrown_away(&lab)?, 0, "packets that the emulator never saw");
    Ok(())
}

#[test]
fn an_emulated_link_of_200_mbit_s_is_filled_and_an_idle_one_rests() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];
    let _iperf3 = lab.start_iperf3()?;
    let link = Link { delay: 10 * MS, rate: Some(200_000_000), ..Link::default() };
    let _emulator = lab.emulate(link, link)?;
    for reverse in [false, true] {
        let rate = throughput(client, "cubic", reverse, 5)?;
        figure("rate on a link of 200 Mbit/s", rate / 1e6, "Mbit/s");
        assert!(rate > 150e6, "{rate} bit/s on 200 Mbit/s, reverse: {reverse}");
    }
    assert_eq!(thrown_away(&lab)?, 0, "packets that the emulator never saw");
    let wake_ups = || sleeps_of(&format!("{}-emu-", lab.id()));
    let before = wake_ups()?;
    std::thread::sleep(Duration::from_secs(1));
    let woken = wake_ups()? - before;
    assert!(woken < 20, "woken {woken} times in an idle second");
    Ok(())
}

/// How often the threads of this process whose names begin so have gone to sleep so far.
fn sleeps_of(threads: &str) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")?.flatten() {
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
        if name.starts_with(threads) {
            let status = std::fs::read_to_string(task.path().join("status"))?;
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("no field")?.trim().parse::<u64>()?;
        }
    }
    ensure!(sum > 0, "no thread {threads}...");
    Ok(sum)
}

#[test]
fn late_packets_are_seen_out_of_order() -> Result<()> {
    let lab = Lab::new()?;
    let reorder = Some(Reorder { share: 0.2, delay: 30 * MS });
    let link = Link { delay: MS, reorder, ..Link::default() };
    let _emulator = lab.emulate(link, Link::default())?;
    let words = ["ping", "-n", "-i", "0.01", "-c", "200", &address::WEB.to_string()];
    let answers = lab.clients[0].ok(&words)?;
    let numbers: Vec<u32> = answers
        .split("icmp_seq=")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect();
    assert_eq!(numbers.len(), 200, "none is lost");
    let overtaken = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((15..=60).contains(&overtaken), "{overtaken} of 40 expected: {numbers:?}");
    Ok(())
}

#[test]
fn a_cut_is_silent_and_everything_works_when_it_is_restored() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];
    let link = lab.emulate(Link::default(), Link::default())?;
    assert_eq!(Ping::send(client, address::WEB.into(), 3)?.received, 3);

    link.cut();
    let words = ["ping", "-n", "-i", "0.05", "-W", "1", "-c", "5", &address::WEB.to_string()];
    let cut = client.run(&words)?;
    assert!(cut.stdout.contains(" 0 received") && !cut.stdout.contains("From"), "{cut}");
    assert_eq!(link.counters(Direction::Up).cut, 5);

    link.restore();
    for target in TARGETS {
        assert_eq!(Ping::send(client, target, 3)?.received, 3, "{target}");
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_an_emulation() -> Result<()> {
    let lab = Lab::new()?;
    let nodes = [&lab.internet, &lab.carrier, &lab.gateway, &lab.web];
    let before = nodes.map(HostState::of);
    let slow = Link { delay: 50 * MS, ..Link::default() };
    let emulator = lab.emulate(slow, slow)?;
    assert!(Ping::send(&lab.clients[0], address::WEB.into(), 3)?.median > 90 * MS);
    drop(emulator);
    for (node, before) in nodes.into_iter().zip(before) {
        before?.expect_unchanged(node, "after an emulation")?;
    }
    let direct = Ping::send(&lab.clients[0], address::WEB.into(), 5)?.median;
    assert!(direct < 20 * MS, "{direct:?}");
    drop(lab.emulate(slow, slow).context("a second time")?);
    Ok(())
}

#[test]
fn bbr_fills_the_bad_link_and_cubic_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let _iperf3 = lab.start_iperf3()?;
    let _emulator = lab.emulate(Link::BAD, Link::BAD)?;
    let seconds = full_or_short(20, 7);
    for reverse in [false, true] {
        let way = if reverse { "down" } else { "up" };
        let [bbr, cubic] = ["bbr", "cubic"]
            .map(|congestion| throughput(&lab.clients[0], congestion, reverse, seconds));
        let (bbr, cubic) = (bbr?, cubic?);
        figure(&format!("BBR {way}"), bbr / 1e6, "Mbit/s");
        figure(&format!("CUBIC {way}"), cubic / 1e6, "Mbit/s");
        // a machine with other work to do decides what a few seconds bring
        assert!(bbr > 0.0 && cubic > 0.0, "{way}: BBR {bbr}, CUBIC {cubic}");
        if full_or_short(true, false) {
            assert!(bbr > 6e6 && cubic < bbr / 2.0, "{way}: BBR {bbr}, CUBIC {cubic}");
        }
    }
    Ok(())
}

#[test]
fn a_client_behind_the_bad_link_connects_and_downloads() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let sent = lab.make_download("file", 4_000_000)?;
    let emulator = lab.emulate(Link::BAD, Link::BAD)?;

    let start = Instant::now();
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "ali")?;
    figure("import and connect on the bad link", start.elapsed().as_secs_f64() * 1e3, "ms");
    let (page, received) = Page::download(&client.node, "http://www.lab.test/file")?;
    assert_eq!(received, sent, "SHA-256 of a download");
    figure("download over the bad link", page.rate * 8.0 / 1e6, "Mbit/s");
    assert!(counters(&emulator)[1].lost > 10, "{:?}", counters(&emulator));
    until("the round trip in the status", Duration::from_secs(10), || {
        Ok(client.status()?.rtt_ms.filter(|rtt| *rtt > 190.0))
    })?;
    client.disconnect()
}
