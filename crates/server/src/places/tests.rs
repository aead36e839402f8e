use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn places(connections: u32, connections_per_address: u32) -> Arc<Places> {
    Places::new(Limits { connections, connections_per_address, ..Limits::default() })
}

fn is_shed(shed: &mut Shed) -> bool {
    shed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
}

/// One connection, and whether it is still there.
struct Guest {
    place: Place,
    shed: Shed,
}

impl Guest {
    fn come(places: &Arc<Places>, address: &str, stage: Stage) -> Guest {
        let (mut place, shed) = places.take(ip(address)).unwrap();
        place.advance(stage);
        Guest { place, shed }
    }

    fn is_gone(&mut self) -> bool {
        is_shed(&mut self.shed)
    }
}

#[test]
fn of_one_network_the_oldest_gives_way_and_places_come_back() {
    let places = places(100, 2);
    let mut first = Guest::come(&places, "2001:db8::1", Stage::Silent);
    let mut second = Guest::come(&places, "2001:db8::ffff", Stage::Silent);
    let mut other = Guest::come(&places, "2001:db8:0:1::1", Stage::Silent);
    assert!(!first.is_gone());
    // addresses of one /64 count as one
    let third = Guest::come(&places, "2001:db8::2", Stage::Silent);
    assert!(first.is_gone() && !second.is_gone() && !other.is_gone());
    drop(third);
    let _fourth = Guest::come(&places, "2001:db8::3", Stage::Silent);
    assert!(!second.is_gone());
}

#[test]
fn behind_an_attacker_s_address_a_client_gets_in() {
    let places = places(1_000, 64);
    for stage in CROWDS {
        let mut crowd: Vec<Guest> =
            (0..64).map(|_| Guest::come(&places, "192.0.2.1", stage)).collect();
        let mut client = Guest::come(&places, "192.0.2.1", Stage::Silent);
        // goes on while the attacker comes again with all that is turned away
        for next in [Stage::Speaking, Stage::Knocked, Stage::Asking] {
            crowd.extend((0..20).map(|_| Guest::come(&places, "192.0.2.1", stage)));
            assert!(client.place.advance(next), "{stage:?}: client is gone before {next:?}");
        }
        assert!(!client.is_gone());
    }
}

#[test]
fn when_all_are_taken_the_oldest_silent_one_goes_then_visitors_never_those_who_ask() {
    let places = places(3, 10);
    let mut asking = Guest::come(&places, "192.0.2.1", Stage::Asking);
    let mut visitor = Guest::come(&places, "192.0.2.2", Stage::Visitor);
    let mut silent = Guest::come(&places, "192.0.2.3", Stage::Silent);

    let mut second = Guest::come(&places, "192.0.2.4", Stage::Silent);
    assert!(silent.is_gone() && !visitor.is_gone() && !second.is_gone());
    drop(silent); // its place is another's by now
    assert!(second.place.advance(Stage::Asking));
    let mut third = Guest::come(&places, "192.0.2.5", Stage::Silent);
    assert!(visitor.is_gone());
    assert!(!visitor.place.advance(Stage::Asking), "too late");
    assert!(third.place.advance(Stage::Asking));
    assert!(places.take(ip("192.0.2.6")).is_none(), "all three ask");
    assert!(!asking.is_gone() && !second.is_gone());
    // who was refused may have to go again
    third.place.advance(Stage::Knocked);
    let _sixth = Guest::come(&places, "192.0.2.6", Stage::Silent);
    assert!(third.is_gone());
}

#[test]
fn a_newcomer_outlives_a_crowd_of_visitors() {
    let places = places(10, 10);
    let mut crowd: Vec<Guest> =
        (0..10).map(|n| Guest::come(&places, &format!("192.0.2.{n}"), Stage::Visitor)).collect();
    let mut newcomer = Guest::come(&places, "198.51.100.1", Stage::Speaking);
    for n in 0..4 {
        crowd.push(Guest::come(&places, &format!("203.0.113.{n}"), Stage::Silent));
    }
    assert!(!newcomer.is_gone());
    assert_eq!(crowd.iter_mut().filter_map(|guest| guest.is_gone().then_some(())).count(), 5);
}

#[test]
fn few_addresses_with_many_connections_give_way_to_one_with_few() {
    let places = places(100, 64);
    let mut newcomer = Guest::come(&places, "198.51.100.1", Stage::Silent);
    let attack = |n: usize| Guest::come(&places, &format!("192.0.2.{}", n % 4), Stage::Silent);
    let mut crowd: Vec<Guest> = (0..300).map(attack).collect();
    assert!(!newcomer.is_gone(), "the newcomer is the oldest, and the only one from there");
    let gone: Vec<bool> = crowd.iter_mut().map(Guest::is_gone).collect();
    let expected: Vec<bool> = (0..300).map(|n| n < 201).collect();
    assert_eq!(gone, expected, "the oldest went");
}

#[test]
fn those_that_take_memory_are_few() {
    let places = places(4_096, 4_096);
    let mut crowd: Vec<Guest> =
        (0..SPEAKING_MAX + 5).map(|_| Guest::come(&places, "192.0.2.1", Stage::Silent)).collect();
    let stages = [Stage::Speaking, Stage::Visitor, Stage::Knocked];
    for (guest, stage) in crowd.iter_mut().zip(stages.into_iter().cycle()) {
        guest.place.advance(stage);
    }
    let gone = crowd.iter_mut().map(Guest::is_gone).collect::<Vec<_>>();
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 5);
    assert!(gone[..10].iter().filter(|gone| **gone).count() == 5, "old ones went");
}

#[test]
fn who_has_spoken_does_not_go_for_silence() {
    let places = places(100, 4);
    let mut late = Guest::come(&places, "192.0.2.1", Stage::Silent);
    let _crowd: Vec<Guest> =
        (0..50).map(|_| Guest::come(&places, "192.0.2.1", Stage::Silent)).collect();
    assert!(late.is_gone(), "nobody had time to look");
    late.shed = late.place.speak(late.shed).unwrap();
    let _more: Vec<Guest> =
        (0..50).map(|_| Guest::come(&places, "192.0.2.1", Stage::Silent)).collect();
    assert!(!late.is_gone());
    assert!(late.place.advance(Stage::Visitor));
}

#[test]
fn descriptors_are_bounded_also_of_those_who_have_to_go() {
    let places = places(10, 10);
    let address = ip("192.0.2.1");
    let crowd: Vec<_> = std::iter::from_fn(|| places.take(address)).take(1_000).collect();
    assert_eq!(crowd.len(), 10 + GOING_MAX);
    drop(crowd);
    assert!(places.take(address).is_some());
}

#[test]
fn room_is_made_on_demand() {
    let places = places(10, 10);
    let mut first = Guest::come(&places, "192.0.2.1", Stage::Visitor);
    places.make_room();
    assert!(first.is_gone());
    places.make_room();
    assert_eq!(places.strangers(), Strangers { connections: 0, gave_way: 1 });
}

#[test]
fn nothing_is_left_behind() {
    let places = places(4, 2);
    let stages = [CROWDS.as_slice(), &[Stage::Asking]].concat();
    for n in 0..100_u8 {
        let (mut place, _shed) = places.take(IpAddr::from([192, 0, 2, n])).unwrap();
        stages.iter().for_each(|stage| _ = place.advance(*stage));
    }
    let taken = places.lock();
    assert!(taken.open.is_empty() && taken.networks.is_empty());
    for crowd in &taken.crowds {
        assert!(crowd.members.is_empty() && crowd.order.is_empty() && crowd.count == 0);
    }
}
