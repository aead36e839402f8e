//! `cipherwall import` against a gateway that dies at the wrong moment, or refuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::path::Path;
use std::process::{Output, Stdio};

use cipherwall_proto::gateway::{Demand, Opening};
use cipherwall_proto::invitation::{Endpoint, Invitation, Transport};
use cipherwall_proto::keys::DoorKey;
use cipherwall_proto::knock::{Verdict, Watch};
use cipherwall_proto::message::{RefusalCode, Refused, Text, Welcome};
use cipherwall_transport::tls::{ServerConfig, TlsStream, spki_pin};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::process::Command;

const DOOR: [u8; 32] = [4; 32];
const SECRET: [u8; 16] = [5; 16];

/// A gateway, as far as an enrolment sees it.
struct Gateway {
    listener: TcpListener,
    config: ServerConfig,
    link: String,
}

impl Gateway {
    async fn new() -> Gateway {
        let signed = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
        let certificate = CertificateDer::from(signed.cert.der().to_vec());
        let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            transport: Transport::Tls,
            pins: [spki_pin(&certificate).unwrap(), [0; 32]],
        };
        let invitation = Invitation {
            endpoints: vec![endpoint],
            user: "alice".into(),
            salt: [3; 16],
            door_key: DOOR,
            enrol_secret: SECRET,
            expires: u64::from(u32::MAX),
            sni: Vec::new(),
        };
        let config = ServerConfig::new(certificate, key).unwrap();
        Gateway { listener, config, link: invitation.to_link() }
    }

    /// The next request: which device wants to be enrolled.
    async fn asked(&self) -> ([u8; 32], Opening, TlsStream) {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let (mut tls, agreed) = self.config.handshake(tcp).await.unwrap();
        let mut watch = Watch::new(&agreed.root, &[DoorKey(DOOR)], agreed.alpn);
        let mut opening = Opening::new(agreed.root, true);
        let request = tls.read_record().await.unwrap().unwrap();
        let Verdict::Opened { consumed } = watch.push(&request) else { panic!("no opener") };
        let demand = opening.handle_record(&request[consumed..]).unwrap();
        let Some(Demand::Enrol { secret, device, .. }) = demand else { panic!("{demand:?}") };
        assert_eq!(secret, SECRET);
        (device, opening, tls)
    }

    async fn import(&self, dir: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cipherwall"));
        command.arg("--state-dir").arg(dir).args(["import", &self.link]);
        command.kill_on_drop(true).stdin(Stdio::null()).output().await.unwrap()
    }
}

fn welcome() -> Welcome {
    Welcome {
        session_id: [1; 16].into(),
        token: [2; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text([10, 8, 0, 2].into()),
        v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
        routes: Vec::new(),
        dns: Vec::new(),
        mtu: 1_420,
        keepalive: 15,
        time: 1,
        pins: Vec::new(),
        datagram: None,
    }
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("profiles")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_lost_answer_burns_no_invitation() {
    let (gateway, dir) = (Gateway::new().await, tempfile::tempdir().unwrap());
    // Accepts the device and dies, and again when the client asks once more.
    let die_twice = async {
        let (first, ..) = gateway.asked().await;
        let (second, ..) = gateway.asked().await;
        assert_eq!(first, second);
        first
    };
    let (device, import) = tokio::join!(die_twice, gateway.import(dir.path()));
    assert_eq!(import.status.code(), Some(4), "{}", said(&import));
    assert!(said(&import).contains("the same invitation stays good"), "{}", said(&import));
    let [kept] = &files(dir.path())[..] else { panic!("{:?}", files(dir.path())) };
    assert!(kept.starts_with(".pending-"), "{kept}");

    // Too busy to say whether it did: that changes nothing.
    let refuse = async {
        let (_, opening, mut tls) = gateway.asked().await;
        tls.send(&opening.refuse(Refused::new(RefusalCode::Busy))).await.unwrap();
    };
    let ((), import) = tokio::join!(refuse, gateway.import(dir.path()));
    assert_eq!(import.status.code(), Some(1), "{}", said(&import));
    assert_eq!(files(dir.path()), [kept.as_str()]);

    let recover = async {
        let (again, opening, mut tls) = gateway.asked().await;
        tls.send(&opening.welcome(welcome()).0).await.unwrap();
        again
    };
    let (again, import) = tokio::join!(recover, gateway.import(dir.path()));
    assert_eq!(import.status.code(), Some(0), "{}", said(&import));
    assert_eq!(again, device, "the gateway knows this device");
    assert_eq!(files(dir.path()), ["127.0.0.1.json"]);
}

#[tokio::test]
async fn a_client_that_is_killed_burns_no_invitation() {
    let (gateway, dir) = (Gateway::new().await, tempfile::tempdir().unwrap());
    let device = tokio::select! {
        (device, _opening, _tls) = gateway.asked() => device,
        output = gateway.import(dir.path()) => panic!("{}", said(&output)),
    };
    // The import was dropped, and killed with that.
    let recover = async {
        let (again, opening, mut tls) = gateway.asked().await;
        tls.send(&opening.welcome(welcome()).0).await.unwrap();
        again
    };
    let (again, import) = tokio::join!(recover, gateway.import(dir.path()));
    assert_eq!(import.status.code(), Some(0), "{}", said(&import));
    assert_eq!(again, device, "the gateway knows this device");
}

#[tokio::test]
async fn a_device_that_was_not_accepted_leaves_nothing_behind() {
    for (code, exit_code) in
        [(RefusalCode::Used, 5), (RefusalCode::Expired, 5), (RefusalCode::Busy, 1)]
    {
        let (gateway, dir) = (Gateway::new().await, tempfile::tempdir().unwrap());
        let refuse = async {
            let (_, opening, mut tls) = gateway.asked().await;
            tls.send(&opening.refuse(Refused::new(code))).await.unwrap();
        };
        let ((), import) = tokio::join!(refuse, gateway.import(dir.path()));
        assert_eq!(import.status.code(), Some(exit_code), "{}", said(&import));
        assert_eq!(files(dir.path()), Vec::<String>::new(), "{code:?}");
    }
}

#[tokio::test]
async fn another_version_says_which_side_to_update() {
    for (versions, side) in [((2, 3), "update this program"), ((0, 0), "update the gateway")] {
        let (gateway, dir) = (Gateway::new().await, tempfile::tempdir().unwrap());
        let refuse = async {
            let (_, opening, mut tls) = gateway.asked().await;
            let refused =
                Refused { versions: Some(versions), ..Refused::new(RefusalCode::Version) };
            tls.send(&opening.refuse(refused)).await.unwrap();
        };
        let ((), import) = tokio::join!(refuse, gateway.import(dir.path()));
        assert_eq!(import.status.code(), Some(1), "{}", said(&import));
        assert!(said(&import).contains(side), "{}", said(&import));
    }
}
