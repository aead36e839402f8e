//! Nothing leaks, and nobody is locked out: what `docs/security.md` says may flow in each state, seen
//! on the far side of the client's link while a program sends everything everywhere, before,
//! during and after whatever may happen to a client (A13, A14, C2).
//!
//! Each test sees every kind of packet outside before the client connects and after it has
//! disconnected, and finds the host then exactly as it was.

mod control;
mod dhcp;
mod exceptions;
mod flush;
mod forwarded;
mod journal;
mod laptop;
mod life;
mod links;
mod local;
mod power;
mod scene;
