//! Tests on the real kernel, as root, each in network and mount namespaces of its own. Without root
//! they say so and pass.

mod client;
mod dns;
mod faults;
mod gateway;
mod gateway_abuse;
mod guard;
mod policy;
mod policy_among_others;
mod power;
mod probes;
mod sandbox;
mod watch;
