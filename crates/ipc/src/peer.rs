//! Who is at the other end of a socket, as the kernel noted it when the connection was made.

use std::io;
use std::os::fd::AsRawFd;

use tokio::net::UnixStream;

/// Room for the groups of most processes; more is made where it is needed.
const GROUPS: usize = 32;

/// The process on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its effective group and its supplementary ones.
    pub(crate) groups: Vec<u32>,
}

impl Peer {
    /// `SO_PEERCRED` and `SO_PEERGROUPS`: not what the user's groups are said to be, but what that
    /// process has.
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        let mut groups = supplementary_groups(stream)?;
        groups.push(credentials.gid.as_raw());
        Ok(Self { uid: credentials.uid.as_raw(), groups })
    }
}

#[expect(unsafe_code, reason = "no library has SO_PEERGROUPS")]
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    const SIZE: usize = size_of::<libc::gid_t>();
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS];
    loop {
        let room = groups.len() * SIZE;
        let mut length = libc::socklen_t::try_from(room).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the socket is open for as long as `stream` is borrowed; the kernel writes at most
        // `length` bytes, which is what `groups` has, and gid_t may hold any value.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = usize::try_from(length).unwrap_or_default();
        if result == 0 {
            groups.truncate(needed / SIZE);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= room {
            return Err(error);
        }
        groups.resize(needed.div_ceil(SIZE), 0);
    }
}

/// The id of a group; `None` if there is none of this name.
pub(crate) fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(nix::unistd::Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_sees_its_own_groups() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let peer = Peer::of(&ours).expect("credentials");
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let mut expected: Vec<u32> = rustix::process::getgroups()
            .expect("groups")
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        expected.push(rustix::process::getegid().as_raw());
        assert_eq!(peer.groups, expected);
    }

    #[test]
    fn a_group_is_found_by_its_name_or_not_at_all() {
        assert_eq!(group_id("root").expect("read"), Some(0));
        assert_eq!(group_id("no-such-group-here").expect("read"), None);
    }
}
