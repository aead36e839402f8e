//! systemd-resolved, by its program `resolvectl`: our link gets all queries.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    linux::{change::Undone, command, netlink::Netlink},
};

/// DNS servers of a link. They vanish with the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::linux) struct Resolved {
    pub program: PathBuf,
    pub interface: String,
    pub servers: Vec<IpAddr>,
}

impl Resolved {
    pub(in crate::linux) async fn make(&self) -> Result<(), Error> {
        for args in self.commands() {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            command::run("set the DNS servers", &self.program, &args, "").await?;
        }
        Ok(())
    }

    pub(in crate::linux) async fn undo(&self, netlink: &Netlink) -> Result<Undone, Error> {
        if netlink.interface(&self.interface).await?.is_none() {
            return Ok(Undone::Nothing);
        }
        let args = ["revert", self.interface.as_str()];
        command::run("put the DNS servers back", &self.program, &args, "").await?;
        Ok(Undone::Done(format!("DNS servers of {} are reverted", self.interface)))
    }

    /// `~.` makes the link the one for all names, also of other links' search domains; what was
    /// learnt outside the tunnel is forgotten.
    fn commands(&self) -> Vec<Vec<String>> {
        let interface = self.interface.clone();
        let mut dns = vec!["dns".to_owned(), interface.clone()];
        dns.extend(self.servers.iter().map(ToString::to_string));
        vec![
            dns,
            vec!["domain".to_owned(), interface.clone(), "~.".to_owned()],
            vec!["default-route".to_owned(), interface, "true".to_owned()],
            vec!["flush-caches".to_owned()],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_go_to_the_link() {
        let resolved = Resolved {
            program: "/usr/bin/resolvectl".into(),
            interface: "cw0".into(),
            servers: vec!["10.66.0.1".parse().unwrap(), "fd66::1".parse().unwrap()],
        };
        let commands: Vec<String> = resolved.commands().iter().map(|c| c.join(" ")).collect();
        assert_eq!(
            commands,
            [
                "dns cw0 10.66.0.1 fd66::1",
                "domain cw0 ~.",
                "default-route cw0 true",
                "flush-caches"
            ]
        );
    }
}
