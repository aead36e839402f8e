//! As much of the gateway's module as its readers need.

#[allow(dead_code, reason = "the gateway uses the rest")]
#[path = "../../../crates/server/src/dns/message.rs"]
pub(crate) mod message;
#[path = "../../../crates/server/src/dns/resolv_conf.rs"]
mod resolv_conf;

pub(crate) use resolv_conf::host_resolvers;

const DNS_PORT: u16 = 53;
