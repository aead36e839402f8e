//! Keys and certificates in real files.

use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;

use super::*;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn init_makes_keys_once_for_root_only() {
    let dir = dir();
    let (first, new) = Identity::init(dir.path(), "vpn.example.net").unwrap();
    assert!(new);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    let (second, new) = Identity::init(dir.path(), "vpn.example.net").unwrap();
    assert!(!new);
    assert_eq!(first.pins(), second.pins());
    assert_eq!(first.certificate(), second.certificate());
    assert_ne!(first.pins()[0], first.pins()[1]);
}

#[test]
fn the_certificate_is_for_the_host_and_one_year_and_its_key_is_the_first_pin() {
    let dir = dir();
    let (identity, _) = Identity::init(dir.path(), "2001:db8::1").unwrap();
    let info = identity.describe().unwrap();
    assert_eq!(info.names, ["2001:db8::1"]);
    assert_eq!(info.not_after - info.not_before, VALID.whole_seconds());
    let der = identity.certificate();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let spki: [u8; 32] = Sha256::digest(certificate.public_key().raw).into();
    assert_eq!(spki, identity.pins()[0]);
    assert_eq!(certificate.subject().to_string(), "CN=2001:db8::1");
    assert!(!certificate.is_ca());
}

#[test]
fn another_host_makes_another_certificate_and_keeps_the_pins() {
    let dir = dir();
    let (first, _) = Identity::init(dir.path(), "a.example").unwrap();
    let moved = Identity::load(dir.path(), "b.example").unwrap();
    assert_eq!(moved.describe().unwrap().names, ["b.example"]);
    assert_eq!(moved.pins(), first.pins());
}

#[test]
fn a_certificate_is_due_after_two_thirds_or_before_its_time() {
    let dir = dir();
    let (mut identity, _) = Identity::init(dir.path(), "a.example").unwrap();
    let now = OffsetDateTime::now_utc();
    for (days, due) in [(0, false), (240, false), (243, true), (300, true), (400, true), (-2, true)]
    {
        assert_eq!(identity.is_due(now + Duration::days(days)), due, "{days} days from now");
    }
    // a clock a year ahead, then right again: each time one renewal settles it
    for when in [now + Duration::days(365), now, OffsetDateTime::UNIX_EPOCH, now] {
        assert!(identity.is_due(when));
        identity.renew(when).unwrap();
        assert!(!identity.is_due(when));
    }
}

#[test]
fn renewal_keeps_key_pins_and_host_and_is_kept_in_the_file() {
    let dir = dir();
    let (mut identity, _) = Identity::init(dir.path(), "a.example").unwrap();
    let (pins, before) = (identity.pins(), identity.certificate());
    identity.renew(OffsetDateTime::now_utc()).unwrap();
    assert_eq!(identity.pins(), pins);
    assert_ne!(identity.certificate(), before, "another serial number at least");
    assert_eq!(identity.describe().unwrap().names, ["a.example"]);
    let loaded = Identity::load(dir.path(), "a.example").unwrap();
    assert_eq!((loaded.certificate(), loaded.pins()), (identity.certificate(), pins));
}

#[test]
fn a_renewal_that_cannot_be_written_leaves_the_old_certificate_in_use() {
    let dir = dir();
    let (mut identity, _) = Identity::init(dir.path(), "a.example").unwrap();
    let before = identity.certificate();
    std::fs::create_dir(dir.path().join("gateway.new")).unwrap();
    let error = identity.renew(OffsetDateTime::now_utc()).err().unwrap();
    assert!(error.to_string().contains("gateway.crt"), "{error}");
    assert_eq!(identity.certificate(), before);
    assert_eq!(Identity::load(dir.path(), "a.example").unwrap().certificate(), before);
}

#[test]
fn rustls_takes_key_and_certificate() {
    let dir = dir();
    let (identity, _) = Identity::init(dir.path(), "vpn.example.net").unwrap();
    rustls::ServerConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![identity.certificate()], identity.private_key())
    .unwrap();
}

#[test]
fn a_missing_and_a_damaged_key_are_said_with_the_remedy() {
    let dir = dir();
    let missing = Identity::load(dir.path(), "a.example").err().unwrap().to_string();
    assert!(missing.contains("gateway.key is missing; restore it"), "{missing}");
    Identity::init(dir.path(), "a.example").unwrap();
    std::fs::write(dir.path().join(SPARE_KEY_FILE), "junk").unwrap();
    let damaged = Identity::load(dir.path(), "a.example").err().unwrap().to_string();
    assert!(damaged.contains("spare.key is damaged"), "{damaged}");
}

/// Writes a certificate for this key to `dir/chain.pem`.
fn issue(dir: &Path, key: &KeyPair, serial: u8) {
    let mut params = CertificateParams::new(["www.example.net".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    std::fs::write(dir.join("chain.pem"), params.self_signed(key).unwrap().pem()).unwrap();
}

#[test]
fn a_certificate_from_files_is_for_the_own_key_and_read_again() {
    let dir = dir();
    let (own, _) = Identity::init(dir.path(), "a.example").unwrap();
    let pins = own.pins();
    issue(dir.path(), &own.key, 1);
    let config = config::Certificate { file: dir.path().join("chain.pem"), key: None };
    let mut identity = own.with_files(Some(&config)).unwrap();
    let first = identity.certificate();
    assert_eq!(identity.describe().unwrap().names, ["www.example.net"]);
    assert_eq!((identity.pins(), identity.describe().unwrap().renews), (pins, None));
    assert!(!identity.is_due(OffsetDateTime::now_utc() + Duration::days(9_999)));
    assert!(!identity.reload_files().unwrap(), "nothing has changed");
    assert!(identity.renew(OffsetDateTime::now_utc()).is_err());

    let key = KeyPair::from_pem(&identity.key.serialize_pem()).unwrap();
    std::fs::remove_file(&config.file).unwrap();
    issue(dir.path(), &key, 2);
    assert!(identity.reload_files().unwrap());
    assert_ne!(identity.certificate(), first);

    let second = identity.certificate();
    std::fs::remove_file(&config.file).unwrap();
    issue(dir.path(), &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), 3);
    let error = identity.reload_files().unwrap_err().to_string();
    assert!(error.contains("another key"), "{error}");
    assert_eq!(identity.certificate(), second, "the old one stays");
    assert!(!identity.reload_files().unwrap(), "said once");
}

#[test]
fn a_key_from_a_file_becomes_the_first_pin() {
    let dir = dir();
    let (own, _) = Identity::init(dir.path(), "a.example").unwrap();
    let pins = own.pins();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    issue(dir.path(), &key, 1);
    let key_path = dir.path().join("key.pem");
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    let config = config::Certificate { file: dir.path().join("chain.pem"), key: Some(key_path) };
    let identity = own.with_files(Some(&config)).unwrap();
    assert_eq!(identity.pins(), [pin(&key), pins[1]]);
    assert!(Serving::new(identity, false).is_ok());
}

#[test]
fn a_request_is_for_the_own_key() {
    let dir = dir();
    let (identity, _) = Identity::init(dir.path(), "a.example").unwrap();
    let request = identity.request(vec!["www.example.net".to_owned()]).unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
    let own = identity.key.subject_public_key_info();
    assert_eq!(request.certification_request_info.subject_pki.raw, own);
}
