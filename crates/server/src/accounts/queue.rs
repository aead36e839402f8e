//! Turns at a work that is expensive: few at a time, few waiting, the least suspicious first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How little is known of who asks: the least is served first, the most gives up its place in a
/// full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suspicion(u32);

impl Suspicion {
    /// Who has shown a device's key or an invitation's secret.
    pub(super) const NONE: Suspicion = Suspicion(0);

    /// Who comes from an address with so many tries lately, its own among them.
    pub(super) fn of(tries: u32) -> Suspicion {
        Suspicion(tries.max(1))
    }
}

/// Hands out the turns.
pub(super) struct Queue {
    at_a_time: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    working: usize,
    /// The first is next.
    waiting: BTreeMap<(Suspicion, u64), oneshot::Sender<Turn>>,
    next: u64,
}

/// One's turn, until it is dropped.
pub(super) struct Turn {
    queue: Arc<Queue>,
}

impl Queue {
    pub(super) fn new(at_a_time: usize, waiting_max: usize) -> Arc<Queue> {
        Arc::new(Queue { at_a_time, waiting_max, state: Mutex::default() })
    }

    /// Waits for a turn. `None` if the queue is full of others who are no more suspicious, or
    /// becomes so.
    pub(super) async fn turn(self: &Arc<Self>, suspicion: Suspicion) -> Option<Turn> {
        let turn = {
            let mut state = self.lock();
            if state.working < self.at_a_time {
                state.working += 1;
                return Some(Turn { queue: self.clone() });
            }
            if !state.has_room(self.waiting_max, suspicion) {
                return None;
            }
            let (give, turn) = oneshot::channel();
            let number = state.next;
            state.next += 1;
            state.waiting.insert((suspicion, number), give);
            turn
        };
        turn.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for one more, if need be by sending a more suspicious one away.
    fn has_room(&mut self, waiting_max: usize, suspicion: Suspicion) -> bool {
        if self.waiting.len() < waiting_max {
            return true;
        }
        // who has left meanwhile
        self.waiting.retain(|_, give| !give.is_closed());
        if self.waiting.len() >= waiting_max
            && let Some(last) = self.waiting.last_entry()
            && last.key().0 > suspicion
        {
            last.remove();
        }
        self.waiting.len() < waiting_max
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.queue.lock();
            let next = state.waiting.pop_first();
            if next.is_none() {
                state.working -= 1;
            }
            next
        };
        if let Some((_, give)) = next {
            // to somebody who has left: the turn is dropped, and goes to the next
            let _ = give.send(Turn { queue: self.queue.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Option<Turn>>>>;

    /// Somebody in the queue, or sent away at once.
    fn ask(queue: &Arc<Queue>, suspicion: Suspicion) -> Waiting {
        let queue = queue.clone();
        let mut waiting: Waiting = Box::pin(async move { queue.turn(suspicion).await });
        if let Some(decided) = now(&mut waiting) {
            waiting = Box::pin(std::future::ready(decided));
        }
        waiting
    }

    /// What has come of it, if anything yet.
    fn now(waiting: &mut Waiting) -> Option<Option<Turn>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(decided) => Some(decided),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_least_suspicious_goes_first_then_the_first() {
        let queue = Queue::new(1, 4);
        let turn = now(&mut ask(&queue, Suspicion::of(9))).unwrap().unwrap();
        let mut third = ask(&queue, Suspicion::of(5));
        let mut second = ask(&queue, Suspicion::of(1));
        let mut fourth = ask(&queue, Suspicion::of(5));
        let mut first = ask(&queue, Suspicion::NONE);
        drop(turn);
        for waiting in [&mut first, &mut second, &mut third, &mut fourth] {
            drop(now(waiting).expect("not his turn").expect("sent away"));
        }
        assert_eq!(queue.lock().working, 0);
    }

    #[test]
    fn in_a_full_queue_the_most_suspicious_gives_way_and_equals_do_not() {
        let queue = Queue::new(1, 2);
        let _turn = now(&mut ask(&queue, Suspicion::NONE)).unwrap().unwrap();
        let mut crowd = [ask(&queue, Suspicion::of(7)), ask(&queue, Suspicion::of(7))];
        assert!(now(&mut ask(&queue, Suspicion::of(7))).unwrap().is_none());
        let mut better = ask(&queue, Suspicion::of(3));
        assert!(now(&mut better).is_none(), "it waits");
        assert!(now(&mut crowd[1]).unwrap().is_none(), "the latest was sent away for it");
        assert!(now(&mut crowd[0]).is_none());
        let mut device = ask(&queue, Suspicion::NONE);
        assert!(now(&mut device).is_none());
        assert!(now(&mut crowd[0]).unwrap().is_none());
    }

    #[test]
    fn who_leaves_takes_nothing_along() {
        let queue = Queue::new(1, 2);
        let turn = now(&mut ask(&queue, Suspicion::NONE)).unwrap().unwrap();
        drop([ask(&queue, Suspicion::of(1)), ask(&queue, Suspicion::of(1))]);
        let mut patient = ask(&queue, Suspicion::of(8));
        drop(ask(&queue, Suspicion::of(1)));
        drop(turn);
        drop(now(&mut patient).expect("not his turn").unwrap());
        // one whose turn came and who never looked
        let turn = now(&mut ask(&queue, Suspicion::NONE)).unwrap().unwrap();
        let unaware = ask(&queue, Suspicion::NONE);
        drop(turn);
        drop(unaware);
        assert_eq!(queue.lock().working, 0);
    }
}
