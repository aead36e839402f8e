//! The committed corpus in the ordinary tests.

use std::{fs, path::Path};

/// Runs a target over its corpus.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).expect("a corpus");
    let mut count = 0;
    for file in files {
        let path = file.expect("a file").path();
        let data = fs::read(&path).expect("its content");
        let ran = std::panic::catch_unwind(|| run(&data));
        assert!(ran.is_ok(), "{} makes the target {target} panic", path.display());
        count += 1;
    }
    assert!(count >= 10, "{} holds only {count} files", dir.display());
}
