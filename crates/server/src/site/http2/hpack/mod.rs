//! Fields in HTTP/2 (RFC 7541), with nginx's bounds, and written as it writes them.

mod huffman;
mod table;

use table::Table;

pub(super) use table::Field;

use super::code::{COMPRESSION_ERROR, Code, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, PROTOCOL_ERROR};

/// The largest name or value, in bytes, as nginx takes them.
const STRING_MAX: usize = 8 * 1_024;
/// The largest integer has so many bytes.
const INT_MAX: usize = 4;

/// What stands at the beginning of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A field.
    Field(Field),
    /// Something about the table.
    Other,
}

/// Reads the blocks of one connection.
pub(super) struct Decoder {
    table: Table,
}

/// What stands in front of a value that is cut.
enum Cut {
    /// There is more to come.
    Short,
    Wrong(Code),
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { table: Table::new() }
    }

    /// The first item of a block and its length; `None` if more of the block has to come.
    /// `is_whole`: nothing more comes. `is_void`: nobody wants the fields, and what does not change the
    /// table is passed over unjudged, as by nginx.
    pub(super) fn next(
        &mut self,
        block: &[u8],
        is_whole: bool,
        is_void: bool,
    ) -> Result<Option<(Item, usize)>, Code> {
        let is_passed = is_void && block.first().is_some_and(|first| first & 0x40 == 0);
        let mut reader = Reader { rest: block, is_passed };
        match self.item(&mut reader) {
            Ok(item) => Ok(Some((item, block.len() - reader.rest.len()))),
            Err(Cut::Short) if is_whole => Err(FRAME_SIZE_ERROR),
            Err(Cut::Short) => Ok(None),
            Err(Cut::Wrong(code)) => Err(code),
        }
    }

    fn item(&mut self, reader: &mut Reader<'_>) -> Result<Item, Cut> {
        let wrong = Cut::Wrong(COMPRESSION_ERROR);
        let first = *reader.rest.first().ok_or(Cut::Short)?;
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let number = reader.int(bits)?;
        match first {
            0x80.. => return self.table.field(number).map(Item::Field).ok_or(wrong),
            0x20..0x40 if self.table.resize(number) => return Ok(Item::Other),
            0x20..0x40 => return Err(wrong),
            _ => {}
        }
        let name = match number {
            0 => reader.string()?,
            _ => self.table.field(number).ok_or(wrong)?.0,
        };
        if name.is_empty() && !reader.is_passed {
            return Err(Cut::Wrong(PROTOCOL_ERROR));
        }
        let field = (name, reader.string()?);
        if first & 0x40 != 0 {
            self.table.add(field.clone());
        }
        Ok(Item::Field(field))
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Strings are passed over, not decoded.
    is_passed: bool,
}

impl Reader<'_> {
    /// An integer with a prefix of so many bits.
    fn int(&mut self, bits: u32) -> Result<usize, Cut> {
        let prefix = (1 << bits) - 1;
        let (first, rest) = self.rest.split_first().ok_or(Cut::Short)?;
        let mut value = usize::from(first & prefix);
        self.rest = rest;
        if value < usize::from(prefix) {
            return Ok(value);
        }
        for at in 0..INT_MAX - 1 {
            let (byte, rest) = self.rest.split_first().ok_or(Cut::Short)?;
            self.rest = rest;
            value += usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Cut::Wrong(COMPRESSION_ERROR))
    }

    fn string(&mut self) -> Result<Vec<u8>, Cut> {
        let is_coded = self.rest.first().ok_or(Cut::Short)? & 0x80 != 0;
        let length = self.int(7)?;
        if length > STRING_MAX {
            return Err(Cut::Wrong(ENHANCE_YOUR_CALM));
        }
        let (string, rest) = self.rest.split_at_checked(length).ok_or(Cut::Short)?;
        self.rest = rest;
        match is_coded && !self.is_passed {
            true => huffman::decode(string).ok_or(Cut::Wrong(COMPRESSION_ERROR)),
            false => Ok(string.to_vec()),
        }
    }
}

/// Writes a field whose name is in the static table at `index`, into the table of the other end.
pub(super) fn write_known(block: &mut Vec<u8>, index: u8, value: &[u8]) {
    block.push(0x40 | index);
    write_string(block, value);
}

/// The same, never compressed.
pub(super) fn write_known_raw(block: &mut Vec<u8>, index: u8, value: &str) {
    block.push(0x40 | index);
    write_int(block, 0, value.len());
    block.extend_from_slice(value.as_bytes());
}

/// Writes any other field.
pub(super) fn write(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    block.push(0);
    write_string(block, name.to_ascii_lowercase().as_bytes());
    write_string(block, value);
}

fn write_string(block: &mut Vec<u8>, string: &[u8]) {
    match huffman::encode(string) {
        Some(coded) => {
            write_int(block, 0x80, coded.len());
            block.extend_from_slice(&coded);
        }
        None => {
            write_int(block, 0, string.len());
            block.extend_from_slice(string);
        }
    }
}

/// An integer with a prefix of 7 bits.
fn write_int(block: &mut Vec<u8>, flag: u8, value: usize) {
    let Some(mut rest) = value.checked_sub(0x7f) else {
        block.push(flag | value as u8);
        return;
    };
    block.push(flag | 0x7f);
    while rest >= 0x80 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Item {
        Item::Field((name.into(), value.into()))
    }

    #[test]
    fn examples_of_the_rfc() {
        // RFC 7541, C.4.1 and C.4.2
        let mut decoder = Decoder::new();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let mut items = Vec::new();
        for mut block in [&first[..], second] {
            while let Some((item, length)) = decoder.next(block, block.len() > 99, false).unwrap() {
                items.push(item);
                block = &block[length..];
            }
            assert_eq!(block, b"");
        }
        assert_eq!(items[3], field(":authority", "www.example.com"));
        assert_eq!(items[7], field(":authority", "www.example.com"));
        assert_eq!(items[8], field("cache-control", "no-cache"));
    }

    #[test]
    fn what_is_cut_waits_and_what_is_wrong_has_nginx_s_code() {
        let read = |block: &[u8], is_whole| Decoder::new().next(block, is_whole, false);
        for block in [&b""[..], b"\x41", b"\x41\x8c\xf1", b"\x00\x01a", b"\xff"] {
            assert_eq!(read(block, false), Ok(None), "{block:x?}");
            assert_eq!(read(block, true), Err(FRAME_SIZE_ERROR), "{block:x?}");
        }
        for (block, code) in [
            (&b"\x80"[..], COMPRESSION_ERROR),
            (b"\xff\x00", COMPRESSION_ERROR),
            (b"\xff\xff\xff\xff\xff", COMPRESSION_ERROR),
            (b"\x3f\xff\x7f", COMPRESSION_ERROR),
            (b"\x00\x81\x1c\x81\xff", COMPRESSION_ERROR),
            (b"\x00\x00\x01a", PROTOCOL_ERROR),
            (b"\x00\x7f\xff\x7f", ENHANCE_YOUR_CALM),
        ] {
            assert_eq!(read(block, false), Err(code), "{block:x?}");
        }
    }

    #[test]
    fn what_nobody_wants_is_judged_only_if_it_changes_the_table() {
        let read = |block: &[u8]| Decoder::new().next(block, false, true);
        assert_eq!(read(b"\x00\x00\x01a"), Ok(Some((field("", "a"), 4))));
        assert!(read(b"\x00\x81\x1c\x81\xff").is_ok(), "not decoded");
        assert_eq!(read(b"\x40\x00\x01a"), Err(PROTOCOL_ERROR));
        assert_eq!(read(b"\x00\x7f\xff\x7f"), Err(ENHANCE_YOUR_CALM));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = Vec::new();
        write_known(&mut block, 31, b"text/html");
        write_known_raw(&mut block, 28, "150");
        write(&mut block, "X-Long", &[b'~'; 300]);
        let (mut decoder, mut rest, mut items) = (Decoder::new(), &block[..], Vec::new());
        while let Some((item, length)) = decoder.next(rest, false, false).unwrap() {
            items.push(item);
            rest = &rest[length..];
        }
        let long = "~".repeat(300);
        let expected = [
            field("content-type", "text/html"),
            field("content-length", "150"),
            field("x-long", &long),
        ];
        assert_eq!(items, expected);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(block: Vec<u8>, is_whole: bool) {
            let _ = Decoder::new().next(&block, is_whole, false);
        }
    }
}
