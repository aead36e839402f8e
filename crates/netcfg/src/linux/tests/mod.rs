//! Tests on the real kernel, as root, each in network and mount namespaces of its own. Without root
//! they say so and pass.

mod client;
mod faults;
mod gateway;
mod sandbox;
mod watch;
