//! Which peers are taken for what, and what outlives a restart (B4).

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Ping, address};

use crate::hostile::delivered;
use crate::independent::start_their_client;
use crate::relay::{Relay, Way};
use crate::{PATIENCE, Pair, assert_flows, end};

/// How long what is injected may take to arrive.
const SOON: Duration = Duration::from_millis(500);

/// Whether their client, on the first client's machine, gets through to our gateway.
fn they_get_through(lab: &Lab) -> Result<bool> {
    let pinged = Ping::send(&lab.clients[0], address::INNER_GATEWAY.into(), 5)?;
    ensure!(pinged.received == 0 || pinged.received == 5, "{pinged:?}");
    Ok(pinged.received == 5)
}

#[test]
fn once_our_client_is_known_random_ivs_are_refused_until_the_owner_says_otherwise() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&[])?;
    {
        let _theirs = start_their_client(&lab, &pair)?;
        assert!(they_get_through(&lab)?, "before ours was there");
    }
    pair.start_client(&[])?;
    assert_flows(&pair.client)?;
    pair.gateway()?.wait_for_error_line("only counted ones", PATIENCE)?;
    end(pair.client()?)?;
    {
        let _theirs = start_their_client(&lab, &pair)?;
        assert!(!they_get_through(&lab)?, "after ours was there");
        let said = pair.gateway()?.wait_for_error_line("without a counter", PATIENCE)?;
        assert!(said.contains("--replay seen"), "{said}");
    }
    end(pair.gateway()?)?;
    pair.start_gateway(&[])?;
    {
        let _theirs = start_their_client(&lab, &pair)?;
        assert!(!they_get_through(&lab)?, "after a restart");
    }
    end(pair.gateway()?)?;
    pair.start_gateway(&["--replay", "seen"])?;
    let _theirs = start_their_client(&lab, &pair)?;
    assert!(they_get_through(&lab)?, "with --replay seen");
    Ok(())
}

#[test]
fn repetitions_of_what_others_send_are_recognised_by_memory_or_not_at_all() -> Result<()> {
    let lab = Lab::new()?;
    let relay = Relay::start(&lab.routers[0])?;
    let mut pair = Pair::new(&lab)?;
    for (policy, again) in [("auto", false), ("seen", false), ("off", true)] {
        pair.start_gateway(&["--replay", policy])?;
        let theirs = start_their_client(&lab, &pair)?;
        assert!(they_get_through(&lab)?, "{policy}");
        let recorded = relay.remembered(Way::Up).pop().context("nothing has passed")?;
        drop(theirs);
        let before = delivered(&lab.gateway)?;
        for _ in 0..3 {
            relay.inject(Way::Up, &recorded);
        }
        sleep(SOON);
        let more = delivered(&lab.gateway)? - before;
        assert_eq!(more, if again { 3 } else { 0 }, "repetitions with {policy}");
        end(pair.gateway()?)?;
    }
    // with counters only, they are not let in in the first place
    pair.start_gateway(&["--replay", "counter"])?;
    let _theirs = start_their_client(&lab, &pair)?;
    assert!(!they_get_through(&lab)?);
    Ok(())
}

/// Recorded from a run that is over, or sent to a gateway that was started anew.
#[test]
fn recordings_outlive_no_restart() -> Result<()> {
    let lab = Lab::new()?;
    let relay = Relay::start(&lab.routers[0])?;
    let mut pair = Pair::start(&lab)?;
    assert_flows(&pair.client)?;
    let first = relay.remembered(Way::Up);
    assert!(first.len() > 20, "control: {} datagrams", first.len());
    let inject = || -> Result<u64> {
        let before = delivered(&lab.gateway)?;
        first.iter().for_each(|datagram| relay.inject(Way::Up, datagram));
        sleep(SOON);
        Ok(delivered(&lab.gateway)? - before)
    };

    end(pair.gateway()?)?;
    pair.start_gateway(&[])?;
    assert_eq!(inject()?, 0, "after a restart of the gateway");
    // its state is a second old at most
    assert_flows(&pair.client)?;
    sleep(Duration::from_millis(2_500));
    pair.gateway()?.kill9();
    pair.start_gateway(&[])?;
    assert_eq!(inject()?, 0, "after a crash of the gateway");

    end(pair.client()?)?;
    pair.start_client(&[])?;
    assert_flows(&pair.client)?;
    assert_eq!(inject()?, 0, "of the client's earlier run");
    pair.gateway()?.wait_for_error_line("earlier run", PATIENCE)?;
    Ok(())
}
