//! Two devices in network namespaces of their own, joined by a pump: real sockets talk through
//! them. Needs root; otherwise each test says so and passes.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::print_stderr, clippy::unwrap_used)]

use std::future::Future;
use std::io::{self, IoSliceMut, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use cipherwall_packet::offload::{
    Coalescer, GSO_UDP_L4, HEADER_LEN, OffloadHeader, Segments, check, split,
};
use cipherwall_tun::{Device, MAX_PACKET_LEN, OpenError};
use rustix::thread::UnshareFlags;
use tokio::sync::oneshot;

const LEFT: [&str; 2] = ["10.99.0.1", "fd99::1"];
const RIGHT: [&str; 2] = ["10.99.0.2", "fd99::2"];

#[test]
fn tcp_passes_unchanged_in_packets_of_64_kib() {
    // What the MTU of 1,400 leaves behind 20 or 40 bytes of IP and 32 of TCP.
    for (address, segment) in LEFT.into_iter().zip([1_348, 1_328]) {
        let Some((seen, received)) = tcp(address, Pump::AsItIs) else { return };
        assert!(received == pattern(8 << 20), "{address}: other bytes than were sent");
        let longest = seen.iter().map(|(_, len)| *len).max().unwrap_or(0);
        assert!(longest > 60_000, "{address}: longest packet {longest} bytes");
        let headers = seen.iter().filter(|(header, _)| header.gso_size == segment).count();
        assert!(headers > 50, "{address}: {headers} packets with segments of the MTU");
    }
}

#[test]
fn tcp_passes_unchanged_when_split_in_software() {
    for address in LEFT {
        let Some((seen, received)) = tcp(address, Pump::Split) else { return };
        assert!(received == pattern(8 << 20), "{address}: other bytes than were sent");
        assert!(seen.iter().any(|(header, _)| header.gso_size != 0));
    }
}

#[test]
fn tcp_passes_unchanged_over_a_path_with_a_smaller_mtu() {
    for address in LEFT {
        let Some((seen, received)) = tcp(address, Pump::CutAndJoined) else { return };
        assert!(received == pattern(8 << 20), "{address}: other bytes than were sent");
        assert!(seen.iter().any(|(header, _)| header.gso_size > 1_000));
    }
}

#[test]
fn udp_segments_arrive_as_datagrams() {
    for pump in [Pump::AsItIs, Pump::Split, Pump::CutAndJoined] {
        for address in LEFT {
            let Some((seen, received)) = udp(address, pump) else { return };
            let sent: Vec<Vec<u8>> = pattern(10_500).chunks(1_000).map(<[u8]>::to_vec).collect();
            assert_eq!(received, sent, "{address}, {pump:?}");
            assert!(seen.iter().any(|(h, len)| h.gso_type == GSO_UDP_L4 && *len > 10_500));
        }
    }
}

#[test]
fn a_device_removed_by_someone_else_is_an_error_and_no_hang() {
    in_namespace(async {
        let device = Device::open("cwgone%d").unwrap();
        assert_eq!(device.name(), "cwgone0");
        ip("link set cwgone0 up");
        while tokio::time::timeout(Duration::from_millis(300), read(&device)).await.is_ok() {}
        let (read, ()) =
            tokio::join!(tokio::time::timeout(Duration::from_secs(5), read(&device)), async {
                ip("link delete cwgone0")
            },);
        let error = read.expect("the reader is woken").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::BADFD.raw_os_error()));
    });
}

#[test]
fn a_taken_name_is_refused_and_a_device_goes_with_its_owner() {
    in_namespace(async {
        let device = Device::open("cwtaken").unwrap();
        ip("link add cwveth type veth peer name cwveth2");
        for name in ["cwtaken", "cwveth"] {
            let error = Device::open(name).unwrap_err();
            assert!(matches!(error, OpenError::NameTaken { .. }), "{name}: {error:?}");
        }
        drop(device);
        Device::open("cwtaken").unwrap();
    });
}

#[test]
fn a_wrong_header_does_not_reach_the_kernel() {
    in_namespace(async {
        let device = Device::open("cw%d").unwrap();
        let mut packet = vec![0; 28];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        let down = device.write(&OffloadHeader::NONE, &packet).unwrap_err();
        assert_eq!(down.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        ip("link set cw0 up");
        device.write(&OffloadHeader::NONE, &packet).unwrap();
        let header = OffloadHeader { flags: 1, csum_start: 2_000, ..OffloadHeader::NONE };
        let error = device.write(&header, &packet).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pump {
    /// Packets are written with the header they came with.
    AsItIs,
    /// Packets are split before they are written.
    Split,
    /// Packets are cut to fewer bytes than the MTU, where TCP allows it, and the pieces put together
    /// again.
    CutAndJoined,
}

/// Headers and lengths of the packets that went to the left.
type Seen = Vec<(OffloadHeader, usize)>;

/// Sends the pattern from right to left over TCP; gives what arrived.
fn tcp(address: &'static str, pump: Pump) -> Option<(Seen, Vec<u8>)> {
    in_namespace(async move {
        let left = open(LEFT);
        let listener = TcpListener::bind((address, 5_000)).unwrap();
        let receiver = background(move || {
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            received
        });
        enter_new_namespace();
        let right = open(RIGHT);
        let _sender = background(move || {
            let mut stream = TcpStream::connect((address, 5_000)).unwrap();
            stream.write_all(&pattern(8 << 20)).unwrap();
        });
        pump_until(&left, &right, pump, receiver).await
    })
}

/// Sends eleven datagrams from right to left by one call; gives those that arrived.
fn udp(address: &'static str, pump: Pump) -> Option<(Seen, Vec<Vec<u8>>)> {
    in_namespace(async move {
        let left = open(LEFT);
        assert!(left.offloads().udp, "Linux 6.2 or later is needed for this test");
        let socket = UdpSocket::bind((address, 5_000)).unwrap();
        let receiver = background(move || {
            let mut buf = [0; 2_000];
            let mut next = || socket.recv(&mut buf).map(|len| buf[..len].to_vec()).unwrap();
            (0..11).map(|_| next()).collect()
        });
        enter_new_namespace();
        let right = open(RIGHT);
        let any: IpAddr = if address.contains(':') { [0u16; 8].into() } else { [0; 4].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        segment_datagrams(&socket, 1_000);
        socket.send_to(&pattern(10_500), (address, 5_000)).unwrap();
        pump_until(&left, &right, pump, receiver).await
    })
}

async fn pump_until<T>(
    left: &Device,
    right: &Device,
    pump: Pump,
    mut done: oneshot::Receiver<T>,
) -> (Seen, T) {
    let mut seen = Seen::new();
    let pumping = async {
        loop {
            tokio::select! {
                packet = read(left) => write(right, pump, &packet.unwrap()),
                packet = read(right) => {
                    let packet = packet.unwrap();
                    seen.push((packet.0, packet.1.len()));
                    write(left, pump, &packet);
                }
            }
        }
    };
    let result = tokio::select! {
        result = &mut done => result.expect("the receiving side"),
        () = pumping => unreachable!("the pump does not end"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nothing in 60 s"),
    };
    (seen, result)
}

/// The next packet; laid over two buffers, the first of which ends within the TCP header.
async fn read(device: &Device) -> io::Result<(OffloadHeader, Vec<u8>)> {
    let mut buf = vec![0; HEADER_LEN + MAX_PACKET_LEN];
    loop {
        device.readable().await?;
        let (first, second) = buf.split_at_mut(HEADER_LEN + 25);
        let mut bufs = [IoSliceMut::new(first), IoSliceMut::new(second)];
        match device.try_read(&mut bufs) {
            Ok(len) => {
                let header = OffloadHeader::parse(buf.first_chunk().unwrap());
                return Ok((header, buf[HEADER_LEN..len].to_vec()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn write(device: &Device, pump: Pump, (header, packet): &(OffloadHeader, Vec<u8>)) {
    check(header, packet).unwrap();
    match pump {
        Pump::AsItIs => device.write(header, packet).unwrap(),
        Pump::Split => split(header, packet, &mut Vec::new(), &mut |piece| {
            assert!(piece.len() <= 1_400, "{} bytes", piece.len());
            device.write(&OffloadHeader::NONE, piece).unwrap();
        })
        .unwrap(),
        Pump::CutAndJoined => {
            let mut written = 0;
            let mut join = |header: &OffloadHeader, packet: &[u8]| {
                device.write(header, packet).unwrap();
                written += 1;
            };
            let mut coalescer = Coalescer::new(true, true);
            let mut segments = Segments::new(header, packet, 1_200).unwrap();
            let mut piece = [0; 1_200];
            while let Some(len) = segments.next_into(&mut piece) {
                coalescer.push(&piece[..len], &mut join);
            }
            coalescer.flush(&mut join);
            assert_eq!(written, 1, "the kernel gets one packet for one");
        }
    }
}

fn open(addresses: [&str; 2]) -> Device {
    let device = Device::open("cw%d").unwrap();
    let name = device.name();
    ip(&format!("address add {}/24 dev {name}", addresses[0]));
    ip(&format!("address add {}/64 dev {name} nodad", addresses[1]));
    ip(&format!("link set {name} mtu 1400 up"));
    device
}

/// Runs a test in a network namespace that lives as long as its thread and sockets.
fn in_namespace<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root for a network namespace of its own");
        return None;
    }
    let namespaced = thread::spawn(|| {
        enter_new_namespace();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test)
    });
    match namespaced.join() {
        Ok(result) => Some(result),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Moves this thread; threads, processes and sockets that it makes from now on follow it.
fn enter_new_namespace() {
    // SAFETY: descriptors stay shared; only `UnshareFlags::FILES` would part them.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

fn background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    // A test that has failed does not wait for the result any more.
    thread::spawn(move || sender.send(work()).ok());
    receiver
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

fn segment_datagrams(socket: &UdpSocket, size: libc::c_int) {
    let len = size_of_val(&size) as libc::socklen_t;
    // SAFETY: UDP_SEGMENT reads one `int`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            len,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 253) as u8).collect()
}
