//! Ten clients, and the addresses that they get and keep.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{
    ClientNode, GatewayNode, Lab, Options, Page, Ping, Programs, address, figure, full_or_short,
};

const CLIENTS: usize = 10;
const FAILED: i32 = 1;
const DAY_S: u64 = 24 * 3600;
const FILE: &str = "http://www.lab.test/file";

fn lab() -> Result<Lab> {
    Lab::with(Options { clients: CLIENTS as u8, ..Options::default() })
}

fn user(index: usize) -> String {
    format!("user{index}")
}

/// Does the same with all clients at once.
fn in_parallel<T: Send>(
    clients: &mut [ClientNode],
    work: impl Fn(&mut ClientNode) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(move || work(client))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// A download, pings, and the web server's view of this client.
fn use_tunnel(lab: &Lab, client: &ClientNode, sent: &str) -> Result<()> {
    let (_, received) = Page::download(&client.node, FILE)?;
    assert_eq!(received, sent, "SHA-256 of a download");
    assert!(Ping::send(&client.node, address::INNER_GATEWAY.into(), 10)?.received > 0);
    let seen = lab.visitor_address(&client.node, address::WEB.into())?;
    assert_eq!(seen, address::GATEWAY.to_string());
    Ok(())
}

fn addresses(clients: &[ClientNode]) -> Result<Vec<Ipv4Addr>> {
    clients.iter().map(ClientNode::inner_address).collect()
}

e2e::over_each_transport! {
    ten_clients_one_by_one_and_in_parallel_keep_their_addresses,
}

fn ten_clients_one_by_one_and_in_parallel_keep_their_addresses(programs: &Programs) -> Result<()> {
    let lab = lab()?;
    let mut gateway = GatewayNode::start_new(&lab, programs)?;
    let sent = lab.make_download("file", full_or_short(128, 8) << 20)?;

    let mut clients = Vec::new();
    let mut first = Vec::new();
    for index in 0..CLIENTS {
        let mut client = ClientNode::connect_new(&lab, index, programs, &gateway, &user(index))?;
        first.push(client.inner_address()?);
        use_tunnel(&lab, &client, &sent).with_context(|| format!("{} alone", user(index)))?;
        client.disconnect()?;
        clients.push(client);
    }
    let different: BTreeSet<_> = first.iter().collect();
    assert_eq!(different.len(), CLIENTS, "one address each: {first:?}");

    in_parallel(&mut clients, |client| client.connect(&[])).context("connecting all at once")?;
    assert_eq!(addresses(&clients)?, first, "addresses after all came again");
    assert_eq!(gateway.status()?["sessions"], CLIENTS);
    in_parallel(&mut clients, |client| use_tunnel(&lab, client, &sent))?;

    for crash in [true, false] {
        let how = if crash { "a crash" } else { "a restart" };
        if crash { gateway.kill9() } else { gateway.stop() }?;
        for client in &clients {
            client.wait_for_state("reconnecting", Duration::from_secs(35))?;
        }
        gateway.start()?;
        for client in &clients {
            client.wait_for_state("connected", Duration::from_secs(25))?;
        }
        assert_eq!(addresses(&clients)?, first, "addresses after {how} of the gateway");
        in_parallel(&mut clients, |client| use_tunnel(&lab, client, &sent))
            .with_context(|| format!("after {how} of the gateway"))?;
    }
    let highest = gateway.process()?.memory("VmHWM")?;
    figure("gateway's highest resident memory with ten clients", highest as f64 / 1e6, "MB");
    in_parallel(&mut clients, ClientNode::disconnect).map(drop)
}

/// Runs SQL on the database of a gateway that does not run.
fn sql(gateway: &GatewayNode, statement: &str) -> Result<String> {
    let database_path = gateway.state_dir().join("server.db");
    let database_path = database_path.to_str().context("path is not UTF-8")?;
    gateway.node.ok(&["sqlite3", "-bail", database_path, statement])
}

/// Makes it look as if a user's device had last been seen so long ago.
fn age(gateway: &GatewayNode, user: &str, seconds: u64) -> Result<()> {
    let changed = sql(
        gateway,
        &format!(
            "UPDATE devices SET last_seen = last_seen - {seconds}
             WHERE user_id = (SELECT id FROM users WHERE name = '{user}'); SELECT changes()"
        ),
    )?;
    assert_eq!(changed.trim(), "1", "devices of {user}");
    Ok(())
}

#[test]
fn a_full_pool_is_named_until_an_address_was_unused_for_30_days() -> Result<()> {
    const ROOM: usize = 5;
    let lab = Lab::with(Options { clients: ROOM as u8 + 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::new(&lab, &programs);
    gateway.init(&address::GATEWAY.to_string())?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = std::fs::read_to_string(&config_path)?;
    std::fs::write(&config_path, config.replace("v4: 10.8.0.0/24", "v4: 10.8.0.0/29"))?;
    gateway.start()?;
    let mut clients = Vec::new();
    let mut given = Vec::new();
    for index in 0..ROOM {
        let mut client = ClientNode::connect_new(&lab, index, &programs, &gateway, &user(index))?;
        given.push(client.inner_address()?);
        client.disconnect()?;
        clients.push(client);
    }
    assert_eq!(given, (2..=6).map(|host| Ipv4Addr::new(10, 8, 0, host)).collect::<Vec<_>>());

    let mut late = ClientNode::new(&lab, ROOM, &programs)?;
    let link = gateway.invite("late")?.link;
    let assert_full = |client: &ClientNode, words: &[&str]| -> Result<()> {
        let ran = client.run(words)?;
        assert_eq!(ran.code(), FAILED, "{ran}");
        assert!(ran.stderr.contains("10.8.0.0/29, 5 clients"), "the pool and its size: {ran}");
        Ok(())
    };
    assert_full(&late, &["import", &link])?;

    // the device that was away longest, but neither long enough nor gone
    gateway.stop()?;
    age(&gateway, &user(3), 29 * DAY_S)?;
    gateway.start()?;
    assert_full(&late, &["import", &link])?;

    gateway.stop()?;
    age(&gateway, &user(3), 2 * DAY_S)?;
    age(&gateway, &user(1), 30 * DAY_S + 60)?;
    gateway.start()?;
    late.import(&link).context("an address was unused for 30 days")?;
    late.connect(&[])?;
    assert_eq!(late.inner_address()?, given[3], "the one unused longest");
    Page::open(&late.node, &format!("http://{}/", address::WEB))?;

    // whose address was taken gets another one, as long as there is one
    clients[3].connect(&[])?;
    assert_eq!(clients[3].inner_address()?, given[1], "the other one that was unused");
    assert_full(&clients[1], &["connect", "--foreground"])?;
    clients[2].connect(&[])?;
    assert_eq!(clients[2].inner_address()?, given[2], "who was here lately keeps the address");
    Ok(())
}
