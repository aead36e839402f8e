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
    /// Something about the table, or a name whose value is still to come.
    Other,
}

/// Reads the blocks of one connection.
pub(super) struct Decoder {
    table: Table,
    /// A field whose value is still to come. Kept, for it may come in any number of pieces.
    open: Option<Open>,
    /// How long the last string was that was decoded, in bytes.
    decoded: usize,
}

/// The beginning of a field.
struct Open {
    name: Vec<u8>,
    /// It goes into the table.
    is_added: bool,
    /// Its strings are passed over, not decoded.
    is_passed: bool,
}

/// What stands in front of a value that is cut.
enum Cut {
    /// There is more to come.
    Short,
    Wrong(Code),
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), open: None, decoded: 0 }
    }

    /// Whether a field has begun of which more has to come than was taken.
    pub(super) fn is_within(&self) -> bool {
        self.open.is_some()
    }

    /// The first item of a block and its length; `None` if more of the block has to come.
    /// `is_whole`: nothing more comes. `is_void`: nobody wants the fields, and strings that do not get
    /// into the table are passed over. nginx judges them by the length of the last one that it has
    /// decoded: they come out as zeros of this length.
    pub(super) fn next(
        &mut self,
        block: &[u8],
        is_whole: bool,
        is_void: bool,
    ) -> Result<Option<(Item, usize)>, Code> {
        let mut reader = Reader { rest: block };
        let read = self.item(&mut reader, is_void);
        let length = block.len() - reader.rest.len();
        match read {
            Ok(item) => Ok(Some((item, length))),
            Err(Cut::Short) if is_whole => Err(FRAME_SIZE_ERROR),
            // the name is done with
            Err(Cut::Short) if length > 0 => Ok(Some((Item::Other, length))),
            Err(Cut::Short) => Ok(None),
            Err(Cut::Wrong(code)) => Err(code),
        }
    }

    fn item(&mut self, reader: &mut Reader<'_>, is_void: bool) -> Result<Item, Cut> {
        let open = match self.open.take() {
            Some(open) => open,
            None => match reader.whole(|reader| self.begin(reader, is_void))? {
                Begun::Item(item) => return Ok(item),
                Begun::Size(size) if self.table.resize(size) => return Ok(Item::Other),
                Begun::Size(_) => return Err(Cut::Wrong(COMPRESSION_ERROR)),
                Begun::Open(open) => open,
            },
        };
        match reader.whole(|reader| self.string(reader, open.is_passed)) {
            Ok(value) => {
                let field = (open.name, value);
                if open.is_added {
                    self.table.add(field.clone());
                }
                Ok(Item::Field(field))
            }
            Err(cut) => {
                self.open = Some(open);
                Err(cut)
            }
        }
    }

    /// Up to the end of a name.
    fn begin(&mut self, reader: &mut Reader<'_>, is_void: bool) -> Result<Begun, Cut> {
        let wrong = Cut::Wrong(COMPRESSION_ERROR);
        let first = *reader.rest.first().ok_or(Cut::Short)?;
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let number = reader.int(bits)?;
        let is_added = first & 0x40 != 0;
        let is_passed = is_void && !is_added;
        match first {
            0x80.. => {
                let field = self.table.field(number).ok_or(wrong)?;
                return Ok(Begun::Item(Item::Field(field)));
            }
            0x20..0x40 => return Ok(Begun::Size(number)),
            _ => {}
        }
        let name = match number {
            0 => self.string(reader, is_passed)?,
            _ => self.table.field(number).ok_or(wrong)?.0,
        };
        if name.is_empty() {
            return Err(Cut::Wrong(PROTOCOL_ERROR));
        }
        Ok(Begun::Open(Open { name, is_added, is_passed }))
    }

    fn string(&mut self, reader: &mut Reader<'_>, is_passed: bool) -> Result<Vec<u8>, Cut> {
        let (string, is_coded) = reader.string()?;
        if is_passed {
            return Ok(vec![0; self.decoded]);
        }
        let string = match is_coded {
            true => huffman::decode(string).ok_or(Cut::Wrong(COMPRESSION_ERROR))?,
            false => string.to_vec(),
        };
        self.decoded = string.len();
        Ok(string)
    }
}

/// What a block begins with.
enum Begun {
    Item(Item),
    /// The table is to be of this size.
    Size(usize),
    Open(Open),
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// All that `read` reads, or nothing of it.
    fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Cut>) -> Result<T, Cut> {
        let before = self.rest;
        read(self).inspect_err(|_| self.rest = before)
    }

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

    /// A string, and whether it is coded.
    fn string(&mut self) -> Result<(&[u8], bool), Cut> {
        let is_coded = self.rest.first().ok_or(Cut::Short)? & 0x80 != 0;
        let length = self.int(7)?;
        if length > STRING_MAX {
            return Err(Cut::Wrong(ENHANCE_YOUR_CALM));
        }
        let (string, rest) = self.rest.split_at_checked(length).ok_or(Cut::Short)?;
        self.rest = rest;
        Ok((string, is_coded))
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
        for (block, taken) in
            [(&b""[..], 0), (b"\x41", 1), (b"\x41\x8c\xf1", 1), (b"\x00\x01a", 3), (b"\xff", 0)]
        {
            let expected = Some((Item::Other, taken)).filter(|_| taken > 0);
            assert_eq!(read(block, false), Ok(expected), "{block:x?}");
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
    fn a_name_is_decoded_once_in_however_many_pieces_its_value_comes() {
        let mut block = vec![0];
        write_string(&mut block, &[b'a'; 10_000]);
        let mut decoder = Decoder::new();
        let began = std::time::Instant::now();
        assert_eq!(decoder.next(&block, false, false), Ok(Some((Item::Other, block.len()))));
        assert!(decoder.is_within());
        // decoded each time, this would take minutes
        for _ in 0..1_000_000 {
            assert_eq!(decoder.next(b"\x82", false, false), Ok(None));
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        let expected = Item::Field((vec![b'a'; 10_000], b"bc".to_vec()));
        assert_eq!(decoder.next(b"\x02bcd", false, false), Ok(Some((expected, 3))));
        assert!(!decoder.is_within());
    }

    #[test]
    fn what_nobody_wants_is_judged_only_if_it_changes_the_table() {
        let mut decoder = Decoder::new();
        assert!(decoder.next(b"\x00\x02ab\x03cde", false, false).is_ok());
        let mut read = |block: &[u8]| decoder.next(block, false, true);
        assert_eq!(read(b"\x00\x00\x01a"), Ok(Some((field("\0\0\0", "\0\0\0"), 4))));
        assert!(read(b"\x00\x81\x1c\x81\xff").is_ok(), "not decoded");
        assert_eq!(read(b"\x40\x00\x01a"), Err(PROTOCOL_ERROR));
        assert_eq!(read(b"\x00\x01a\x01a"), Err(PROTOCOL_ERROR), "as long as the one before");
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
