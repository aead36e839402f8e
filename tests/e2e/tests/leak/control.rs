//! The watch itself: what leaks is seen.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use e2e::{Lab, LeakWatch, Options, Source, address};

#[test]
fn each_kind_of_packet_that_leaves_is_reported() -> Result<()> {
    let lab = Lab::new()?;
    let watch = LeakWatch::start(&lab)?;
    let since = SystemTime::now();
    std::thread::sleep(Duration::from_millis(500));
    let error = watch.expect_closed(since, "without a client").err().context("nothing seen")?;
    let report = error.to_string();
    for kind in Source::client(&lab, 0).kinds() {
        assert!(report.contains(&format!("[{kind:?}]")), "{kind:?} is not in:\n{report}");
    }
    assert!(report.contains("asking for spray.lab.test"), "{report}");
    assert!(watch.first_own_packet(since).is_err(), "spray to the gateway is not the client's own");
    watch.finish()
}

#[test]
fn a_closed_host_is_not_reported_and_a_gap_of_30_ms_is() -> Result<()> {
    let lab = Lab::new()?;
    let watch = LeakWatch::start(&lab)?;
    let client = &lab.clients[0];
    let closed = "table inet closed {\n chain out {\n type filter hook output priority 0; policy drop;\n \
                  icmpv6 type { 133, 134, 135, 136, 143 } accept\n }\n }\n";
    client.nft(closed)?;
    let since = SystemTime::now();
    std::thread::sleep(Duration::from_secs(2));
    watch.expect_closed(since, "while everything is dropped")?;
    let gap = format!("delete table inet closed\n{closed}");
    client.ok(&[
        "sh",
        "-c",
        &format!("nft delete table inet closed; sleep 0.03; nft '{closed}'"),
    ])?;
    let report = watch.expect_closed(since, "in a gap").err().context("nothing seen")?;
    let web = address::WEB;
    assert!(report.to_string().contains(&format!("{web}")), "{report}");
    // replaced as a whole, as the client does
    let since = SystemTime::now();
    for _ in 0..20 {
        client.nft(&gap)?;
    }
    watch.expect_closed(since, "while the rules are replaced")?;
    client.ok(&["nft", "delete", "table", "inet", "closed"])?;
    watch.expect_open("at the end")?;
    watch.finish()
}

#[test]
fn a_power_cut_loses_what_was_not_synced_and_nothing_else() -> Result<()> {
    let mut lab = Lab::with(Options { client_disk: true, ..Options::default() })?;
    let dir = lab.clients[0].dir().display().to_string();
    let write = format!(
        "echo kept > {dir}/synced; sync {dir}/synced; echo kept > /etc/kept; sync /etc/kept; \
         echo lost > {dir}/unsynced; echo lost > /etc/lost; nft add table inet gone"
    );
    lab.clients[0].ok(&["sh", "-c", &write])?;
    let boot_id = lab.clients[0].read_file("/proc/sys/kernel/random/boot_id")?;
    lab.cut_power()?;
    lab.plug_in()?;
    let client = &lab.clients[0];
    let read = format!("cat {dir}/synced {dir}/unsynced /etc/kept /etc/lost 2>/dev/null || true");
    assert_eq!(client.ok(&["sh", "-c", &read])?, "kept\nkept\n");
    assert_ne!(client.read_file("/proc/sys/kernel/random/boot_id")?, boot_id);
    assert_eq!(client.ok(&["nft", "list", "ruleset"])?, "");
    let seen = lab.visitor_address(client, address::WEB.into())?;
    assert_eq!(seen, address::CARRIER.to_string());
    Ok(())
}
