//! Other firewalls on the gateway (ufw, firewalld, Docker): chains of theirs that would drop what
//! the gateway lets through get the needed rules at their top.
//!
//! The rules use only matches that `iptables-nft` understands too, because a table with anything
//! else in it can no longer be used by `iptables`, and so by Docker and ufw. What may be reached
//! from inside is decided by our own table, so they can be this plain.

use std::{collections::HashSet, fs, ops::RangeInclusive};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{hosts, list, transaction};
use crate::{
    Error, GatewayNetwork,
    linux::{change::Undone, command},
};

/// A rule of ours in a chain of another program, recognised by its comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::linux) struct ForeignRule {
    pub family: String,
    pub table: String,
    pub chain: String,
    pub rule: String,
    pub comment: String,
}

impl ForeignRule {
    /// Inserts the rule; where the table cannot be changed, returns what the user has to do.
    pub(in crate::linux) async fn make(&self) -> Result<Option<String>, Error> {
        let ForeignRule { family, table, chain, rule, .. } = self;
        let text = self.insertion();
        match transaction("let the tunnel through another firewall", &text).await {
            Ok(()) => Ok(None),
            Err(Error::NotPermitted { .. } | Error::Program { .. }) => Ok(Some(format!(
                "the firewall table {family} {table} may block the tunnel, and only the program \
                 that owns it can change it; allow there in chain {chain}: {rule}{}",
                if table == "firewalld" { FIREWALLD } else { "" }
            ))),
            Err(error) => Err(error),
        }
    }

    /// The command for `nft`.
    pub(in crate::linux) fn insertion(&self) -> String {
        let ForeignRule { family, table, chain, rule, comment } = self;
        format!("insert rule {family} {table} {chain} {rule} comment \"{comment}\"\n")
    }

    pub(in crate::linux) async fn undo(&self) -> Result<Undone, Error> {
        let ruleset = Ruleset::read().await?;
        let handles: Vec<u64> = ruleset
            .rules()
            .filter(|rule| self.is(rule))
            .filter_map(|rule| rule["handle"].as_u64())
            .collect();
        if handles.is_empty() {
            return Ok(Undone::Nothing);
        }
        let ForeignRule { family, table, chain, .. } = self;
        let text: String = handles
            .iter()
            .map(|handle| format!("delete rule {family} {table} {chain} handle {handle}\n"))
            .collect();
        transaction("remove our rule from another firewall", &text).await?;
        Ok(Undone::Done(format!("rule \"{}\" is removed from {family} {table}", self.comment)))
    }

    fn is(&self, rule: &Value) -> bool {
        rule["family"] == self.family.as_str()
            && rule["table"] == self.table.as_str()
            && rule["chain"] == self.chain.as_str()
            && rule["comment"] == self.comment.as_str()
    }
}

const FIREWALLD: &str = " (firewall-cmd --permanent --zone=trusted --add-interface=INTERFACE; \
                         firewall-cmd --permanent --add-port=PORT/tcp --add-port=PORT/udp; \
                         firewall-cmd --reload)";

/// The rules that other firewalls need, each with whether it is there already.
pub(in crate::linux) async fn rules(
    wanted: &GatewayNetwork,
) -> Result<Vec<(ForeignRule, bool)>, Error> {
    Ok(rules_in(&Ruleset::read().await?, wanted))
}

fn rules_in(ruleset: &Ruleset, wanted: &GatewayNetwork) -> Vec<(ForeignRule, bool)> {
    let mut rules = Vec::new();
    for chain in ruleset.blocking_chains() {
        let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
        for (rule, purpose) in needed(wanted, &text("hook"), &text("family")) {
            let rule = ForeignRule {
                family: text("family"),
                table: text("table"),
                chain: text("name"),
                rule,
                comment: format!("cipherwall: {purpose}"),
            };
            let there = ruleset.rules().any(|existing| rule.is(existing));
            rules.push((rule, there));
        }
    }
    rules
}

/// [`rules`] in the text that `nft -j -a list ruleset` printed; none if it cannot be read.
#[cfg(feature = "fuzz")]
pub(in crate::linux) fn rules_in_text(
    text: &str,
    wanted: &GatewayNetwork,
) -> Option<Vec<(ForeignRule, bool)>> {
    Ruleset::parse(text).ok().map(|ruleset| rules_in(&ruleset, wanted))
}

/// What has to pass a blocking chain at this hook: the rule, and what it is for.
fn needed(wanted: &GatewayNetwork, hook: &str, family: &str) -> Vec<(String, String)> {
    let interface = &wanted.interface;
    if hook == "forward" {
        if family == "ip6" && !wanted.ipv6_uplink {
            return Vec::new();
        }
        return vec![
            (format!("oifname \"{interface}\" accept"), format!("to {interface}")),
            (format!("iifname \"{interface}\" accept"), format!("from {interface}")),
        ];
    }
    let ports = wanted
        .listen_tcp
        .iter()
        .map(|port| (format!("tcp dport {port} accept"), format!("clients on port {port}")));
    let datagrams = wanted.listen_udp.iter().map(|ports| {
        let ports = span(ports, '-');
        (format!("udp dport {ports} accept"), format!("datagrams on port {ports}"))
    });
    let inner = hosts(&wanted.addresses).into_iter().filter_map(|host| {
        let word = match host {
            IpNet::V4(_) => "ip",
            IpNet::V6(_) => "ip6",
        };
        (family == "inet" || family == word).then(|| {
            let address = host.addr();
            (
                format!("iifname \"{interface}\" {word} daddr {address} accept"),
                format!("from {interface} to {address}"),
            )
        })
    });
    ports.chain(datagrams).chain(inner).collect()
}

/// `9000-9099`, or `1194` if it is only one.
pub(super) fn span(ports: &RangeInclusive<u16>, to: char) -> String {
    let (first, last) = (ports.start(), ports.end());
    if first == last { first.to_string() } else { format!("{first}{to}{last}") }
}

/// The host's rules as `nft` lists them.
struct Ruleset(Vec<Value>);

impl Ruleset {
    async fn read() -> Result<Ruleset, Error> {
        let what = "look for other firewalls";
        let text = list(what, &["-j", "-a", "list", "ruleset"]).await?;
        Ruleset::parse(&text).map_err(|error| Error::Program {
            what: what.to_owned(),
            program: "nft -j -a list ruleset".to_owned(),
            detail: error.to_string(),
        })
    }

    fn parse(text: &str) -> serde_json::Result<Ruleset> {
        let whole: Value = serde_json::from_str(text)?;
        let items = whole.get("nftables").and_then(Value::as_array);
        Ok(Ruleset(items.cloned().unwrap_or_default()))
    }

    fn rules(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter_map(|item| item.get("rule"))
    }

    /// The chains of others at the forward and input hooks through which not everything passes.
    fn blocking_chains(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter_map(|item| item.get("chain")).filter(|chain| {
            let is_one_of = |key: &str, values: &[&str]| {
                chain[key].as_str().is_some_and(|value| values.contains(&value))
            };
            is_one_of("hook", &["forward", "input"])
                && is_one_of("type", &["filter"])
                && is_one_of("family", &["ip", "ip6", "inet"])
                && !is_one_of("table", &["cipherwall", "cipherwall-gw"])
                && ["table", "name"].iter().all(|key| is_plain(&chain[*key]))
                && (is_one_of("policy", &["drop"])
                    || self.ends_in_drop(chain, &chain["name"], &mut HashSet::new()))
        })
    }

    /// Whether a rule without condition drops or rejects in this chain or one it leads to.
    fn ends_in_drop(&self, base: &Value, name: &Value, seen: &mut HashSet<String>) -> bool {
        if !seen.insert(name.to_string()) {
            return false;
        }
        let of_chain = |rule: &&Value| {
            rule["family"] == base["family"]
                && rule["table"] == base["table"]
                && rule["chain"] == *name
        };
        self.rules().filter(of_chain).any(|rule| match unconditional_verdict(rule) {
            Some(Verdict::Drop) => true,
            Some(Verdict::Jump(target)) => self.ends_in_drop(base, target, seen),
            None => false,
        })
    }
}

/// Names go into a script for `nft` as they are. With others than these, which no firewall in use has,
/// it would be another script.
fn is_plain(name: &Value) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./\\".contains(c);
    name.as_str().is_some_and(|name| !name.is_empty() && name.chars().all(plain))
}

enum Verdict<'a> {
    Drop,
    Jump(&'a Value),
}

/// The verdict of a rule that is for all packets.
fn unconditional_verdict(rule: &Value) -> Option<Verdict<'_>> {
    for statement in rule["expr"].as_array()? {
        let (kind, value) = statement.as_object()?.iter().next()?;
        match kind.as_str() {
            "counter" | "log" => {}
            "drop" | "reject" => return Some(Verdict::Drop),
            "xt" if value["name"] == "REJECT" => return Some(Verdict::Drop),
            "jump" | "goto" => return Some(Verdict::Jump(&value["target"])),
            _ => return None,
        }
    }
    None
}

/// Rules of the old `iptables-legacy` are not ours to change: what the user has to run, if they
/// block the tunnel.
pub(in crate::linux) async fn legacy_warning(wanted: &GatewayNetwork) -> Option<String> {
    let mut commands = Vec::new();
    for (program, family, names) in [
        ("iptables-legacy", "ip", "/proc/thread-self/net/ip_tables_names"),
        ("ip6tables-legacy", "ip6", "/proc/thread-self/net/ip6_tables_names"),
    ] {
        // Asking the program would load the old tables where they are not in use.
        let in_use = fs::read_to_string(names).is_ok_and(|names| names.contains("filter"));
        let (true, Some(path)) = (in_use, command::find(program)) else { continue };
        let Ok(rules) = command::run("look for other firewalls", &path, &["-S"], "").await else {
            continue;
        };
        let missing = legacy_rules(wanted, family, &rules);
        commands.extend(missing.into_iter().map(|rule| format!("{program} -I {rule}")));
    }
    (!commands.is_empty()).then(|| {
        format!("iptables-legacy rules may block the tunnel; run: {}", commands.join(" && "))
    })
}

/// The rules that are missing in what `iptables-legacy -S` printed.
pub(in crate::linux) fn legacy_rules(
    wanted: &GatewayNetwork,
    family: &str,
    rules: &str,
) -> Vec<String> {
    let blocks = |chain: &str| {
        [format!("-P {chain} DROP"), format!("-A {chain} -j DROP"), format!("-A {chain} -j REJECT")]
            .iter()
            .any(|blocking| rules.lines().any(|line| line.starts_with(blocking.as_str())))
    };
    let interface = &wanted.interface;
    let mut needed = Vec::new();
    if blocks("FORWARD") && (family == "ip" || wanted.ipv6_uplink) {
        needed.push(format!("FORWARD -i {interface} -j ACCEPT"));
        needed.push(format!("FORWARD -o {interface} -j ACCEPT"));
    }
    if blocks("INPUT") {
        needed.push(format!("INPUT -i {interface} -j ACCEPT"));
        needed.extend(
            wanted
                .listen_tcp
                .iter()
                .map(|port| format!("INPUT -p tcp -m tcp --dport {port} -j ACCEPT")),
        );
        needed.extend(
            wanted
                .listen_udp
                .iter()
                .map(|ports| format!("INPUT -p udp -m udp --dport {} -j ACCEPT", span(ports, ':'))),
        );
    }
    needed.retain(|rule| !rules.lines().any(|line| line == format!("-A {rule}")));
    needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> GatewayNetwork {
        GatewayNetwork {
            interface: "cw0".into(),
            addresses: vec!["10.66.0.1/16".parse().unwrap(), "fd66::1/64".parse().unwrap()],
            mtu: 1420,
            networks: vec!["10.66.0.0/16".parse().unwrap(), "fd66::/64".parse().unwrap()],
            uplink: None,
            allow_private: Vec::new(),
            listen_tcp: vec![8443],
            listen_udp: vec![1194..=1194, 9000..=9099],
            inside_tcp: Vec::new(),
            connections_each: None,
            ipv6_uplink: false,
        }
    }

    fn chain(table: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({"chain": {"family": "inet", "table": table, "name": name, "type": "filter",
                         "hook": hook, "prio": 0, "policy": policy}})
    }

    fn rule(table: &str, chain: &str, expr: Value) -> Value {
        json!({"rule": {"family": "inet", "table": table, "chain": chain, "expr": expr}})
    }

    fn blocking(items: Vec<Value>) -> Vec<String> {
        let ruleset = Ruleset(items);
        ruleset.blocking_chains().map(|chain| chain["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn chains_that_drop_by_policy_or_by_their_last_rule_block() {
        let blocked = blocking(vec![
            chain("ufw", "policy", "forward", "drop"),
            chain("firewalld", "last", "input", "accept"),
            rule("firewalld", "last", json!([{"counter": null}, {"reject": {"type": "icmpx"}}])),
            chain("other", "leads", "forward", "accept"),
            rule("other", "leads", json!([{"jump": {"target": "end"}}])),
            rule("other", "end", json!([{"jump": {"target": "end"}}])),
            rule("other", "end", json!([{"drop": null}])),
        ]);
        assert_eq!(blocked, ["policy", "last", "leads"]);
    }

    #[test]
    fn chains_that_drop_only_some_packets_stay_untouched() {
        let matching = json!({"match": {"op": "==", "left": {}, "right": "x"}});
        let blocked = blocking(vec![
            chain("f2b", "bans", "input", "accept"),
            rule("f2b", "bans", json!([matching, {"reject": null}])),
            chain("cipherwall-gw", "ours", "forward", "drop"),
            chain("nat", "late", "postrouting", "drop"),
            rule("f2b", "bans", json!([matching, {"jump": {"target": "end"}}])),
            rule("f2b", "end", json!([{"drop": null}])),
        ]);
        assert!(blocked.is_empty(), "{blocked:?}");
    }

    #[test]
    fn input_opens_the_listening_ports_and_the_inner_address_only() {
        let rules: Vec<String> =
            needed(&wanted(), "input", "ip").into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(
            rules,
            [
                "tcp dport 8443 accept",
                "udp dport 1194 accept",
                "udp dport 9000-9099 accept",
                "iifname \"cw0\" ip daddr 10.66.0.1 accept"
            ]
        );
        assert!(needed(&wanted(), "forward", "ip6").is_empty());
        assert_eq!(needed(&wanted(), "forward", "inet").len(), 2);
    }

    #[test]
    fn legacy_rules_are_asked_for_until_they_are_there() {
        let before = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n";
        let missing = legacy_rules(&wanted(), "ip", before);
        assert_eq!(missing, ["FORWARD -i cw0 -j ACCEPT", "FORWARD -o cw0 -j ACCEPT"]);
        let after = format!("{before}-A {}\n-A {}\n", missing[0], missing[1]);
        assert!(legacy_rules(&wanted(), "ip", &after).is_empty());
        assert!(legacy_rules(&wanted(), "ip", "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n").is_empty());
        let input = legacy_rules(&wanted(), "ip", "-P INPUT DROP\n-P FORWARD ACCEPT\n");
        assert_eq!(input[3], "INPUT -p udp -m udp --dport 9000:9099 -j ACCEPT");
    }
}
