//! Strangers who want to wear the gateway down: wrong log-ins, connections that never speak, raw
//! SYNs, from few addresses and from a client's own.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    ClientNode, GatewayNode, Lab, Node, Options, Process, Programs, address, figure, full_or_short,
    until,
};

use crate::guesses::Guesser;
use crate::work::Work;
use crate::{join, strangers, syns};

/// What the gateway may never exceed here, in bytes of resident memory: Argon2 has its share.
const MEMORY_MAX: u64 = 150_000_000;
/// Who attacks, in addresses.
const ATTACKERS: u32 = 64;
const USERS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);
const CROWD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/crowd.py");
/// The distribution's, whose packages the tests install.
const PYTHON: &str = "/usr/bin/python3";

/// How soon somebody with a valid secret has to be in. In a short run beside others', five times
/// that.
fn soon() -> Duration {
    Duration::from_secs(full_or_short(3, 15))
}

/// A process that holds so many silent connections, from `addresses` on.
fn crowd(node: &Node, name: &str, count: usize, rate: usize, first: Ipv4Addr) -> Result<Process> {
    let many = if first == address::CARRIER { 1 } else { ATTACKERS };
    let gateway = address::GATEWAY.to_string();
    let [count, rate] = [count, rate].map(|number| number.to_string());
    let (first, many) = (first.to_string(), many.to_string());
    node.spawn(name, &[PYTHON, CROWD, &count, &rate, &gateway, "8443", &first, &many])
}

/// What the crowd last said it has: connections opened, and held.
fn counted(crowd: &Process) -> Result<[usize; 2]> {
    let said = crowd.stdout();
    let line = said.lines().next_back().with_context(|| format!("silence{}", crowd.logs()))?;
    let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
    Ok([numbers.next().context("no number")?, numbers.next().context("no number")?])
}

/// How long `act` takes; it has to be soon.
fn soon_done(what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    act().with_context(|| what.to_owned())?;
    let took = start.elapsed();
    figure(what, took.as_secs_f64() * 1e3, "ms");
    ensure!(took < soon(), "{what}: {took:?}");
    Ok(())
}

#[test]
fn wrong_log_ins_and_a_crowd_from_64_addresses_leave_ten_users_working() -> Result<()> {
    let lab = Lab::with(Options { clients: 12, shared_router: true, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    lab.make_download("file", 64 << 20)?;
    let mut users = Vec::new();
    for index in 0..USERS {
        let name = format!("user{index}");
        gateway.user_add(&name, Some("a password nobody guesses"))?;
        users.push(ClientNode::connect_new(&lab, index, &programs, &gateway, &name)?);
    }
    let mut absent = ClientNode::new(&lab, USERS, &programs)?;
    absent.import(&gateway.invite("absent")?.link)?;
    let newcomer = ClientNode::new(&lab, USERS + 1, &programs)?;
    let link = gateway.invite("newcomer")?.link;

    // Mbit/s in all: a fraction of what two processors move, which the attackers work on, too
    let rate = full_or_short(2_500_000, 1_250_000);
    let work = Work::start(&users, rate);
    std::thread::sleep(Duration::from_secs(2));
    let settle = || {
        std::thread::sleep(Duration::from_secs(full_or_short(15, 5)));
        Ok(())
    };
    let (before, ()) = work.rates(settle)?;

    let guessed = gateway.invite("former")?.link;
    let names = ["user0", "user1", "nobody", "user2", "root"];
    let guesser = Guesser::new(&guessed, &names, full_or_short(100_000, 3_000))?;
    let (during, ()) = work.rates(|| {
        attack(&lab, &guesser, || {
            soon_done("a new device was let in after", || newcomer.import(&link))?;
            soon_done("a known device was connected after", || absent.connect(&[]).map(drop))?;
            absent.disconnect()?;
            soon_done("it was back after", || absent.connect(&[]).map(drop))
        })
    })?;
    for how in ["rejected", "busy", "cut short"] {
        figure(&format!("wrong log-ins, {how}"), guesser.answered(how) as f64, "");
    }
    ensure!(guesser.answered("rejected") > 100, "hardly a password was looked at");
    ensure!(guesser.answered("busy") > guesser.answered("rejected"), "nobody was told to wait");
    let total = |rates: &[f64]| rates.iter().sum::<f64>() * 8.0 / 1e6;
    figure("ten users before", total(&before), "Mbit/s");
    figure("ten users meanwhile", total(&during), "Mbit/s");
    let least = before.iter().zip(&during).map(|(before, during)| during / before);
    let least = least.fold(f64::MAX, f64::min);
    figure("the user who lost most kept", least * 100.0, "%");
    ensure!(least > full_or_short(0.8, 0.5), "a user kept {least:.2} of {before:?}: {during:?}");
    let highest = gateway.process()?.memory("VmHWM")?;
    figure("gateway's highest resident memory", highest as f64 / 1e6, "MB");
    ensure!(highest < MEMORY_MAX, "the gateway took {highest} bytes of memory");
    assert_eq!(gateway.status()?["sessions"], USERS + 1);
    Ok(())
}

/// Everything at once: wrong log-ins, silent connections from several processes, and raw SYNs. In
/// the midst of it, `meanwhile`. Ends when all log-ins were tried.
fn attack(lab: &Lab, guesser: &Guesser, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    strangers::move_in(lab)?;
    syns::ignore_answers(&lab.internet)?;
    let addresses = strangers::some_addresses(ATTACKERS);
    let (silent, syn_rate) = full_or_short((10_000, 2_000), (1_500, 500));
    let fill = Duration::from_secs(full_or_short(12, 5));
    let crowds = ["crowd0", "crowd1", "crowd2"]
        .map(|name| crowd(&lab.internet, name, silent, silent / 10, addresses[0]));
    let crowds = crowds.into_iter().collect::<Result<Vec<_>>>()?;
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| syns::send(&lab.internet, &addresses, syn_rate, &stop));
        let guess = scope.spawn(|| guesser.work(&lab.internet, &addresses));
        let outcome = until("the attack to be in full swing", PATIENCE, || {
            let held: usize = crowds.iter().map(|crowd| counted(crowd).map_or(0, |c| c[1])).sum();
            let full = held >= 3 * silent && start.elapsed() >= fill;
            Ok(full.then_some(held))
        })
        .and_then(|held| {
            // SYNs of the last minute, for so long the kernel would answer each
            let in_flight = held as u64 + syn_rate * start.elapsed().as_secs().min(60);
            figure("connections in flight", in_flight as f64, "");
            ensure!(in_flight >= full_or_short(50_000, 6_000), "{in_flight} in flight");
            meanwhile()
        });
        if outcome.is_err() {
            guesser.stop();
        }
        let guessed = join(guess);
        let took = start.elapsed().as_secs_f64();
        figure("wrong log-ins a second", guesser.begun() as f64 / took, "");
        stop.store(true, Ordering::Relaxed);
        figure("raw SYNs", join(flood)? as f64, "");
        let opened: usize = crowds.iter().map(|crowd| counted(crowd).map_or(0, |c| c[0])).sum();
        figure("silent connections", opened as f64, "");
        outcome.and(guessed)
    })
}

#[test]
fn attackers_at_a_client_s_own_address_do_not_keep_it_out() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, shared_router: true, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    gateway.user_add("alice", Some("a password nobody guesses"))?;
    let mut alice = ClientNode::new(&lab, 0, &programs)?;
    alice.import(&gateway.invite("alice")?.link)?;
    let newcomer = ClientNode::new(&lab, 1, &programs)?;
    let link = gateway.invite("newcomer")?.link;

    let guesser = Guesser::new(&gateway.invite("former")?.link, &["alice", "bob"], usize::MAX)?;
    // some at a time, all from the address that the gateway sees of the clients
    let own = [address::CARRIER; 8];
    let held = crowd(&lab.carrier, "crowd", full_or_short(2_000, 500), 500, address::CARRIER)?;
    let stop = AtomicBool::new(false);
    let visits = std::thread::scope(|scope| {
        let guess = scope.spawn(|| guesser.work(&lab.carrier, &own));
        let visit = scope.spawn(|| strangers::visit_from(&lab.carrier, address::CARRIER, &stop));
        let outcome = until("guesses to be held up", PATIENCE, || {
            let in_full_swing = guesser.answered("busy") > 50 && counted(&held)?[0] > 1_500;
            Ok(in_full_swing.then_some(()))
        })
        .and_then(|()| {
            soon_done("a new device was let in after", || newcomer.import(&link))?;
            soon_done("a known device was connected after", || alice.connect(&[]).map(drop))?;
            alice.disconnect()?;
            let words = ["login", "alice", "--password-stdin"];
            soon_done("the right password was taken after", || {
                let words = alice.words(&words);
                let input = "a password nobody guesses\n";
                alice.node.run_with(&words, input, PATIENCE)?.ok().map(drop)
            })
        });
        guesser.stop();
        stop.store(true, Ordering::Relaxed);
        let visits = join(visit);
        join(guess).and(outcome).and(visits)
    })?;
    let [opened, _] = counted(&held)?;
    figure("silent connections from that address", opened as f64, "");
    figure("silent visitors from that address", visits as f64, "");
    figure("wrong log-ins held up at that address", guesser.answered("busy") as f64, "");
    Ok(())
}

#[test]
fn a_kernel_without_syn_cookies_is_named_with_the_remedy() -> Result<()> {
    let lab = Lab::new()?;
    let gateway = GatewayNode::new(&lab, &Programs::find()?);
    gateway.init(&address::GATEWAY.to_string())?;
    let hints = |syn_cookies: &str| -> Result<String> {
        gateway.node.sysctl(&[&format!("net/ipv4/tcp_syncookies={syn_cookies}")])?;
        let ran = gateway.run(&["check-config"])?;
        assert_eq!((ran.code(), ran.stdout.trim()), (0, "ok"), "hints are no errors");
        Ok(ran.stderr)
    };
    assert!(!hints("1")?.contains("syncookies"));
    let hint = hints("0")?;
    assert!(hint.contains("net.ipv4.tcp_syncookies is 0, and a flood"), "{hint}");
    assert!(hint.contains("sysctl --system"), "{hint}");
    Ok(())
}
