//! Both ends of a session against a reference model (docs/fuzzing.md): random stories here, those
//! that fuzzing has found in the corpus.

#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../fuzz/bodies/session/mod.rs"]
mod session;

use proptest::prelude::*;
use replay::replay;

#[test]
fn sessions() {
    replay("session", session::run);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_happens_users_get_what_they_may_expect(
        settings in any::<[u8; 2]>(),
        steps in proptest::collection::vec(any::<[u8; 2]>(), 0..200),
    ) {
        session::run(&[&settings[..], &steps.concat()].concat());
    }
}
