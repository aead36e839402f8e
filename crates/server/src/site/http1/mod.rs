//! HTTP/1 as nginx speaks it.

mod chunks;
mod fields;
mod line;
mod reader;
mod serve;

pub(super) use serve::serve;

#[cfg(test)]
#[path = "../../../../../fuzz/bodies/http1.rs"]
mod body;

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_the_fuzz_target() {
        crate::replay::replay("http1", super::body::run);
    }
}
