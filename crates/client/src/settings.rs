//! `client.json`: what the person chose for all connections. Written by the program; the options
//! of `connect` override it.

use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon;
use cipherwall_proto::cipher::{CipherId, DatagramCipher};
use cipherwall_proto::invitation::Transport;
use cipherwall_transport::hardware;
use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::files::{self, FileError};

/// The least that IPv6 needs (RFC 8200, 5).
const MTU_MIN: u16 = 1280;
const MTU_MAX: u16 = 9000;

/// The settings; a missing file or key stands for the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The profile that `connect` takes when none is named.
    pub(crate) default_profile: Option<String>,
    /// Whether the local network stays reachable while connected.
    pub(crate) allow_lan: bool,
    /// The cipher of the tunnel.
    pub(crate) cipher: CipherChoice,
    /// What carries the session.
    pub(crate) transport: TransportChoice,
    /// The tunnel's MTU in bytes, instead of what the gateway says.
    pub(crate) mtu: Option<u16>,
    /// Whether a hint of the session is sent as TLS early data, to gateways that take it.
    pub(crate) early_data: bool,
    /// Networks that are reached directly, outside of the tunnel.
    #[serde(deserialize_with = "networks")]
    pub(crate) direct: Vec<IpNet>,
    /// If any, the only networks that go through the tunnel.
    #[serde(deserialize_with = "networks")]
    pub(crate) only: Vec<IpNet>,
}

/// Networks; an address stands for itself alone.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).map_err(de::Error::custom)).collect()
}

/// A network, as `192.0.2.0/24`, or an address.
fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match parsed {
        Ok(network) if network == network.trunc() => Ok(network),
        Ok(network) => Err(format!("{text} is no network; did you mean {}?", network.trunc())),
        Err(_) => Err(format!("{text:?} is no network; write for example 192.0.2.0/24")),
    }
}

/// A cipher, or the best one for both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CipherChoice {
    /// AES-256-GCM where both ends have hardware for it, else ChaCha20-Poly1305.
    #[default]
    Auto,
    /// ChaCha20-Poly1305.
    #[serde(rename = "chacha20-poly1305")]
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// AES-256-CFB with HMAC-SHA256, for datagrams only.
    #[serde(rename = "aes-256-cfb-hmac-sha256")]
    #[value(name = "aes-256-cfb-hmac-sha256")]
    Aes256CfbHmacSha256,
}

/// A transport, or whichever works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransportChoice {
    /// Whichever works: the best rung of the profile's ladder that does.
    #[default]
    Auto,
    /// TLS 1.3 over TCP.
    Tls,
    /// TLS 1.3 over KCP, which is over UDP.
    Kcp,
    /// Datagrams over UDP, where they get through; until then, and if not, over TCP.
    Udp,
}

/// As it is called on the command line and in the file.
pub(crate) fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl CipherChoice {
    /// Ciphers to offer for the stream, best first.
    pub(crate) fn of_stream(self) -> Vec<CipherId> {
        match self {
            CipherChoice::Auto | CipherChoice::Aes256CfbHmacSha256 => {
                CipherId::auto(hardware::aes())
            }
            CipherChoice::ChaCha20Poly1305 => vec![CipherId::ChaCha20Poly1305],
            CipherChoice::Aes256Gcm => vec![CipherId::Aes256Gcm],
        }
    }

    /// Ciphers to offer for datagrams, best first; none if this transport has none.
    pub(crate) fn of_datagrams(self, transport: TransportChoice) -> Vec<DatagramCipher> {
        match (transport, self) {
            (TransportChoice::Tls | TransportChoice::Kcp, _) => Vec::new(),
            (_, CipherChoice::Aes256CfbHmacSha256) => vec![DatagramCipher::Packet],
            (TransportChoice::Auto, _) => Vec::new(),
            (TransportChoice::Udp, _) => {
                self.of_stream().into_iter().map(DatagramCipher::Aead).collect()
            }
        }
    }

    /// Whether this transport can have the cipher.
    pub(crate) fn goes_with(self, transport: TransportChoice) -> bool {
        self != CipherChoice::Aes256CfbHmacSha256
            || matches!(transport, TransportChoice::Auto | TransportChoice::Udp)
    }
}

impl TransportChoice {
    /// Whether a session may be over this.
    pub(crate) fn takes(self, transport: Transport) -> bool {
        match self {
            TransportChoice::Auto | TransportChoice::Udp => true,
            TransportChoice::Tls => transport == Transport::Tls,
            TransportChoice::Kcp => transport == Transport::Kcp,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_profile: None,
            allow_lan: true,
            cipher: CipherChoice::Auto,
            transport: TransportChoice::Auto,
            mtu: None,
            early_data: false,
            direct: Vec::new(),
            only: Vec::new(),
        }
    }
}

impl From<&Settings> for daemon::Settings {
    fn from(settings: &Settings) -> Self {
        let networks = |all: &[IpNet]| all.iter().map(ToString::to_string).collect();
        Self {
            default_profile: settings.default_profile.clone(),
            allow_lan: settings.allow_lan,
            cipher: name(settings.cipher),
            transport: name(settings.transport),
            mtu: settings.mtu,
            early_data: settings.early_data,
            direct: networks(&settings.direct),
            only: networks(&settings.only),
        }
    }
}

impl TryFrom<&daemon::Settings> for Settings {
    type Error = anyhow::Error;

    /// # Errors
    /// A value makes no sense; the error names its key (wrong usage).
    fn try_from(settings: &daemon::Settings) -> Result<Self, Self::Error> {
        let json = serde_json::to_value(settings)?;
        let settings: Self = serde_path_to_error::deserialize(json)
            .map_err(|error| Failure::usage(format!("{}: {}", error.path(), error.inner())))?;
        settings.check().map_err(Failure::usage)?;
        Ok(settings)
    }
}

impl Settings {
    /// Reads `client.json`.
    ///
    /// # Errors
    /// It cannot be read, or holds an unknown key or a wrong value: the error says where.
    pub(crate) fn load(config_path: &Path) -> Result<Self, FileError> {
        let settings: Self = files::read_json(config_path)?.unwrap_or_default();
        if let Err(wrong) = settings.check() {
            return Err(FileError::Content {
                path: config_path.to_path_buf(),
                line: line_of_key(config_path, wrong.split(':').next().unwrap_or_default()),
                detail: format!("{wrong}; correct it"),
            });
        }
        Ok(settings)
    }

    /// What the types do not say; an error begins with the key.
    fn check(&self) -> Result<(), String> {
        if let Some(mtu) = self.mtu.filter(|mtu| !(MTU_MIN..=MTU_MAX).contains(mtu)) {
            return Err(format!("mtu: {mtu} is not within {MTU_MIN} to {MTU_MAX}"));
        }
        if !self.direct.is_empty() && !self.only.is_empty() {
            return Err("only: cannot be used together with direct".to_owned());
        }
        Ok(())
    }

    /// Writes `client.json`; its directory is made if it is missing.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self, config_path: &Path) -> Result<(), FileError> {
        if let Some(dir) = config_path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.map_err(FileError::io("create", dir))?;
        }
        files::write_json(config_path, self, 0o644)
    }
}

/// The line on which `key` stands; 1 when the file has changed meanwhile.
fn line_of_key(path: &Path, key: &str) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let quoted = format!("\"{key}\"");
    text.lines().position(|line| line.contains(&quoted)).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, FileError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("client.json");
        std::fs::write(&path, text).expect("written");
        Settings::load(&path)
    }

    #[test]
    fn a_missing_file_and_missing_keys_are_defaults() {
        let defaults = Settings::load(Path::new("/nowhere/client.json")).expect("defaults");
        assert_eq!(defaults, Settings::default());
        assert!(defaults.allow_lan && !defaults.early_data);
        assert_eq!(load("{}").expect("defaults"), defaults);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("etc").join("client.json");
        let settings = Settings {
            default_profile: Some("home".into()),
            allow_lan: false,
            cipher: CipherChoice::ChaCha20Poly1305,
            transport: TransportChoice::Tls,
            mtu: Some(1400),
            early_data: true,
            direct: vec!["192.0.2.0/24".parse().expect("a network")],
            only: Vec::new(),
        };
        settings.save(&path).expect("saved");
        assert_eq!(Settings::load(&path).expect("loaded"), settings);
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.contains(r#""cipher": "chacha20-poly1305""#), "{text}");
    }

    #[test]
    fn a_wrong_value_is_named_with_line_and_key() {
        let error = load("{\n \"mtu\": 100\n}").expect_err("too small").to_string();
        assert!(error.contains("client.json, line 2: mtu: 100"), "{error}");
        let error = load("{\n \"cipher\": \"rot13\"\n}").expect_err("unknown").to_string();
        assert!(error.contains("line 2: cipher: unknown variant `rot13`"), "{error}");
        assert!(error.contains("aes-256-gcm"), "{error}");
    }

    #[test]
    fn networks_are_checked_and_an_address_is_one() {
        let good = load(r#"{"direct": ["192.0.2.0/24", "2001:db8::1"]}"#).expect("good");
        let direct: Vec<_> = good.direct.iter().map(ToString::to_string).collect();
        assert_eq!(direct, ["192.0.2.0/24", "2001:db8::1/128"]);
        let host_bits = load(r#"{"only": ["192.0.2.1/24"]}"#).expect_err("host bits").to_string();
        assert!(host_bits.contains("did you mean 192.0.2.0/24"), "{host_bits}");
        let both = load("{\n\"direct\": [\"10.0.0.0/8\"],\n\"only\": [\"10.0.0.0/8\"]}");
        let both = both.expect_err("both").to_string();
        assert!(both.contains("line 3: only: cannot be used together"), "{both}");
    }

    #[test]
    fn front_ends_see_and_set_the_same_settings() {
        let settings = load(r#"{"cipher": "aes-256-gcm", "only": ["10.0.0.0/8"]}"#).expect("good");
        let mut shown = daemon::Settings::from(&settings);
        assert_eq!((shown.cipher.as_str(), shown.transport.as_str()), ("aes-256-gcm", "auto"));
        assert_eq!(Settings::try_from(&shown).expect("the same"), settings);
        assert_eq!(daemon::Settings::from(&Settings::default()), daemon::Settings::default());
        shown.cipher = "rot13".into();
        let error = Settings::try_from(&shown).expect_err("unknown").to_string();
        assert!(error.starts_with("cipher: ") && error.contains("aes-256-gcm"), "{error}");
    }

    #[test]
    fn datagrams_are_asked_for_by_their_transport_or_their_cipher() {
        use CipherChoice::{Aes256CfbHmacSha256, Aes256Gcm, Auto, ChaCha20Poly1305};
        let asked = |cipher: CipherChoice, transport| {
            let ciphers = cipher.of_datagrams(transport);
            ciphers.into_iter().map(DatagramCipher::name).collect::<Vec<_>>()
        };
        assert_eq!(asked(Auto, TransportChoice::Auto), [""; 0]);
        assert_eq!(asked(Aes256CfbHmacSha256, TransportChoice::Tls), [""; 0]);
        assert_eq!(asked(Auto, TransportChoice::Udp).len(), 2);
        assert_eq!(asked(ChaCha20Poly1305, TransportChoice::Udp), ["chacha20-poly1305"]);
        assert_eq!(asked(Aes256Gcm, TransportChoice::Udp), ["aes-256-gcm"]);
        for transport in [TransportChoice::Auto, TransportChoice::Udp] {
            assert_eq!(asked(Aes256CfbHmacSha256, transport), ["aes-256-cfb-hmac-sha256"]);
        }
        assert_eq!(Aes256CfbHmacSha256.of_stream(), Auto.of_stream());
    }

    #[test]
    fn names_are_the_same_in_the_file_and_on_the_command_line() {
        for cipher in CipherChoice::value_variants() {
            let name = cipher.to_possible_value().expect("shown").get_name().to_owned();
            assert_eq!(serde_json::to_value(cipher).expect("JSON"), name);
        }
    }
}
