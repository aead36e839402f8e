//! A container on a client, connected as Docker and libvirt do it: a network of its own, which the
//! client forwards and translates.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::address;
use crate::lab::{Lab, cable};
use crate::node::Node;
use crate::sprayer::Source;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 2);
const GATE: &str = "172.17.0.1";
const GATE_V6: &str = "fd00:17::1";

/// As Docker's, in short.
const TRANSLATION: &str = "table inet docker {\n chain post {\n type nat hook postrouting priority \
                           srcnat;\n ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade\n \
                           ip6 saddr fd00:17::/64 oifname != \"docker0\" masquerade\n }\n }\n";

impl Lab {
    /// Starts one on the first client; returns where it sends from.
    pub fn add_container(&mut self) -> Result<Source> {
        let client = self.clients[0].clone();
        let resolver = address::DNS.to_string();
        let (node, holder) = Node::new(self.id(), &self.dir, "container", &resolver)?;
        self.holders.push(holder);
        let here = [format!("{ADDRESS}/16"), format!("{ADDRESS_V6}/64")];
        let there = [format!("{GATE}/16"), format!("{GATE_V6}/64")];
        cable(&node, "eth0", &[&here[0], &here[1]], &client, "docker0", &[&there[0], &there[1]])?;
        node.ip(&["route", "add", "default", "via", GATE])?;
        node.ip(&["route", "add", "default", "via", GATE_V6])?;
        client.sysctl(&["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"])?;
        client.nft(TRANSLATION)?;
        Ok(Source {
            node,
            device: "eth0".to_owned(),
            address: ADDRESS,
            address_v6: Some(ADDRESS_V6),
            resolver: address::router(0),
        })
    }
}
