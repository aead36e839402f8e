//! The ladder on a virtual clock: orders of races, climbs, and a client that goes through networks
//! which let this or that through.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    invitation::Transport,
    ladder::{Candidate, Choice, Ladder},
};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn candidate(rung: usize, gateway: usize, transport: Transport, address: &str) -> Candidate {
    Candidate { rung, gateway, transport, address: address.parse().unwrap() }
}

/// Two ports and KCP of one gateway, and a second gateway.
fn household() -> Vec<Candidate> {
    vec![
        candidate(0, 0, Transport::Tls, "203.0.113.2:8443"),
        candidate(0, 0, Transport::Tls, "[2001:db8::2]:8443"),
        candidate(1, 0, Transport::Tls, "203.0.113.2:443"),
        candidate(2, 0, Transport::Kcp, "203.0.113.2:443"),
        candidate(3, 1, Transport::Tls, "203.0.113.3:8443"),
    ]
}

fn places(order: &[Choice]) -> Vec<usize> {
    order.iter().map(|choice| choice.at).collect()
}

/// A connection of this age that fails, and the race behind it, which takes no time.
fn lose(ladder: &mut Ladder, now: &mut Instant, age: Duration) {
    *now += age;
    ladder.lost(*now);
}

#[test]
fn what_differs_most_comes_next_and_another_gateway_waits_for_the_first() {
    let order = Ladder::new(1).order(Instant::now(), &household());
    assert_eq!(places(&order), [0, 3, 4, 1, 2], "transport, gateway, family, the rest");
    let reluctance: Vec<_> = order.iter().map(|choice| choice.reluctance).collect();
    assert_eq!(reluctance, [0, 1, 2, 0, 0]);
}

#[test]
fn what_worked_comes_first_also_when_it_is_remembered() {
    let (all, now) = (household(), Instant::now());
    let mut ladder = Ladder::new(1);
    ladder.enter_network(Some(2));
    let order = ladder.order(now, &all);
    assert_eq!((order[0].at, all[order[1].at].transport), (3, Transport::Tls));
    let first = order.iter().find(|choice| choice.at == 0).unwrap();
    assert_eq!(first.reluctance, 0, "a better one waits for nobody");
    ladder.connected(now, all[1], false);
    assert_eq!(ladder.order(now, &all)[0].at, 1, "the address, too");
    ladder.forget_address();
    assert_eq!(ladder.order(now, &all)[0].at, 0, "its names lead elsewhere");
    ladder.answered(all[4]);
    assert_eq!(ladder.order(now, &all)[0], Choice { at: 4, reluctance: 0 });
    ladder.enter_network(None);
    assert_eq!(ladder.order(now, &all)[0].at, 0);
}

#[test]
fn a_rung_whose_connections_are_cut_off_twice_comes_last_for_a_while() {
    let (all, mut now) = (household(), Instant::now());
    let mut ladder = Ladder::new(1);
    ladder.connected(now, all[0], false);
    for age in [60, 1] {
        lose(&mut ladder, &mut now, SECOND * age);
        assert_eq!(ladder.order(now, &all)[0].at, 0, "after {age} s");
        ladder.connected(now, all[0], false);
    }
    lose(&mut ladder, &mut now, SECOND);
    let order = ladder.order(now, &all);
    assert_eq!(places(&order), [3, 4, 2, 0, 1], "least like it first, itself last");
    let (cut, other) = (order[3].reluctance, order[1].reluctance);
    assert!(cut > other, "it waits for all others");
    now += SECOND * 121;
    assert_eq!(ladder.order(now, &all)[0].at, 0, "forgotten");
}

#[test]
fn a_rung_that_swallows_what_the_gateway_is_asked_comes_last_for_a_while() {
    let (all, mut now) = (household(), Instant::now());
    let mut ladder = Ladder::new(1);
    let first = |ladder: &Ladder, now| places(&ladder.order(now, &all))[0];
    ladder.cut_off(now, 0);
    assert_eq!(first(&ladder, now), 0, "once may be chance");
    ladder.cut_off(now, 0);
    assert_eq!(first(&ladder, now), 3);
    now += 125 * SECOND;
    assert_eq!(first(&ladder, now), 0);
}

#[test]
fn an_outage_of_the_path_is_nothing_against_the_rung() {
    let (all, mut now) = (household(), Instant::now());
    let mut ladder = Ladder::new(1);
    ladder.connected(now, all[0], false);
    for _ in 0..5 {
        lose(&mut ladder, &mut now, SECOND);
        now += SECOND * 2;
        ladder.connected(now, all[0], false);
        now += SECOND;
        ladder.suspect(now);
        ladder.alive();
    }
    lose(&mut ladder, &mut now, SECOND);
    assert_eq!(ladder.order(now, &all)[0].at, 0);
}

#[test]
fn climbs_are_at_30_s_then_twice_as_far_apart_each_time_up_to_10_minutes() {
    let (all, mut now) = (household(), Instant::now());
    let mut ladder = Ladder::new(7);
    ladder.connected(now, all[0], false);
    assert_eq!(ladder.climb_at(), None, "nothing to climb to");
    ladder.connected(now, all[3], false);
    for expected in [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0] {
        let wait = (ladder.climb_at().unwrap() - now).as_secs_f64();
        assert!((expected * 0.9..=expected * 1.1).contains(&wait), "{wait} for {expected}");
        now = ladder.climb_at().unwrap();
        assert_eq!(ladder.better(&all, false), [0, 1, 2], "best first");
        ladder.stayed(now, true);
    }
    ladder.enter_network(None);
    ladder.connected(now, all[3], false);
    assert!(ladder.climb_at().unwrap() - now <= SECOND * 33, "another network");
}

#[test]
fn another_gateway_is_climbed_to_only_while_nothing_goes_on() {
    let (all, now) = (household(), Instant::now());
    let mut ladder = Ladder::new(7);
    ladder.connected(now, all[4], false);
    assert_eq!(ladder.better(&all, false), [0; 0]);
    assert_eq!(ladder.better(&all, true), [0, 1, 2, 3]);
    ladder.stayed(now, false);
    assert!(ladder.climb_at().unwrap() - now <= SECOND * 33, "there was nothing in vain");
}

#[test]
fn a_climb_that_falls_again_waits_longer_and_one_that_holds_begins_anew() {
    let (all, mut now) = (household(), Instant::now());
    let mut ladder = Ladder::new(7);
    ladder.connected(now, all[3], false);
    for expected in [60.0, 120.0, 240.0] {
        now = ladder.climb_at().unwrap();
        ladder.connected(now, all[0], true);
        // idle, and then cut off with the first bytes
        lose(&mut ladder, &mut now, SECOND * 100);
        ladder.connected(now, all[3], false);
        let wait = (ladder.climb_at().unwrap() - now).as_secs_f64();
        assert!((expected * 0.9..=expected * 1.1).contains(&wait), "{wait} for {expected}");
    }
    ladder.connected(now, all[0], true);
    ladder.carried(now + SECOND * 601, 0);
    lose(&mut ladder, &mut now, SECOND * 601);
    ladder.connected(now, all[3], false);
    assert!(ladder.climb_at().unwrap() - now <= SECOND * 33);
}

/// Some networks end each TCP connection once it has carried so many megabytes.
#[test]
fn a_rung_that_is_cut_after_many_bytes_is_climbed_to_more_and_more_seldom() {
    let (all, start) = (household(), Instant::now());
    let (mut ladder, mut now, mut cut) = (Ladder::new(7), start, 0);
    ladder.connected(now, all[3], false);
    while now < start + SECOND * 3_600 {
        now = ladder.climb_at().unwrap();
        ladder.connected(now, all[0], true);
        now += SECOND * 40;
        ladder.carried(now, 20 << 20);
        lose(&mut ladder, &mut now, SECOND);
        ladder.connected(now, all[3], false);
        cut += 1;
    }
    assert!(cut <= 12, "{cut} times an hour");
}

#[test]
fn what_a_rung_has_carried_makes_its_early_deaths_forgotten() {
    let (all, mut now) = (household(), Instant::now());
    let mut ladder = Ladder::new(7);
    ladder.cut_off(now, 0);
    ladder.connected(now, all[0], false);
    ladder.carried(now + SECOND * 19, 1 << 30);
    ladder.carried(now + SECOND * 25, 1 << 20);
    now += SECOND * 26;
    ladder.cut_off(now, 0);
    assert_eq!(ladder.order(now, &all)[0].at, 0, "the only one");
}

/// The gateway takes the climb for the successor of the connection in use and ends that, but its
/// answer does not come through.
#[test]
fn a_climb_that_takes_the_session_and_brings_nothing_is_tried_more_and_more_seldom() {
    let (all, start) = (household(), Instant::now());
    let (mut ladder, mut now, mut broken) = (Ladder::new(7), start, 0);
    while now < start + SECOND * 3_600 {
        let first = all[ladder.order(now, &all).iter().map(|it| it.at).find(|at| *at > 1).unwrap()];
        ladder.connected(now, first, false);
        now = ladder.climb_at().unwrap() + SECOND * 2;
        assert_eq!(ladder.better(&all, false)[0], 0);
        ladder.swallowed(now, 0);
        assert_eq!(ladder.climb_at(), None);
        now += SECOND;
        broken += 1;
    }
    assert!(broken <= 12, "{broken} times an hour");
    ladder.swallowed(now, 0);
    assert!(ladder.order(now, &all)[0].at > 1, "it comes last for a while");
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let rung = (0..3usize, any::<bool>(), 0..3u16, 1..=2usize, any::<bool>());
    prop::collection::vec(rung, 1..8).prop_map(|rungs| {
        let addresses = |(rung, (gateway, kcp, port, count, six))| {
            let transport = if kcp { Transport::Kcp } else { Transport::Tls };
            (0..count).map(move |index| {
                let host = if six != (index == 0) {
                    format!("192.0.2.{gateway}:{}", 400 + port)
                } else {
                    format!("[2001:db8::{gateway}]:{}", 400 + port)
                };
                candidate(rung, gateway, transport, &host)
            })
        };
        rungs.into_iter().enumerate().flat_map(addresses).collect()
    })
}

/// What may happen to a client, with a choice of candidate.
#[derive(Debug, Clone)]
enum Event {
    Passes(u32),
    Connects(usize, bool),
    Suspect,
    Alive,
    Lost,
    Carried(u32),
    Stayed(bool),
    Network(Option<usize>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..200_000u32).prop_map(Event::Passes),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(at, climbed)| Event::Connects(at, climbed)),
        2 => Just(Event::Suspect),
        1 => Just(Event::Alive),
        2 => Just(Event::Lost),
        1 => any::<u32>().prop_map(Event::Carried),
        1 => any::<bool>().prop_map(Event::Stayed),
        1 => prop::option::of(0..9usize).prop_map(Event::Network),
    ]
}

fn after(events: &[Event], all: &[Candidate]) -> (Ladder, Instant, Option<Candidate>) {
    let (mut ladder, mut now, mut current) = (Ladder::new(3), Instant::now(), None);
    for event in events {
        match event {
            Event::Passes(ms) => now += Duration::from_millis((*ms).into()),
            Event::Connects(at, climbed) => {
                current = Some(all[at % all.len()]);
                ladder.connected(now, all[at % all.len()], *climbed);
            }
            Event::Suspect => ladder.suspect(now),
            Event::Alive => ladder.alive(),
            Event::Lost => {
                current = None;
                ladder.lost(now);
            }
            Event::Carried(bytes) => ladder.carried(now, (*bytes).into()),
            Event::Stayed(tried) => ladder.stayed(now, *tried),
            Event::Network(rung) => ladder.enter_network(*rung),
        }
    }
    (ladder, now, current)
}

proptest! {
    #[test]
    fn whatever_happened_each_candidate_has_one_place_and_cut_ones_the_last(
        all in candidates(), events in prop::collection::vec(event(), 0..60),
    ) {
        let (ladder, now, _) = after(&events, &all);
        let order = ladder.order(now, &all);
        let mut seen = places(&order);
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..all.len()).collect::<Vec<_>>());
        let cut: Vec<bool> = order.iter().map(|choice| choice.reluctance == 3).collect();
        prop_assert!(cut.is_sorted(), "{:?}", order);
    }

    #[test]
    fn each_transport_and_then_each_gateway_is_tried_before_more_of_the_same(all in candidates()) {
        let order = Ladder::new(3).order(Instant::now(), &all);
        let first = |count: usize| order.iter().take(count).map(|choice| all[choice.at]);
        let transports: HashSet<_> = all.iter().map(|it| it.transport).collect();
        let gateways: HashSet<_> = all.iter().map(|it| it.gateway).collect();
        let tried: HashSet<_> = first(transports.len()).map(|it| it.transport).collect();
        prop_assert_eq!(&tried, &transports);
        let tried: HashSet<_> =
            first(transports.len() + gateways.len() - 1).map(|it| it.gateway).collect();
        prop_assert_eq!(&tried, &gateways);
    }

    #[test]
    fn whatever_happened_climbs_lead_upwards_and_come_within_11_minutes(
        all in candidates(), events in prop::collection::vec(event(), 0..60), quiet: bool,
    ) {
        let (ladder, now, current) = after(&events, &all);
        let better = ladder.better(&all, quiet);
        match current {
            None => prop_assert!(better.is_empty() && ladder.climb_at().is_none()),
            Some(current) => {
                prop_assert_eq!(ladder.climb_at().is_some(), current.rung > 0);
                prop_assert!(better.iter().all(|at| all[*at].rung < current.rung));
                prop_assert!(better.is_sorted_by_key(|at| all[*at].rung));
            }
        }
        let wait = ladder.climb_at().map(|at| at.saturating_duration_since(now));
        prop_assert!(wait.is_none_or(|wait| wait <= SECOND * 660));
    }

    /// A network lets some rungs through, cuts some off after a second of traffic, and swallows the
    /// others. As long as one of them is good, the client comes to it, and ends on the best.
    #[test]
    fn a_client_finds_the_best_way_that_there_is(
        all in candidates(),
        fates in prop::collection::vec(0..3u8, 8),
        seed: u64,
    ) {
        let fate = |candidate: &Candidate| fates[candidate.rung];
        prop_assume!(all.iter().any(|candidate| fate(candidate) == 0));
        let best = all.iter().filter(|it| fate(it) == 0).map(|it| it.rung).min().unwrap();
        let mut ladder = Ladder::new(seed);
        let start = Instant::now();
        let (mut now, mut lost, mut good) = (start, 0, Duration::ZERO);
        let mut current: Option<Candidate> = None;
        while now < start + SECOND * 3_600 {
            let Some(at) = current else {
                let order = ladder.order(now, &all);
                let answers = order.iter().map(|choice| all[choice.at]).find(|it| fate(it) != 2);
                let answers = answers.unwrap();
                now += Duration::from_millis(100);
                ladder.connected(now, answers, false);
                current = Some(answers);
                continue;
            };
            if fate(&at) == 1 {
                lose(&mut ladder, &mut now, SECOND);
                lost += 1;
                current = None;
                continue;
            }
            let until = ladder.climb_at().unwrap_or(now + SECOND * 600);
            ladder.carried(until, 1 << 24);
            good += until - now;
            now = until;
            let better = ladder.better(&all, true);
            match better.iter().map(|place| all[*place]).find(|it| fate(it) != 2) {
                Some(up) => {
                    ladder.connected(now, up, true);
                    current = Some(up);
                }
                None => ladder.stayed(now, true),
            }
        }
        prop_assert!(good >= (now - start) * 9 / 10, "{:?}", good);
        // those that are cut off cost two connections each, and few climbs an hour
        let cut = (0..8).filter(|rung| fates[*rung] == 1).count();
        prop_assert!(lost <= 40 * cut, "{} lost, {} cut", lost, cut);
        if cut == 0 {
            prop_assert_eq!(current.map(|it| it.rung), Some(best));
        }
    }
}
