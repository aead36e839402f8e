//! Paths of requests, decoded and made plain as nginx does it (`merge_slashes on`).

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Decoded, without dots and doubled slashes. Begins with `/`.
    pub(super) path: Vec<u8>,
    /// What follows the `?`, as it was sent.
    pub(super) args: Vec<u8>,
}

#[derive(Clone, Copy)]
enum State {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// Decodes what stands in a request line; `None` if it leads above the root or is no valid path.
pub(super) fn decode(raw: &[u8]) -> Option<Target> {
    let mut path = Vec::with_capacity(raw.len());
    let mut args: &[u8] = &[];
    let mut state = State::Usual;
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        at += 1;
        match byte {
            b'?' => {
                args = raw[at..].split(|byte| *byte == b'#').next().unwrap_or_default();
                break;
            }
            b'#' => break,
            b'%' => {
                let byte = hex(*raw.get(at)?)? << 4 | hex(*raw.get(at + 1)?)?;
                at += 2;
                match byte {
                    0 => return None,
                    // no longer special
                    b'%' | b'#' | b'?' => {
                        path.push(byte);
                        state = State::Usual;
                    }
                    _ => state = step(&mut path, state, byte)?,
                }
            }
            _ => state = step(&mut path, state, byte)?,
        }
    }
    match state {
        State::Usual | State::Slash => {}
        State::Dot => drop(path.pop()),
        State::DotDot => leave(&mut path)?,
    }
    Some(Target { path, args: args.to_vec() })
}

/// Takes the next byte of a path.
fn step(path: &mut Vec<u8>, state: State, byte: u8) -> Option<State> {
    Some(match (state, byte) {
        (State::Slash, b'/') => State::Slash,
        (State::Dot, b'/') => {
            path.pop();
            State::Slash
        }
        (State::DotDot, b'/') => {
            leave(path)?;
            State::Slash
        }
        (State::Usual, b'/') => push(path, byte, State::Slash),
        (State::Slash, b'.') => push(path, byte, State::Dot),
        (State::Dot, b'.') => push(path, byte, State::DotDot),
        _ => push(path, byte, State::Usual),
    })
}

fn push(path: &mut Vec<u8>, byte: u8, state: State) -> State {
    path.push(byte);
    state
}

/// Takes `/name/..` away and leaves the slash; there must be a name.
fn leave(path: &mut Vec<u8>) -> Option<()> {
    let parent = path.len().checked_sub(4)?;
    let slash = path[..=parent].iter().rposition(|byte| *byte == b'/')?;
    path.truncate(slash + 1);
    Some(())
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// As nginx writes paths into a `Location`.
pub(super) fn escape(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for &byte in path {
        if byte <= b' ' || byte >= 0x7f || b"\"#%<>?\\^`{|}".contains(&byte) {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            escaped.push(byte);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_as_by_nginx() {
        for (raw, path, args) in [
            ("/", "/", ""),
            ("/a/b.html", "/a/b.html", ""),
            ("/a?x=%20&y#z", "/a", "x=%20&y"),
            ("/a#b?c", "/a", ""),
            ("//a///b/", "/a/b/", ""),
            ("/./a/./b/.", "/a/b/", ""),
            ("/a/../b", "/b", ""),
            ("/a/b/..", "/a/", ""),
            ("/a/..", "/", ""),
            ("/a/..?q", "/", "q"),
            ("/%61%2f%2e%2e/b", "/b", ""),
            ("/a%3fb%23c%25d", "/a?b#c%d", ""),
            ("/.a/..b/...", "/.a/..b/...", ""),
            ("/a b+c", "/a b+c", ""),
        ] {
            let target = decode(raw.as_bytes()).unwrap_or_else(|| panic!("{raw}"));
            assert_eq!(String::from_utf8_lossy(&target.path), path, "{raw}");
            assert_eq!(String::from_utf8_lossy(&target.args), args, "{raw}");
        }
    }

    #[test]
    fn nothing_leads_above_the_root() {
        for raw in ["/..", "/../a", "/a/../..", "/%2e%2e/a", "/..%2fa", "/%00", "/%", "/%4", "/%zz"]
        {
            assert_eq!(decode(raw.as_bytes()), None, "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_decoded_path_has_no_parents(raw in "/[./%a2ef?#]{0,24}") {
            if let Some(target) = decode(raw.as_bytes()) {
                proptest::prop_assert_eq!(target.path.first(), Some(&b'/'));
                let mut names = target.path.split(|byte| *byte == b'/');
                proptest::prop_assert!(names.all(|name| name != b".."));
            }
        }
    }
}
