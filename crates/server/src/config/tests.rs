//! What an administrator may write, and what he is told if he errs.

use super::*;

#[path = "../../../../fuzz/bodies/config.rs"]
mod body;

const MINIMAL: &str = "endpoint: vpn.example.net\nnetworks:\n  v6: fd12:3456:789a::/64\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/cipherwall/server.yaml"), text)
}

fn complaint(text: &str) -> String {
    parse(text).expect_err("it must be refused").to_string()
}

/// The complaint about a line that follows the three minimal ones.
fn complaint_about(line: &str) -> String {
    complaint(&format!("{MINIMAL}{line}\n"))
}

fn host_port(text: &str) -> HostPort {
    text.parse().unwrap()
}

#[test]
fn what_init_writes_is_the_defaults() {
    let endpoint = host_port("vpn.example.net");
    let text = template::new_file(&endpoint, None, "fd12:3456:789a::/64".parse().unwrap());
    assert_eq!(parse(&text).unwrap(), parse(MINIMAL).unwrap());
    let with_uplink = template::new_file(
        &host_port("[2001:db8::1]:443"),
        Some("ens3"),
        "fd00::/64".parse().unwrap(),
    );
    let config = parse(&with_uplink).unwrap();
    assert_eq!(config.uplink.as_deref(), Some("ens3"));
    assert_eq!(config.endpoint, HostPort { host: "2001:db8::1".into(), port: 443 });
    assert_eq!(config.listen, ["[::]:443".parse().unwrap()]);
}

#[test]
fn the_commented_examples_work() {
    let text = template::new_file(&host_port("a.example"), None, "fd00::/64".parse().unwrap());
    let text = text
        .replace("  upstreams: []", "  upstreams: [10.202.10.202, 10.202.10.102]")
        .replace("# uplink:", "uplink:")
        .replace("  # file:", "  file:")
        .replace("allow_private: []", "allow_private: [192.168.1.0/24]");
    let config = parse(&text).unwrap();
    let upstreams: Vec<_> = config.dns.upstreams.iter().map(ToString::to_string).collect();
    assert_eq!(upstreams, ["10.202.10.202:53", "10.202.10.102:53"]);
    assert_eq!(config.uplink.as_deref(), Some("eth0"));
    assert_eq!(config.log.file.as_deref(), Some(Path::new("/var/log/cipherwall/server.log")));
    assert_eq!(config.allow_private, ["192.168.1.0/24".parse().unwrap()]);
}

#[test]
fn the_speed_test_has_a_port_or_is_off() {
    let port = |line: &str| parse(&format!("{MINIMAL}{line}\n")).unwrap().speedtest;
    assert_eq!(port(""), Some(cipherwall_speedtest::DEFAULT_PORT));
    assert_eq!(port("speedtest: 9000"), Some(9000));
    assert_eq!(port("speedtest: off"), None);
    assert_eq!(port("speedtest: \"off\""), None);
}

#[test]
fn the_connections_of_a_client_have_a_limit_or_none() {
    let limit = |line: &str| parse(&format!("{MINIMAL}{line}\n")).unwrap().connections_each;
    assert_eq!(limit(""), Some(cipherwall_netcfg::CONNECTIONS_EACH_DEFAULT));
    assert_eq!(limit("connections_each: 64"), Some(64));
    assert_eq!(limit("connections_each: off"), None);
    for wrong in ["63", "many", "-1"] {
        let complaint = complaint_about(&format!("connections_each: {wrong}"));
        assert!(complaint.contains("64 to 1000000") && complaint.contains("off"), "{complaint}");
    }
}

#[test]
fn kcp_has_a_port_that_datagrams_do_not_have_or_is_off() {
    let port = |text: &str| parse(&format!("{MINIMAL}{text}\n")).unwrap().kcp_port();
    assert_eq!(port(""), Some(443));
    assert_eq!(port("kcp:\n  port: 8443"), Some(8443));
    assert_eq!(port("kcp:\n  port: off"), None);
    assert_eq!(port("datagrams:\n  port: 443"), None);
    assert_eq!(port("datagrams:\n  port: off"), Some(443));
}

#[test]
fn the_site_is_a_page_a_folder_or_another_site() {
    let site = |text: &str| parse(&format!("{MINIMAL}{text}\n")).unwrap().site;
    let another = |tls, host: &str, port| {
        Site::Proxy(Upstream { tls, at: HostPort { host: host.to_owned(), port } })
    };
    assert_eq!(site(""), Site::Welcome);
    assert_eq!(site("site: welcome"), Site::Welcome);
    assert_eq!(site("site: /var/www/html"), Site::Folder("/var/www/html".into()));
    assert_eq!(site("site: https://www.example.net/"), another(true, "www.example.net", 443));
    assert_eq!(site("site: http://127.0.0.1:8080"), another(false, "127.0.0.1", 8080));
    assert_eq!(site("site: \"http://[::1]\""), another(false, "::1", 80));
    for wrong in ["www", "ftp://a", "https://a/b", "https://a?b", "http://:80", "http://u@a"] {
        let complaint = complaint_about(&format!("site: {wrong}"));
        assert!(complaint.contains("/var/www/html"), "{wrong}: {complaint}");
    }
    let authority = |text: &str| match site(text) {
        Site::Proxy(upstream) => upstream.authority(),
        Site::Welcome | Site::Folder(_) => String::new(),
    };
    assert_eq!(authority("site: https://a.example"), "a.example");
    assert_eq!(authority("site: http://a.example:443"), "a.example:443");
}

#[test]
fn a_certificate_has_a_file_and_perhaps_a_key() {
    let certificate = |text: &str| parse(&format!("{MINIMAL}{text}\n")).unwrap().certificate;
    assert_eq!(certificate(""), None);
    let with_key = certificate("certificate:\n  file: /a/chain.pem\n  key: /a/key.pem").unwrap();
    assert_eq!(with_key.file, PathBuf::from("/a/chain.pem"));
    assert_eq!(with_key.key, Some("/a/key.pem".into()));
    assert_eq!(certificate("certificate:\n  file: /a/chain.pem").unwrap().key, None);
    let complaint = complaint_about("certificate:\n  file: chain.pem");
    assert!(complaint.contains("no absolute path"), "{complaint}");
}

#[test]
fn datagrams_have_a_port_or_a_range_of_them_or_are_off() {
    let ports = |text: &str| parse(&format!("{MINIMAL}{text}\n")).unwrap().datagrams.offered();
    assert_eq!(ports(""), Some(1194..=1194));
    assert_eq!(ports("datagrams:\n  port: 443"), Some(443..=443));
    assert_eq!(ports("datagrams:\n  port: off"), None);
    assert_eq!(ports("datagrams:\n  ports: off"), Some(1194..=1194));
    assert_eq!(ports("datagrams:\n  ports: 9000-9002"), Some(9000..=9002));
    assert_eq!(ports("datagrams:\n  port: off\n  ports: 9000 - 9000"), Some(9000..=9000));
}

#[test]
fn early_data_is_off_unless_it_is_switched_on() {
    let early_data = |line: &str| parse(&format!("{MINIMAL}{line}\n")).unwrap().tls.early_data;
    assert!(!early_data(""));
    assert!(!early_data("tls:\n  early_data: off"));
    assert!(early_data("tls:\n  early_data: on"));
    assert!(early_data("tls:\n  early_data: \"on\""));
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_likely_one() {
    assert_eq!(
        complaint_about("endpont: x"),
        "/etc/cipherwall/server.yaml, line 4: unknown key \"endpont\"; did you mean \"endpoint\"?"
    );
    let nested = complaint_about("limits:\n  handshake_s: 5\n  conections: 5");
    assert!(nested.contains("line 6: unknown key \"conections\""), "{nested}");
    assert!(nested.contains("did you mean \"connections\"?"), "{nested}");
    let far = complaint_about("dns:\n  colour: red");
    assert!(far.contains("line 5: unknown key \"colour\"; known are: upstreams"), "{far}");
}

#[test]
fn each_wrong_value_is_named_with_line_key_and_remedy() {
    for (line, expected) in [
        ("mtu: 100", "line 4: mtu: 100 is out of range; write 1280 to 65000 bytes"),
        ("mtu: many", "line 4: mtu: "),
        ("listen: [\"[::]\"]", "line 4: listen: \"[::]\" is no address with a port"),
        ("listen: []", "line 4: listen: no address to listen on"),
        ("listen:\n  - \"[::]:8443\"\n  - 8443", "listen: \"8443\" is no address with a port"),
        ("interface: a/b", "line 4: interface: \"a/b\" is no interface name"),
        ("uplink: way_too_long_a_name", "line 4: uplink: \"way_too_long_a_name\""),
        ("dns:\n  upstreams: [dns.example]", "line 5: dns.upstreams: \"dns.example\" is no"),
        ("speedtest: on", "line 4: speedtest: \"on\" is no port from 1 to 65535"),
        ("speedtest: 70000", "line 4: speedtest: \"70000\" is no port"),
        ("speedtest: 0", "line 4: speedtest: \"0\" is no port"),
        ("datagrams:\n  port: 0", "line 5: datagrams.port: \"0\" is no port from 1 to 65535"),
        ("datagrams:\n  ports: 9000", "line 5: datagrams.ports: \"9000\" is no range of 1 to"),
        ("datagrams:\n  ports: 9099-9000", "write for example 9000-9099, or off"),
        ("datagrams:\n  ports: 1-65535", "datagrams.ports: \"1-65535\" is no range of 1 to 1000"),
        ("allow_private: [192.168.1.300/24]", "line 4: allow_private: "),
        ("sni: [\"a b\"]", "line 4: sni: \"a b\" is no host name"),
        ("tls:\n  early_data: maybe", "line 5: tls.early_data: \"maybe\" is neither on nor off"),
        ("keepalive:\n  interval_s: 0", "line 5: keepalive.interval_s: 0 is out of range"),
        ("rekey:\n  interval: 1ms", "line 5: rekey.interval: \"1ms\" is no time from 100ms to 24h"),
        ("rekey:\n  interval: 4", "line 5: rekey.interval: \"4\" is no time"),
        ("rekey:\n  volume_mib: 65537", "line 5: rekey.volume_mib: 65537 is out of range"),
        ("rekey:\n  records: 999", "line 5: rekey.records: 999 is out of range"),
        ("limits:\n  handshake_s: -1", "line 5: limits.handshake_s: -1 is out of range"),
        ("log:\n  level: inof", "line 5: log.level: \"inof\" is not known; did you mean \"info\""),
        ("mtu: 1400\nmtu: 1300", "line 5: mtu: this key is given twice"),
        ("mtu: [", "/etc/cipherwall/server.yaml, line "),
    ] {
        let complaint = complaint_about(line);
        assert!(complaint.contains(expected), "{line}\n gives {complaint}");
        assert!(!complaint.contains('\n'), "{complaint}");
    }
}

#[test]
fn missing_and_unfit_networks_are_named() {
    let missing = complaint("endpoint: a.example\nnetworks:\n  v4: 10.8.0.0/24\n");
    assert!(missing.contains("the key \"v6\" is missing in networks"), "{missing}");
    let missing = complaint("networks:\n  v6: fd00::/64\n");
    assert!(missing.contains("the key \"endpoint\" is missing"), "{missing}");
    let small = complaint("endpoint: a.example\nnetworks:\n  v4: 10.8.0.0/31\n  v6: fd00::/64\n");
    assert!(small.contains("networks") && small.contains("use /30 or larger"), "{small}");
    let wrong = complaint("endpoint: a.example\nnetworks:\n  v4: 10.8.0.0/33\n  v6: fd00::/64\n");
    assert!(wrong.contains("line 3: networks.v4: \"10.8.0.0/33\" is no IPv4 network"), "{wrong}");
}

#[test]
fn endpoints() {
    for (text, host, port) in [
        ("vpn.example.net", "vpn.example.net", 8443),
        ("vpn.example.net:443", "vpn.example.net", 443),
        ("198.51.100.7:443", "198.51.100.7", 443),
        ("2001:db8::1", "2001:db8::1", 8443),
        ("[2001:db8::1]", "2001:db8::1", 8443),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ] {
        let parsed = host_port(text);
        assert_eq!((&*parsed.host, parsed.port), (host, port), "{text}");
        assert_eq!(host_port(&parsed.to_string()), parsed);
    }
    for text in [
        "",
        ":443",
        "a:0",
        "a:70000",
        "a:b",
        "a b",
        "[::1",
        "[a]:1",
        "0.0.0.0",
        "1.2.3.999",
        "-a.example",
        "a..b",
        "https://a.example",
        "::",
    ] {
        let error = text.parse::<HostPort>().expect_err(text);
        assert!(error.contains("write HOST:PORT"), "{error}");
    }
}

#[test]
fn a_later_init_changes_its_lines_only() {
    let path = Path::new("server.yaml");
    let text = template::new_file(&host_port("a.example"), None, "fd00::/64".parse().unwrap())
        .replace("mtu: 1420", "mtu: 1300   # for the ferry");
    let new = template::updated(path, &text, &host_port("b.example:443"), Some("ens3")).unwrap();
    let changed: Vec<_> =
        text.lines().zip(new.lines()).filter(|(a, b)| a != b).map(|(_, b)| b).collect();
    assert_eq!(changed, ["endpoint: \"b.example:443\"", "uplink: ens3"]);
    assert_eq!(text.lines().count(), new.lines().count());
    assert_eq!(template::updated(path, &new, &host_port("b.example:443"), None).unwrap(), new);
    let bare = template::updated(path, MINIMAL, &host_port("b.example"), Some("ens3")).unwrap();
    assert_eq!(parse(&bare).unwrap().uplink.as_deref(), Some("ens3"));
}

#[test]
fn a_missing_file_says_what_to_run() {
    let error = Config::load(Path::new("/nonexistent/server.yaml")).unwrap_err();
    assert!(error.to_string().contains("cipherwall-server init --endpoint HOST"), "{error}");
}

/// Of the fuzz target (docs/fuzzing.md).
#[test]
fn the_corpus_is_survived() {
    crate::replay::replay("config", body::run);
}
