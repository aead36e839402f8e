//! The laboratory: a small internet of network namespaces in which the real programs run.
//!
//! Used by the end-to-end tests of this crate and by `cargo xtask demo` and `cargo xtask bench`.
//!
//! ```text
//!  client 1 ── router 1 ─┐                              ┌── gateway ── private network
//!  192.168.1.2  NAT      ├── carrier ──── internet ─────┤   203.0.113.2, 2001:db8:a::2
//!  client 2 ── router 2 ─┘   CGNAT        plain router  └── web: nginx, DNS, iperf3
//!  192.168.2.2  NAT     100.64/10         no NAT            198.51.100.80, 2001:db8:80::80
//! ```
//!
//! [`Lab::emulate`] puts delay, loss and a rate between the carrier and the internet;
//! [`many_sessions`] lets a thousand clients log in.
//!
//! Everything is synchronous: a test is a story that is read from top to bottom. Every process is
//! ended by its id, every namespace has a name of its own, and the host's network and `/etc` are
//! never touched. What a killed test leaves behind is removed by the next [`Lab`].

pub mod address;
mod capture;
mod container;
mod emulator;
mod flood;
mod host_state;
mod lab;
mod leak_watch;
mod load;
mod node;
mod outage;
mod power;
mod process;
mod programs;
mod run_dir;
mod second;
mod services;
mod soak;
mod sprayer;
mod steady;
mod tools;

pub use capture::{Capture, Flow, Packet};
pub use emulator::{Counters, Direction, Emulator, Link, Reorder};
pub use flood::download_in_a_flood;
pub use host_state::HostState;
pub use lab::{Lab, Options};
pub use leak_watch::LeakWatch;
pub use load::{Bulk, Load, ManySessions, many_sessions};
pub use node::{Node, Ran};
pub use process::Process;
pub use programs::{ClientNode, GatewayNode, Invitation, Programs, Status, Transport};
pub use run_dir::{remove_kept, remove_stale};
pub use services::Sshd;
pub use soak::{FIGURE, SOAK, SOAK_MIB, figure, full_or_short, soak_bytes};
pub use sprayer::{Kind, Source, Sprayer};
pub use steady::{Beat, Download};
pub use tools::{Page, Ping, Stream, until};
