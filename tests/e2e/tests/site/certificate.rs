//! A certificate from files: for the gateway's own key, renewed without anybody noticing.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{ClientNode, GatewayNode, Lab, Ping, Programs, address, until};

/// Makes a certificate authority, and certificates of it from requests.
const AUTHORITY: &str = r#"
set -e
cd "$0"
[ -f ca.key ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key \
    -out ca.crt -subj /CN=Authority -days 30
openssl x509 -req -in request.pem -CA ca.crt -CAkey ca.key -days 20 -out leaf.crt \
    -set_serial "$1" -copy_extensions copy
cat leaf.crt ca.crt > "$2.new"
mv "$2.new" "$2"
"#;

/// The serial number that the gateway shows to somebody who trusts the authority.
fn serial(lab: &Lab, dir: &str) -> Result<String> {
    let script = "openssl s_client -connect \"$0:8443\" -servername www.example.net -verify_return_error \
        -CAfile \"$1/ca.crt\" < /dev/null 2> /dev/null | openssl x509 -noout -serial";
    let host = address::GATEWAY.to_string();
    Ok(lab.internet.run(&["sh", "-c", script, &host, dir])?.stdout.trim().to_owned())
}

#[test]
fn a_certificate_from_files_is_shown_and_read_again_and_clients_stay() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;

    let dir = gateway.node.dir().join("authority");
    fs::create_dir_all(&dir)?;
    let dir = dir.display().to_string();
    let request = gateway.run(&["cert", "request", "www.example.net"])?.ok()?;
    fs::write(format!("{dir}/request.pem"), request)?;
    let issue = |serial: &str| {
        let file = format!("{dir}/chain.pem");
        lab.gateway.ok(&["bash", "-c", AUTHORITY, &dir, serial, &file])
    };
    issue("17")?;
    let certificate = format!("\ncertificate:\n  file: {dir}/chain.pem\nsite: welcome");
    gateway.edit(&[("\nsite: welcome", &certificate)])?;
    gateway.reload()?;
    ensure!(serial(&lab, &dir)? == "serial=11", "{}", serial(&lab, &dir)?);
    let shown = gateway.run(&["cert", "show"])?.ok()?;
    ensure!(shown.contains("www.example.net") && shown.contains("chain.pem"), "{shown}");

    issue("18")?;
    until("the new certificate to be shown", Duration::from_secs(25), || {
        Ok((serial(&lab, &dir)? == "serial=12").then_some(()))
    })?;
    // by the same pin, and without a break
    client.wait_for_state("connected", Duration::from_secs(15))?;
    let pinged = Ping::send(&client.node, address::WEB.into(), 3)?;
    ensure!(pinged.received > 0);

    let other_key = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout other.key -out chain.pem -subj /CN=other";
    lab.gateway.ok(&["sh", "-c", &format!("cd {dir} && {other_key}")])?;
    let refused = gateway.run(&["cert", "show"])?;
    ensure!(refused.stderr.contains("another key"), "{refused}");
    std::thread::sleep(Duration::from_secs(12));
    ensure!(serial(&lab, &dir)? == "serial=12", "a certificate of another key was taken");
    Ok(())
}
