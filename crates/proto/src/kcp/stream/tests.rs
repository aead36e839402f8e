//! What somebody can do to the stream who has the door key.

use super::*;

const CONVERSATION: u32 = 0x0102_0304;

/// A segment with these bytes.
fn push(number: u32, data: &[u8]) -> Vec<u8> {
    let segment =
        Segment { command: PUSH, window: 100, time: 7, number, unacknowledged: 0, len: 0 };
    let mut bytes = gate::encode(CONVERSATION, &segment).to_vec();
    bytes[20..24].copy_from_slice(&(data.len() as u32).to_le_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The numbers that the datagrams which leave now acknowledge.
fn acknowledged(stream: &mut Stream, now: Instant) -> Vec<u32> {
    stream.poll(now);
    let mut numbers = Vec::new();
    let note = |kcp: &[u8], numbers: &mut Vec<u32>| {
        let segments = gate::segments(CONVERSATION, kcp).unwrap();
        numbers.extend(segments.filter(|one| one.command == ACK).map(|one| one.number));
        true
    };
    while stream.transmit(|kcp| note(kcp, &mut numbers)) {}
    numbers
}

#[test]
fn what_is_acknowledged_when_nothing_can_leave_is_bounded() {
    let now = Instant::now();
    for admitted in [false, true] {
        let mut stream = Stream::new(now, CONVERSATION);
        if admitted {
            stream.admit();
        }
        let datagram = push(0, b"").repeat(49);
        for _ in 0..1_000 {
            stream.handle(now, &datagram);
        }
        let owed = acknowledged(&mut stream, now).len();
        assert!(owed <= usize::from(stream.window), "{owed} for a window of {}", stream.window);
        stream.handle(now, &push(0, b""));
        assert_eq!(acknowledged(&mut stream, now), [0], "then it goes on");
    }
}

#[test]
fn the_library_hears_of_no_endless_round_trip() {
    let start = Instant::now();
    let mut stream = Stream::new(start, CONVERSATION);
    let acknowledgement = |time: u32| {
        let segment =
            Segment { command: ACK, window: 9, time, number: 3, unacknowledged: 0, len: 0 };
        gate::encode(CONVERSATION, &segment)
    };
    let come = [1, 65_001, 60_000].map(acknowledgement);
    let heard = [65_000, 65_001, 65_000].map(acknowledgement);
    let now = start + Duration::from_secs(70);
    assert_eq!(*stream.sift(now, come.as_flattened()), *heard.as_flattened());
}

#[test]
fn what_comes_again_is_acknowledged_and_costs_the_library_nothing() {
    let now = Instant::now();
    let mut stream = Stream::new(now, CONVERSATION);
    stream.admit();
    for number in 1..u32::from(WINDOW) {
        stream.handle(now, &push(number, b"x"));
    }
    let owed = acknowledged(&mut stream, now);
    assert!(owed.iter().copied().eq(1..u32::from(WINDOW)));
    let tell = |number| {
        let mut bytes = push(number, b"");
        bytes[4] = TELL_WINDOW;
        bytes
    };
    let again = [push(1, b"y"), tell(9), push(2, b"")].concat();
    assert_eq!(*stream.sift(now, &again), [tell(1), tell(9), tell(2)].concat());
    assert_eq!(stream.arrivals.take_again(), [(1, 7), (2, 7)]);
    stream.handle(now, &again);
    assert_eq!(acknowledged(&mut stream, now), [1, 2]);
    stream.handle(now, &[push(0, b"x"), push(1, b"y")].concat());
    let mut last = acknowledged(&mut stream, now);
    last.sort_unstable();
    assert_eq!(last, [0, 1]);
    let mut read = vec![0; 10_000];
    assert_eq!(stream.read(&mut read), usize::from(WINDOW));
    assert!(read[..usize::from(WINDOW)].iter().all(|byte| *byte == b'x'), "what came first");
}
