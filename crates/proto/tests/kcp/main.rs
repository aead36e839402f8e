//! KCP conversations on a virtual clock: how well a path is used, what others keep of it, and what
//! becomes of a stream whose ends or path misbehave.

#![allow(clippy::unwrap_used)]

mod link;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use link::{Link, NOW_S, Pair, client_address, datagrams, door, gateway_address, run};

/// Bytes of all of the link's queue in so much time.
fn queue(mbit: f64, ms: u64) -> usize {
    ((mbit * 1e6 / 8.0 * ms as f64 / 1e3) as usize).max(64_000)
}

/// Parts of the line that the streams get after some seconds, for the rest of `seconds`.
fn shares(
    pairs: &mut [Pair],
    links: [&mut Link; 2],
    now: &mut Instant,
    [settle, seconds]: [u64; 2],
) -> Vec<f64> {
    let [down, up] = links;
    run(pairs, [down, up], now, Duration::from_secs(settle));
    let before: Vec<u64> = pairs.iter().map(|pair| pair.read).collect();
    run(pairs, [down, up], now, Duration::from_secs(seconds));
    let read = pairs.iter().zip(before).map(|(pair, before)| pair.read - before);
    read.map(|bytes| bytes as f64 * 8.0 / down.rate / seconds as f64).collect()
}

/// The bars of the requirements, headers included: what is left is KCP's and the probing's.
#[test]
fn fast_slow_lossy_and_long_paths_are_used() {
    for (mbit, rtt, loss, least) in [
        (20.0, 200, 0.03, 0.7),
        (20.0, 200, 0.0, 0.8),
        (300.0, 20, 0.0, 0.8),
        (100.0, 2, 0.0, 0.8),
        (2.0, 50, 0.1, 0.65),
        (5.0, 300, 0.1, 0.3),
    ] {
        let mut now = Instant::now();
        let mut pairs = [Pair::new(now, 0)];
        let queue = queue(mbit, rtt / 2);
        let mut down = Link::new(now, mbit, rtt / 2, loss, queue);
        let mut up = Link::new(now, mbit, rtt / 2, loss, queue);
        let share = shares(&mut pairs, [&mut down, &mut up], &mut now, [5, 10])[0];
        assert!(share > least, "{mbit} Mbit/s, {rtt} ms, {loss} lost: {share:.2}");
    }
}

/// 1.2 Mbit/s on a path of 20: a loss costs no round trip, and those who pay by the byte not the double.
#[test]
fn a_little_on_a_lossy_path_arrives_in_time_most_of_the_time() {
    let mut now = Instant::now();
    let mut pairs = [Pair::new(now, 0)];
    let mut down = Link::new(now, 20.0, 100, 0.03, queue(20.0, 100));
    let mut up = Link::new(now, 20.0, 100, 0.03, queue(20.0, 100));
    // until the path is known
    pairs[0].limit = 5_000_000;
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(8));
    let step = Duration::from_millis(20);
    let (mut due, mut late, steps) = (VecDeque::new(), 0, 250);
    for _ in 0..steps {
        pairs[0].limit += 3_000;
        due.push_back((now + Duration::from_millis(140), pairs[0].limit));
        run(&mut pairs, [&mut down, &mut up], &mut now, step);
        while let Some((_, bytes)) = due.pop_front_if(|(at, _)| *at <= now) {
            late += u32::from(pairs[0].read < bytes);
        }
    }
    assert!(late < steps / 6, "{late} of {steps} late");
    let before = (down.sent, pairs[0].read);
    for _ in 0..3_000 {
        pairs[0].limit += 3_000;
        run(&mut pairs, [&mut down, &mut up], &mut now, step);
    }
    let (sent, read) = (down.sent - before.0, pairs[0].read - before.1);
    let more = sent as f64 / (read as f64 / 1_100.0);
    assert!(more < 1.4, "{more:.2} times as many datagrams as it takes");
}

#[test]
fn two_streams_share_a_path_and_leave_its_queue_short() {
    let mut now = Instant::now();
    let mut pairs = [Pair::new(now, 0), Pair::new(now, 1)];
    let (mbit, rtt) = (20.0, 50);
    let mut down = Link::new(now, mbit, rtt / 2, 0.0, queue(mbit, 400));
    let mut up = Link::new(now, mbit, rtt / 2, 0.0, queue(mbit, 400));
    let shares = shares(&mut pairs, [&mut down, &mut up], &mut now, [15, 15]);
    assert!(shares.iter().sum::<f64>() > 0.75, "{shares:?}");
    assert!(shares.iter().all(|share| *share > 0.2), "{shares:?}");
    let waited = down.longest_wait;
    assert!(waited < Duration::from_millis(200), "the last packets waited for {waited:?}");
}

#[test]
fn a_path_that_becomes_slow_is_not_flooded() {
    let mut now = Instant::now();
    let mut pairs = [Pair::new(now, 0)];
    let mut down = Link::new(now, 50.0, 20, 0.0, queue(50.0, 100));
    let mut up = Link::new(now, 50.0, 20, 0.0, queue(50.0, 100));
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(4));
    down.rate = 5e6;
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(4));
    let (sent, dropped) = (down.sent, down.dropped);
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(4));
    let lost = (down.dropped - dropped) as f64 / (down.sent - sent) as f64;
    assert!(lost < 0.1, "{lost:.2} of what is sent is lost, {:?}", pairs[0].gateway);
}

#[test]
fn a_path_that_becomes_longer_is_used_again_soon() {
    for (before_ms, after_ms, loss) in
        [(1, 100, 0.0), (1, 100, 0.03), (10, 60, 0.0), (20, 60, 0.02)]
    {
        let mut now = Instant::now();
        let mut pairs = [Pair::new(now, 0)];
        let queue = queue(20.0, 100);
        let mut down = Link::new(now, 20.0, before_ms, loss, queue);
        let mut up = Link::new(now, 20.0, before_ms, loss, queue);
        run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(3));
        (down.delay, up.delay) = [after_ms; 2].map(Duration::from_millis).into();
        let share = shares(&mut pairs, [&mut down, &mut up], &mut now, [4, 6])[0];
        assert!(share > 0.7, "{before_ms} to {after_ms} ms, {loss} lost: {share:.2}");
    }
}

#[test]
fn what_is_written_arrives_and_then_the_end_does_over_a_bad_path() {
    let mut now = Instant::now();
    let mut pair = Pair::new(now, 0);
    pair.limit = 3_000_000;
    let mut pairs = [pair];
    let mut down = Link::new(now, 20.0, 30, 0.1, queue(20.0, 30));
    let mut up = Link::new(now, 20.0, 30, 0.1, queue(20.0, 30));
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(1));
    // nothing gets through for a while
    (down.loss, up.loss) = (1.0, 1.0);
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(3));
    (down.loss, up.loss) = (0.1, 0.1);
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(10));
    assert_eq!(pairs[0].read, 3_000_000);
    assert!(!pairs[0].client.is_at_end());
    pairs[0].gateway.finish();
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(2));
    assert!(pairs[0].client.is_at_end() && pairs[0].gateway.is_finished());
}

#[test]
fn an_idle_conversation_has_nothing_to_do() {
    let mut now = Instant::now();
    let mut pair = Pair::new(now, 0);
    pair.limit = 10_000;
    let mut pairs = [pair];
    let mut down = Link::new(now, 20.0, 30, 0.0, queue(20.0, 30));
    let mut up = Link::new(now, 20.0, 30, 0.0, queue(20.0, 30));
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(2));
    let sent = (down.sent, up.sent);
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(60));
    assert_eq!((down.sent, up.sent), sent);
    assert_eq!(pairs[0].gateway.poll_timeout(), None);
    assert_eq!(pairs[0].client.poll_timeout(), None);
}

/// A reader that stops reading is not sent more than it has room for, and goes on where it was.
#[test]
fn a_reader_may_take_its_time() {
    let mut now = Instant::now();
    let mut pairs = [Pair::new(now, 0)];
    let mut down = Link::new(now, 100.0, 5, 0.0, queue(100.0, 30));
    let mut up = Link::new(now, 100.0, 5, 0.0, queue(100.0, 30));
    pairs[0].reads = false;
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(5));
    let waiting = pairs[0].sent;
    assert!(waiting < 12 << 20, "{waiting} bytes were taken");
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(20));
    assert_eq!(pairs[0].sent, waiting);
    pairs[0].reads = true;
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(2));
    assert!(pairs[0].read > waiting + (10 << 20), "{} bytes in 2 s", pairs[0].read - waiting);
}

/// Somebody who has the door key, but has not logged in, takes little memory.
#[test]
fn a_stranger_with_the_key_gets_little_room() {
    let now = Instant::now();
    let (door, from) = (door(), client_address(1));
    let mut client = link::client(now, 1);
    client.write(&vec![7; 4 << 20]);
    let mut gateway = None;
    let mut later = now;
    for _ in 0..2_000 {
        later += Duration::from_millis(5);
        for mut datagram in datagrams(&mut client, later) {
            let head = door.head(&datagram).unwrap();
            match &mut gateway {
                None => {
                    let begun = link::begin(later, &door, &head, from, &mut datagram);
                    gateway = Some(begun);
                }
                Some(gateway) => {
                    gateway.handle(later, from, &head, &mut datagram);
                }
            }
        }
        for mut datagram in gateway.as_mut().map(|g| datagrams(g, later)).into_iter().flatten() {
            let head = door.head(&datagram).unwrap();
            client.handle(later, gateway_address(), &head, &mut datagram);
        }
    }
    let mut gateway = gateway.unwrap();
    let held = gateway.read(&mut vec![0; 1 << 20]);
    assert!((16_000..=33_000).contains(&held), "{held} bytes were held");
}

/// Datagrams that are repeated, late, of the wrong direction or of another conversation.
#[test]
fn nothing_is_taken_twice_or_from_elsewhere() {
    let mut now = Instant::now();
    let door = door();
    let (mut one, mut other) = (Pair::new(now, 1), Pair::new(now, 2));
    one.gateway.write(b"once");
    now += Duration::from_millis(1);
    let sent = datagrams(&mut one.gateway, now);
    assert!(!sent.is_empty());
    for datagram in &sent {
        let head = door.head(datagram).unwrap();
        let take = |to: &mut cipherwall_proto::kcp::Conversation| {
            to.handle(now, gateway_address(), &head, &mut datagram.clone())
        };
        assert_eq!(take(&mut other.client), None);
        assert_eq!(take(&mut one.gateway), None, "its own, reflected");
        assert_eq!(take(&mut one.client), Some(NOW_S));
        assert_eq!(take(&mut one.client), None, "the same again");
    }
    let mut read = [0; 10];
    assert_eq!(one.client.read(&mut read), 4);
    assert_eq!(&read[..4], b"once");
}

/// A client whose address changes is followed, and its stream goes on.
#[test]
fn a_client_that_moves_is_followed() {
    let mut now = Instant::now();
    let mut pairs = [Pair::new(now, 0)];
    let mut down = Link::new(now, 20.0, 30, 0.0, queue(20.0, 30));
    let mut up = Link::new(now, 20.0, 30, 0.0, queue(20.0, 30));
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(2));
    pairs[0].address = client_address(99);
    let before = pairs[0].read;
    run(&mut pairs, [&mut down, &mut up], &mut now, Duration::from_secs(3));
    assert_eq!(pairs[0].gateway.peer(), client_address(99));
    let read = pairs[0].read - before;
    assert!(read > 3_000_000, "{read} bytes in 3 s");
}

/// Somebody with the door key asks, begins TLS and falls silent: what waits for his address to show
/// itself wakes nobody up.
#[test]
fn a_client_that_falls_silent_is_waited_for_without_work() {
    let start = Instant::now();
    let (door, from) = (door(), client_address(1));
    let mut client = link::client(start, 1);
    client.write(&[0; 300]);
    let mut gateway = None;
    for mut datagram in datagrams(&mut client, start) {
        let head = door.head(&datagram).unwrap();
        match &mut gateway {
            None => gateway = Some(link::begin(start, &door, &head, from, &mut datagram)),
            Some(gateway) => drop(gateway.handle(start, from, &head, &mut datagram)),
        }
    }
    let mut gateway = gateway.unwrap();
    gateway.write(&[0; 5_000]);
    let (mut now, mut wakes, mut sent) = (start, 0, 0);
    let end = start + Duration::from_secs(60);
    while now < end {
        sent += datagrams(&mut gateway, now).iter().map(Vec::len).sum::<usize>();
        let Some(due) = gateway.poll_timeout() else { break };
        assert!(due > now, "it would be woken up at once, after {wakes} times");
        (now, wakes) = (due, wakes + 1);
    }
    assert!(wakes < 200, "woken up {wakes} times");
    assert!(sent < 3 * 600, "{sent} bytes");
}
