//! The table of RFC 7541: fields that are always known, and those of this connection.

use std::collections::VecDeque;

/// A name and a value.
pub(in crate::site::http2) type Field = (Vec<u8>, Vec<u8>);

/// The most that a connection's own fields may take, in bytes.
const SIZE_MAX: usize = 4_096;
/// What a field takes besides name and value (RFC 7541, 4.1).
const OVERHEAD: usize = 32;

/// Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The fields of a connection, the latest first.
pub(super) struct Table {
    fields: VecDeque<Field>,
    size: usize,
    size_max: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { fields: VecDeque::new(), size: 0, size_max: SIZE_MAX }
    }

    /// The field of this index.
    pub(super) fn field(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.fields.get(index - STATIC.len()).cloned(),
        }
    }

    /// Adds a field; the oldest ones make room.
    pub(super) fn add(&mut self, field: Field) {
        let size = size(&field);
        self.shrink(self.size_max.saturating_sub(size));
        if size <= self.size_max {
            self.size += size;
            self.fields.push_front(field);
        }
    }

    /// Bounds the table; whether that is allowed.
    pub(super) fn resize(&mut self, size_max: usize) -> bool {
        if size_max > SIZE_MAX {
            return false;
        }
        self.size_max = size_max;
        self.shrink(size_max);
        true
    }

    fn shrink(&mut self, size_max: usize) {
        while self.size > size_max {
            let Some(oldest) = self.fields.pop_back() else { return };
            self.size -= size(&oldest);
        }
    }
}

fn size((name, value): &Field) -> usize {
    name.len() + value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_fields_stay() {
        let mut table = Table::new();
        assert_eq!(table.field(2), Some((b":method".to_vec(), b"GET".to_vec())));
        assert_eq!(table.field(0), None);
        assert_eq!(table.field(62), None);
        let field = |n: u8| (vec![n; 1_000], vec![]);
        for n in 0..5 {
            table.add(field(n));
        }
        assert_eq!(table.field(62), Some(field(4)));
        assert_eq!(table.field(64), Some(field(2)));
        assert_eq!(table.field(65), None);
        assert!(!table.resize(4_097));
        assert!(table.resize(1_100));
        assert_eq!((table.field(62), table.field(63)), (Some(field(4)), None));
        table.add((vec![0; 5_000], vec![]));
        assert_eq!(table.field(62), None);
    }
}
