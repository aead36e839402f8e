use std::sync::{Arc, Mutex};

use super::*;

const MS: Duration = Duration::from_millis(1);

/// What becomes of an attempt, by address and how often it was tried before.
#[derive(Clone, Copy)]
enum Fate {
    Connects(u64),
    Refused,
    NoRoute,
    Silent,
}

type Log = Arc<Mutex<Vec<(u64, char)>>>;

/// A hedge over addresses named by letters, with a log of when each was tried (ms).
fn hedge(
    addresses: &str,
    patience: Patience,
    fate: impl Fn(char, u64) -> Fate + Send + 'static,
) -> (Hedge<char, char>, Log) {
    let log = Log::default();
    let tried = log.clone();
    let start = Instant::now();
    let open = move |address: &char| -> Opening<char> {
        let address = *address;
        let at = start.elapsed().as_millis() as u64;
        tried.lock().unwrap().push((at, address));
        let fate = fate(address, at);
        Box::pin(async move {
            match fate {
                Fate::Connects(after) => {
                    tokio::time::sleep(MS * after as u32).await;
                    Ok(address)
                }
                Fate::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
                Fate::NoRoute => Err(io::ErrorKind::NetworkUnreachable.into()),
                Fate::Silent => std::future::pending().await,
            }
        })
    };
    let addresses = addresses.chars().map(|address| (address, reluctance(address))).collect();
    (Hedge::new(addresses, patience, open), log)
}

/// Of those that a test calls x, y and z.
fn reluctance(address: char) -> u8 {
    "xyz".find(address).map_or(0, |at| at as u8 + 1)
}

async fn tried_within(hedge: &mut Hedge<char, char>, log: &Log, time: Duration) -> Vec<u64> {
    assert!(timeout(time, hedge.next()).await.is_err());
    std::mem::take(&mut *log.lock().unwrap()).iter().map(|(at, _)| *at).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_address_that_answers_wins_and_the_next_does_not_wait_for_long() {
    let (mut hedge, log) = hedge("abc", Patience::Once, |address, _| match address {
        'a' => Fate::Silent,
        'b' => Fate::Connects(400),
        _ => Fate::Connects(10),
    });
    let start = Instant::now();
    let won = hedge.next().await.ok().unwrap();
    assert_eq!((won.address, won.connection, won.took), ('c', 'c', 10 * MS));
    assert_eq!(start.elapsed(), 510 * MS);
    assert_eq!(*log.lock().unwrap(), [(0, 'a'), (250, 'b'), (500, 'c')]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_makes_place_for_the_next_at_once() {
    let (mut hedge, log) = hedge("ab", Patience::Once, |address, _| match address {
        'a' => Fate::NoRoute,
        _ => Fate::Connects(5),
    });
    assert_eq!(hedge.next().await.ok().unwrap().address, 'b');
    assert_eq!(*log.lock().unwrap(), [(0, 'a'), (0, 'b')]);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_once_hears_of_a_refusal_at_once_and_of_silence_after_5_s() {
    let (mut refused, _) = hedge("ab", Patience::Once, |address, _| match address {
        'a' => Fate::Refused,
        _ => Fate::NoRoute,
    });
    let start = Instant::now();
    let (address, error) = refused.next().await.err().and_then(most_telling).unwrap();
    assert_eq!((address, error.kind()), ('a', io::ErrorKind::ConnectionRefused));
    assert_eq!(start.elapsed(), Duration::ZERO);

    let (mut silent, _) = hedge("a", Patience::Once, |_, _| Fate::Silent);
    let (_, error) = silent.next().await.err().and_then(most_telling).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), ONCE);

    let (mut none, _) = hedge("", Patience::Once, |_, _| Fate::Silent);
    assert!(none.next().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_return_of_a_silent_path_is_found_within_half_a_second() {
    for back in (3_000..4_000).step_by(37) {
        let (mut hedge, _) = hedge("a", Patience::Endless, move |_, at| {
            if at >= back { Fate::Connects(20) } else { Fate::Silent }
        });
        let start = Instant::now();
        assert!(hedge.next().await.is_ok());
        let after = start.elapsed() - MS * back as u32;
        assert!(after <= 600 * MS, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_round_trip_is_no_failure() {
    let (mut hedge, _) = hedge("a", Patience::Endless, |_, _| Fate::Connects(2_500));
    let start = Instant::now();
    assert_eq!(hedge.next().await.ok().unwrap().took, 2_500 * MS);
    assert_eq!(start.elapsed(), 2_500 * MS);
}

#[tokio::test(start_paused = true)]
async fn silence_is_knocked_at_more_seldom_by_and_by_and_never_given_up() {
    let (mut hedge, log) = hedge("a", Patience::Endless, |_, _| Fate::Silent);
    let minute = tried_within(&mut hedge, &log, Duration::from_secs(60)).await.len();
    assert!((100..=140).contains(&minute), "{minute}");
    tried_within(&mut hedge, &log, Duration::from_secs(3_600)).await;
    let minute = tried_within(&mut hedge, &log, Duration::from_secs(60)).await.len();
    assert!((5..=7).contains(&minute), "{minute}");
}

#[tokio::test(start_paused = true)]
async fn a_restarting_gateway_is_tried_every_quarter_second_but_not_for_long() {
    let (mut hedge, log) = hedge("a", Patience::Endless, |_, _| Fate::Refused);
    let at_first = tried_within(&mut hedge, &log, Duration::from_secs(5)).await.len();
    assert!((17..=25).contains(&at_first), "{at_first}");
    tried_within(&mut hedge, &log, Duration::from_secs(60)).await;
    let later = tried_within(&mut hedge, &log, Duration::from_secs(60)).await.len();
    assert!((3..=7).contains(&later), "{later}");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_comes_back_is_taken_by_the_address_that_is_preferred() {
    for back in (3_000..5_000).step_by(53) {
        let (mut hedge, _) = hedge("axyz", Patience::Endless, move |_, at| {
            if at >= back { Fate::Connects(20) } else { Fate::Silent }
        });
        let start = Instant::now();
        assert_eq!(hedge.next().await.ok().unwrap().address, 'a');
        let after = start.elapsed() - MS * back as u32;
        assert!(after <= 600 * MS, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_taken_reluctantly_waits_for_a_moment_and_not_for_what_fails() {
    let of = |fate: Fate| {
        move |address, _| match address {
            'a' => fate,
            'x' => Fate::Connects(20),
            _ => Fate::Connects(400),
        }
    };
    let (mut silent, log) = hedge("ay", Patience::Once, of(Fate::Silent));
    let start = Instant::now();
    assert_eq!(silent.next().await.ok().unwrap().address, 'y');
    assert_eq!(start.elapsed(), (250 + 400 + 250 + 2 * 400) * MS);
    assert_eq!(log.lock().unwrap()[..2], [(0, 'a'), (250, 'y')]);
    let failed: Vec<_> = silent.take_failed().into_iter().map(|(address, _)| address).collect();
    assert_eq!(failed, ['a'], "no answer until then");

    let (mut refused, _) = hedge("ax", Patience::Once, of(Fate::Refused));
    let start = Instant::now();
    assert_eq!(refused.next().await.ok().unwrap().address, 'x');
    assert!(start.elapsed() < 30 * MS, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_leads_nowhere_is_tried_after_all_others() {
    let (mut hedge, log) = hedge("abc", Patience::Endless, |_, _| Fate::Connects(5));
    assert_eq!(hedge.next().await.ok().unwrap().address, 'a');
    hedge.set_back(&'a');
    assert_eq!(hedge.next().await.ok().unwrap().address, 'b');
    hedge.set_back(&'b');
    assert_eq!(hedge.next().await.ok().unwrap().address, 'c');
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_where_it_was_left_and_begins_again_when_told() {
    let (mut hedge, log) =
        hedge(
            "a",
            Patience::Endless,
            |_, at| {
                if at >= 1_000 { Fate::Connects(700) } else { Fate::Silent }
            },
        );
    let start = Instant::now();
    while timeout(100 * MS, hedge.next()).await.is_err() {}
    assert!(start.elapsed() < 1_000 * MS + 600 * MS + 700 * MS, "{:?}", start.elapsed());
    log.lock().unwrap().clear();
    hedge.again();
    assert!(hedge.next().await.is_ok());
    assert_eq!(log.lock().unwrap().len(), 2, "at once, and half a second later");
}
