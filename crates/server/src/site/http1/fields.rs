//! The fields of a request, byte by byte, with nginx's idea of what is one.

/// Where in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Name,
    BeforeValue,
    Value,
    AfterValue,
    AlmostDone,
    HeadAlmostDone,
}

/// What a byte led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// A field: name, value.
    Field(Vec<u8>, Vec<u8>),
    /// A line with a name that nginx does not take, and does not mind either.
    Ignored,
    /// The empty line.
    Done,
    Wrong,
}

/// The fields of one request, one after the other.
pub(super) struct Fields {
    at: At,
    name: Vec<u8>,
    value: Vec<u8>,
    /// The name has a byte in it that no name has.
    is_odd: bool,
    /// Bytes of this line.
    pub(super) length: usize,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { at: At::Start, name: Vec::new(), value: Vec::new(), is_odd: false, length: 0 }
    }

    /// Takes the next byte.
    pub(super) fn push(&mut self, byte: u8) -> Step {
        self.length += 1;
        let next = match (self.at, byte) {
            (At::Start, b'\r') => At::HeadAlmostDone,
            (At::Start | At::HeadAlmostDone, b'\n') => return Step::Done,
            (At::HeadAlmostDone, _) => return Step::Wrong,
            (At::Start, b':') => return Step::Wrong,
            (At::Name, b':') => At::BeforeValue,
            (At::Name | At::BeforeValue | At::Value | At::AfterValue, b'\r') => At::AlmostDone,
            (At::Start | At::Name, 0x21..=0x7e | 0x80..) => {
                self.is_odd |= !byte.is_ascii_alphanumeric() && byte != b'-';
                self.name.push(byte);
                At::Name
            }
            (At::AlmostDone, b'\r') => At::AlmostDone,
            (At::Start, _) => return Step::Wrong,
            (_, b'\n') => return self.field(),
            (At::AlmostDone | At::Name, _) | (_, 0) => return Step::Wrong,
            (At::BeforeValue, b' ') => At::BeforeValue,
            (_, b' ') => {
                self.value.push(byte);
                At::AfterValue
            }
            _ => {
                self.value.push(byte);
                At::Value
            }
        };
        self.at = next;
        Step::More
    }

    fn field(&mut self) -> Step {
        let mut value = std::mem::take(&mut self.value);
        value.truncate(value.len() - value.iter().rev().take_while(|byte| **byte == b' ').count());
        let name = std::mem::take(&mut self.name);
        let is_odd = std::mem::replace(&mut self.is_odd, false);
        self.at = At::Start;
        self.length = 0;
        if is_odd { Step::Ignored } else { Step::Field(name, value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Vec<(String, String)>, ()> {
        let mut reader = Fields::new();
        let mut fields = Vec::new();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        for byte in head.bytes() {
            match reader.push(byte) {
                Step::More | Step::Ignored => {}
                Step::Field(name, value) => fields.push((text(name), text(value))),
                Step::Done => return Ok(fields),
                Step::Wrong => return Err(()),
            }
        }
        panic!("not done: {head:?}")
    }

    #[test]
    fn fields_are_read_as_by_nginx() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("\r\n"), Ok(vec![]));
        assert_eq!(read("A: b\r\n\r\n"), Ok(vec![field("A", "b")]));
        assert_eq!(read("A:   b  c  \nD:e\n\n"), Ok(vec![field("A", "b  c"), field("D", "e")]));
        assert_eq!(read("NoColon\r\nA:\r\n\n"), Ok(vec![field("NoColon", ""), field("A", "")]));
        assert_eq!(read("A_b: c\r\n(x): y\r\n\r\n"), Ok(vec![]));
        assert_eq!(read("A: b\r\r\n\n"), Ok(vec![field("A", "b")]));
        assert_eq!(read("A: \tb\t\r\n\n"), Ok(vec![field("A", "\tb\t")]));
    }

    #[test]
    fn what_is_no_field_is_wrong() {
        for head in
            [": a\n", "A b: c\n", " A: b\n", "A: b\0", "A: \0", "A: b\rc", "\rx", "\x7f", "A\t:b"]
        {
            assert_eq!(read(head), Err(()), "{head:?}");
        }
    }
}
