//! `/dev/net/tun` with a virtio header before each packet (`IFF_VNET_HDR`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use cipherwall_packet::offload::{self, GSO_UDP_L4, HEADER_LEN, OffloadHeader};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Offloads;

const TUN_PATH: &str = "/dev/net/tun";
/// That a device was removed by someone else is reported as an error condition only.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);
const MAX_NAME_LEN: usize = libc::IFNAMSIZ - 1;

const TCP_OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const UDP_OFFLOADS: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A TUN device of our own. Dropping it removes the device, and with it all that hangs on it:
/// addresses, routes, queued packets.
#[derive(Debug)]
pub struct Device {
    fd: AsyncFd<OwnedFd>,
    name: String,
    offloads: Offloads,
}

/// Why a device could not be made; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The process lacks `CAP_NET_ADMIN`, or a container keeps the device file from it.
    #[error(
        "not permitted to make a TUN device; run as root or with CAP_NET_ADMIN (in a container: \
         --cap-add NET_ADMIN --device /dev/net/tun)"
    )]
    NotPermitted,
    /// The kernel has no TUN driver loaded, or the device file is missing.
    #[error(
        "no TUN driver: {TUN_PATH} is missing or has no driver; run `modprobe tun` (in a \
         container: on the host, and pass --device /dev/net/tun)"
    )]
    NoTunModule,
    /// An interface of that name exists.
    #[error(
        "an interface named {name} exists already; stop the program that made it, or remove it by \
         `ip link delete {name}`"
    )]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The name cannot be one of an interface.
    #[error(
        "{name:?} cannot be an interface name; use 1 to {MAX_NAME_LEN} bytes without space, '/', \
         ':' and '%' (but once \"%d\", for a free number)"
    )]
    InvalidName {
        /// The name asked for.
        name: String,
    },
    /// Anything else, for instance a driver without virtio 1.0 headers (`TUNSETVNETLE`).
    #[error(
        "cannot set up the TUN device: {step}: {source}; if the kernel's TUN driver does not know \
         that request, use a kernel of Linux 5 or later"
    )]
    System {
        /// The step that failed.
        step: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl Device {
    /// Makes a new device. `name` is at most 15 bytes and may hold one `%d`, for which the kernel
    /// puts the first free number. The device is down and has no address.
    ///
    /// Must be called within a tokio runtime with I/O enabled, and panics otherwise.
    pub fn open(name: &str) -> Result<Device, OpenError> {
        check_name(name)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(TUN_PATH, flags, Mode::empty()).map_err(open_error)?;
        let name = ioctl::attach(&fd, name).map_err(|error| attach_error(error, name))?;
        let system = |step| move |source| OpenError::System { step, source };
        ioctl::set_header_len(&fd, HEADER_LEN).map_err(system("TUNSETVNETHDRSZ"))?;
        ioctl::set_little_endian(&fd).map_err(system("TUNSETVNETLE"))?;
        let offloads = set_offloads(&fd);
        let fd = register(fd).map_err(system("epoll"))?;
        tracing::debug!(name, ?offloads, "TUN device made");
        Ok(Device { fd, name, offloads })
    }

    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel's side does by itself. Without an offload, `try_read` gives no packets that
    /// need it, and `write` does its work in software.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Waits until [`try_read`](Device::try_read) may have something to give: a packet or an
    /// error. May return although there is nothing. Dropping the future loses nothing.
    pub async fn readable(&self) -> io::Result<()> {
        // `try_read` clears the readiness, and only when it has seen `WouldBlock`.
        self.fd.ready(INTEREST).await?.retain_ready();
        Ok(())
    }

    /// Reads one packet: the 10 bytes of an [`OffloadHeader`], then the packet, laid over `bufs`
    /// in order; returns the length of both together. The header has the form that
    /// [`offload::check`] accepts at the other end.
    ///
    /// The first buffer holds at least the header's 10 bytes, all of them together the header and
    /// [`MAX_PACKET_LEN`](crate::MAX_PACKET_LEN) bytes: the rest of a longer packet is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is no packet; only then does [`readable`](Device::readable) wait
    /// again. `InvalidInput` when the first buffer is too short. Any other error means that the
    /// device is gone.
    pub fn try_read(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.first().is_none_or(|buf| buf.len() < HEADER_LEN) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut read = |fd: &OwnedFd| Ok(rustix::io::readv(fd, bufs)?);
        // One interest at a time, because tokio does nothing for a combined one. The second call
        // reads only if there was an error condition.
        let len = match self.fd.try_io(Interest::READABLE, &mut read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.fd.try_io(Interest::ERROR, read)?
            }
            result => result?,
        };
        if len < HEADER_LEN {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        settle_header(bufs, len);
        Ok(len)
    }

    /// Hands one packet to the kernel; never waits. `header` is checked against `packet` first:
    /// see [`offload::check`]. What this kernel cannot take is done in software.
    ///
    /// # Errors
    /// `InvalidData` when `header` or `packet` is wrong; nothing has been written then. Otherwise
    /// the system's: `EIO` while the interface is down, `EBADFD` once it is gone. Of a packet
    /// split in software, the pieces before the failing one have been written.
    pub fn write(&self, header: &OffloadHeader, packet: &[u8]) -> io::Result<()> {
        offload::check(header, packet)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let kernel_takes_it = header.is_none()
            || self.offloads.tcp && (header.gso_type != GSO_UDP_L4 || self.offloads.udp);
        if !kernel_takes_it {
            return self.write_split(header, packet);
        }
        match self.write_one(header, packet) {
            // Some kernels refuse sound packets with offload: 6.6.44 and other stable ones of
            // that month if the last piece is short (mended by 89add40066f9), later ones UDP in
            // more pieces than their limit.
            Err(Errno::INVAL) if !header.is_none() => self.write_split(header, packet),
            result => Ok(result?),
        }
    }

    fn write_one(&self, header: &OffloadHeader, packet: &[u8]) -> Result<(), Errno> {
        let header = header.encode();
        // The driver takes a packet whole or not at all.
        rustix::io::writev(&self.fd, &[IoSlice::new(&header), IoSlice::new(packet)]).map(|_| ())
    }

    fn write_split(&self, header: &OffloadHeader, packet: &[u8]) -> io::Result<()> {
        let mut result = Ok(());
        let mut emit = |piece: &[u8]| {
            if result.is_ok() {
                result = self.write_one(&OffloadHeader::NONE, piece);
            }
        };
        offload::split(header, packet, &mut Vec::new(), &mut emit)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(result?)
    }
}

#[allow(unsafe_code)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, which `AsyncFd` does after deregistering
    // it, and always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(fd, INTEREST) }?)
}

/// Asks for as much as the kernel has.
fn set_offloads(fd: &OwnedFd) -> Offloads {
    let choices = [
        (TCP_OFFLOADS | UDP_OFFLOADS, Offloads { tcp: true, udp: true }),
        (TCP_OFFLOADS, Offloads { tcp: true, udp: false }),
    ];
    for (flags, offloads) in choices {
        match ioctl::set_offloads(fd, flags) {
            Ok(()) => return offloads,
            Err(error) => tracing::debug!(?offloads, %error, "kernel refuses offloads"),
        }
    }
    Offloads { tcp: false, udp: false }
}

/// Rewrites the header in `bufs` in the form that the peer's check accepts.
fn settle_header(bufs: &mut [IoSliceMut<'_>], len: usize) {
    let Some(header) = bufs.first().and_then(|buf| buf.first_chunk::<HEADER_LEN>()) else {
        return;
    };
    let kernel = OffloadHeader::parse(header);
    if kernel.is_none() {
        return;
    }
    let settled = kernel.from_kernel(len - HEADER_LEN, |at| byte_at(bufs, HEADER_LEN + at));
    if let Some(header) = bufs.first_mut().and_then(|buf| buf.first_chunk_mut::<HEADER_LEN>()) {
        *header = settled.encode();
    }
}

fn byte_at(bufs: &[IoSliceMut<'_>], mut at: usize) -> Option<u8> {
    for buf in bufs {
        if let Some(byte) = buf.get(at) {
            return Some(*byte);
        }
        at -= buf.len();
    }
    None
}

/// The kernel's own rules (`dev_valid_name`), told apart from its other reasons for `EINVAL`.
fn check_name(name: &str) -> Result<(), OpenError> {
    let literal = name.replacen("%d", "", 1);
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    let valid = !name.is_empty()
        && name.len() <= MAX_NAME_LEN
        && name != "."
        && name != ".."
        && !literal.contains(forbidden);
    if valid { Ok(()) } else { Err(OpenError::InvalidName { name: name.to_owned() }) }
}

fn open_error(error: Errno) -> OpenError {
    match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => OpenError::NoTunModule,
        Errno::PERM | Errno::ACCESS => OpenError::NotPermitted,
        other => OpenError::System { step: "open", source: other.into() },
    }
}

fn attach_error(error: io::Error, name: &str) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EPERM) => OpenError::NotPermitted,
        // EINVAL: the name is that of an interface of another kind.
        Some(libc::EBUSY | libc::EEXIST) => OpenError::NameTaken { name: name.to_owned() },
        Some(libc::EINVAL) if interface_exists(name) => {
            OpenError::NameTaken { name: name.to_owned() }
        }
        _ => OpenError::System { step: "TUNSETIFF", source: error },
    }
}

fn interface_exists(name: &str) -> bool {
    rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| rustix::net::netdevice::name_to_index(socket, name))
        .is_ok()
}

/// The driver's requests (`linux/if_tun.h`).
#[allow(unsafe_code)]
mod ioctl {
    use super::{AsRawFd, OwnedFd, io};

    /// Makes the interface and returns its name. `IFF_TUN_EXCL`: never take over one that exists.
    pub(super) fn attach(fd: &OwnedFd, name: &str) -> io::Result<String> {
        // SAFETY: `ifreq` is plain integers and arrays of them, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
        // The flags are a 16-bit field whose top bit is in use.
        request.ifr_ifru.ifru_flags = flags as u16 as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8);
        String::from_utf8(name.collect()).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    pub(super) fn set_header_len(fd: &OwnedFd, len: usize) -> io::Result<()> {
        let len = len as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one `int`, which lives through the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
    }

    pub(super) fn set_little_endian(fd: &OwnedFd) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: TUNSETVNETLE reads one `int`, which lives through the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETLE, &raw const on) })
    }

    pub(super) fn set_offloads(fd: &OwnedFd, flags: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe {
            libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags))
        })
    }

    fn check(result: libc::c_int) -> io::Result<()> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        for good in ["cw0", "cw%d", "a", "fifteen-bytes-0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "sixteen-bytes-00", "a b", "a/b", "a:b", ".", "..", "%s", "%d%d", "cw%"] {
            let error = check_name(bad).unwrap_err();
            assert!(matches!(error, OpenError::InvalidName { .. }), "{bad}");
            assert!(error.to_string().contains("1 to 15 bytes"));
        }
    }

    #[test]
    fn a_missing_driver_is_told_from_a_missing_right() {
        assert!(open_error(Errno::NOENT).to_string().contains("modprobe tun"));
        assert!(open_error(Errno::ACCESS).to_string().contains("CAP_NET_ADMIN"));
        let taken = attach_error(io::Error::from_raw_os_error(libc::EBUSY), "cw0");
        assert!(taken.to_string().contains("ip link delete cw0"));
    }

    #[test]
    fn the_kernels_hints_are_settled_wherever_the_buffers_are_cut() {
        let kernel = OffloadHeader {
            flags: offload::NEEDS_CSUM | 2,
            gso_type: offload::GSO_TCPV4,
            header_len: 500,
            gso_size: 1_000,
            csum_start: 20,
            csum_offset: 16,
        };
        let mut packet = vec![0; 3_000];
        packet[20 + 12] = 0x80; // 32 bytes of TCP header
        let read = [&kernel.encode()[..], &packet].concat();
        for cut in [10, 11, 42, 43, 3_000] {
            let mut read = read.clone();
            let len = read.len();
            let (first, second) = read.split_at_mut(cut);
            settle_header(&mut [IoSliceMut::new(first), IoSliceMut::new(second)], len);
            let settled = OffloadHeader::parse(read.first_chunk().unwrap());
            let expected = OffloadHeader { flags: offload::NEEDS_CSUM, header_len: 52, ..kernel };
            assert_eq!(settled, expected, "cut at {cut}");
        }
    }
}
