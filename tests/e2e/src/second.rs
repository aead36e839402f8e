//! A second gateway's machine, and a name that moves.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::address;
use crate::lab::{Lab, cable};
use crate::node::Node;
use crate::services;

impl Lab {
    /// Another machine on the internet, at [`address::SECOND_GATEWAY`].
    pub fn add_gateway(&mut self) -> Result<Node> {
        let resolver = address::DNS.to_string();
        let (node, holder) = Node::new(self.id(), &self.dir, "gateway2", &resolver)?;
        self.holders.push(holder);
        let here = format!("{}/24", address::SECOND_GATEWAY);
        cable(&node, "eth0", &[&here], &self.internet, "to-gateway2", &["198.18.7.1/24"])?;
        node.ip(&["route", "add", "default", "via", "198.18.7.1"])?;
        Ok(node)
    }

    /// From now on the DNS of this internet says that `services::MOVING_NAME` is there.
    pub fn move_name(&self, to: Ipv4Addr) -> Result<()> {
        let path = services::names_dir(&self.web).join("hosts");
        fs::write(&path, format!("{to} {}\n", services::MOVING_NAME)).context("the name's record")
    }

    /// The gateway's machine has another address from now on, and no longer [`address::GATEWAY`].
    pub fn move_gateway(&self, to: Ipv4Addr) -> Result<()> {
        self.gateway.ip(&["address", "add", &format!("{to}/24"), "dev", "eth0"])?;
        let old = format!("{}/24", address::GATEWAY);
        let rename = format!("ip address del {old} dev eth0; ip address replace {to}/24 dev eth0");
        self.gateway.ok(&["sh", "-c", &rename])?;
        self.gateway.ip(&["route", "replace", "default", "via", "203.0.113.1"]).map(drop)
    }
}
