//! Content of an authority's certificate, parsed by another library than the one that wrote it.
#![expect(clippy::unwrap_used, reason = "a helper of the tests fails by panicking")]

use std::{
    error::Error as _,
    io,
    time::{Duration, SystemTime},
};

use bottle_tls::{CaRole, CaSpec, CertificateAuthority, DEFAULT_LIFETIME, RandomSource, SystemRandom, TlsError};
use common::{HOST, Seeded};
use proptest::prelude::*;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{extensions::ParsedExtension, prelude::*};

mod common;

/// 2026-06-01 12:00:00 UTC.
const NOON: u64 = 1_780_315_200;
/// Time before the given clock from which a certificate is valid: one day, in seconds.
const BACKDATING: u64 = 86_400;
/// 1950-01-01 00:00:00 UTC, in seconds before 1970.
const FROM_1950: u64 = 631_152_000;
/// 2050-01-01 00:00:00 UTC.
const YEAR_2050: u64 = 2_524_608_000;
/// 9999-12-31 23:59:59 UTC.
const END_OF_9999: u64 = 253_402_300_799;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn mint(spec: &CaSpec) -> Result<CertificateAuthority, TlsError> {
    CertificateAuthority::mint(spec, &mut Seeded::new(1))
}

fn parse(authority: &CertificateAuthority) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(authority.certificate_der()).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn unix(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap(),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
    }
}

/// Asserts everything that holds for every authority.
fn check(authority: &CertificateAuthority, spec: &CaSpec) {
    let certificate = parse(authority);
    assert_eq!(certificate.version(), X509Version::V3);
    certificate.verify_signature(None).unwrap();

    let subject = format!("bottle {} {} CA", spec.bottle, spec.role);
    assert!(subject.len() <= 64);
    assert_eq!(authority.subject(), subject);
    assert_eq!(certificate.subject().to_string(), format!("O=bottle, CN={subject}"));
    assert_eq!(certificate.issuer().as_raw(), certificate.subject().as_raw());

    let serial = certificate.raw_serial();
    assert!(serial.len() <= 17 && serial[0] < 0x80 && serial.iter().any(|byte| *byte != 0));

    let validity = certificate.validity();
    assert_eq!(validity.not_before.timestamp(), unix(authority.not_before()));
    assert_eq!(validity.not_after.timestamp(), unix(authority.not_after()));
    for date in [&validity.not_before, &validity.not_after] {
        let two_digits = (1950..2050).contains(&date.to_datetime().year());
        assert_eq!(date.is_utctime(), two_digits, "{date}");
    }

    // Exactly these extensions, each once.
    let extensions = certificate.extensions();
    assert_eq!(extensions.len(), 3);
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    // Bits 5 and 6: keyCertSign and cRLSign.
    assert_eq!(usage.value.flags, 0b110_0000);
    let identifier = extensions
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some((extension, identifier)),
            _ => None,
        })
        .unwrap();
    assert!(!identifier.0.critical);
    assert_eq!(identifier.1.0.len(), 20);

    let key = certificate.public_key();
    assert_eq!(key.algorithm.algorithm.to_id_string(), "1.2.840.10045.2.1");
    let curve = key.algorithm.parameters.as_ref().unwrap().as_oid().unwrap();
    assert_eq!(curve.to_id_string(), "1.2.840.10045.3.1.7");
    assert_eq!(certificate.signature_algorithm.algorithm.to_id_string(), "1.2.840.10045.4.3.2");
}

#[test]
fn a_certificate_has_the_expected_fields_and_extensions() {
    for role in CaRole::ALL {
        let spec = CaSpec::new("dev-x7k2q", *role, at(NOON));
        let authority = mint(&spec).unwrap();
        check(&authority, &spec);
        assert_eq!(authority.not_before(), at(NOON - BACKDATING));
        assert_eq!(authority.not_after(), at(NOON) + DEFAULT_LIFETIME);
    }
}

#[test]
fn all_forms_of_the_key_belong_to_the_certificate() {
    let authority = common::mint(CaRole::Egress);
    let sec1 = authority.key_sec1_pem().expose();
    assert!(sec1.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    assert!(sec1.ends_with("\n-----END EC PRIVATE KEY-----\n"));
    assert_eq!(sec1.matches("-----BEGIN").count(), 1);
    let pkcs8 = authority.key_pkcs8_pem().expose();
    assert!(pkcs8.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(authority.combined_pem().expose(), format!("{pkcs8}{}", authority.certificate_pem()));

    let from_sec1 = p256::SecretKey::from_pem(sec1).unwrap();
    let from_pkcs8 = p256::SecretKey::from_pem(pkcs8).unwrap();
    assert_eq!(from_sec1, from_pkcs8);
    assert_eq!(
        from_sec1.public_key().to_sec1_bytes().as_ref(),
        // The certificate holds the point uncompressed.
        p256::PublicKey::from_sec1_bytes(&parse(&authority).public_key().subject_public_key.data)
            .unwrap()
            .to_sec1_bytes()
            .as_ref()
    );

    // The curve is named inside the key, because pipelock accepts no separate block of parameters.
    let der = ::pem::parse(sec1).unwrap().into_contents();
    let prime256v1 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    assert!(der.windows(prime256v1.len()).any(|window| window == prime256v1));
}

#[test]
fn the_same_arguments_give_the_same_authority() {
    let spec = CaSpec::new("dev", CaRole::Pipelock, at(NOON));
    let [first, second] = [1, 1].map(|seed| CertificateAuthority::mint(&spec, &mut Seeded::new(seed)).unwrap());
    assert_eq!(first.certificate_der(), second.certificate_der());
    assert_eq!(first.key_sec1_pem().expose(), second.key_sec1_pem().expose());

    let other = CertificateAuthority::mint(&spec, &mut Seeded::new(2)).unwrap();
    assert_ne!(first.key_sec1_pem().expose(), other.key_sec1_pem().expose());
    assert_ne!(parse(&first).raw_serial(), parse(&other).raw_serial());
    assert_ne!(first.fingerprint(), other.fingerprint());
}

#[test]
fn two_authorities_from_system_randomness_differ() {
    let spec = CaSpec::new("dev", CaRole::Pipelock, at(NOON));
    let [first, second] = [(), ()].map(|()| CertificateAuthority::mint(&spec, &mut SystemRandom).unwrap());
    assert_ne!(first.key_sec1_pem().expose(), second.key_sec1_pem().expose());
    assert_ne!(parse(&first).raw_serial(), parse(&second).raw_serial());
}

#[test]
fn a_leaf_verifies_against_its_own_authority_only() {
    let pipelock = common::mint(CaRole::Pipelock);
    let egress = common::mint(CaRole::Egress);
    let leaf = common::leaf(&pipelock);
    let verify = |authority: &CertificateAuthority, when: SystemTime| {
        let root = CertificateDer::from(authority.certificate_der());
        let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
        let leaf = webpki::EndEntityCert::try_from(leaf.certificate.der()).unwrap();
        leaf.verify_is_valid_for_subject_name(&ServerName::try_from(HOST).unwrap()).unwrap();
        let since = when.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            &[],
            UnixTime::since_unix_epoch(since),
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .map(drop)
    };
    verify(&pipelock, SystemTime::now()).unwrap();
    assert!(matches!(verify(&egress, SystemTime::now()), Err(webpki::Error::UnknownIssuer)));
    let later = SystemTime::now() + Duration::from_secs(2 * 24 * 3600);
    assert!(matches!(verify(&pipelock, later), Err(webpki::Error::CertExpired { .. })));
}

#[test]
fn the_dates_reach_from_1950_to_9999() {
    let mint = |now: SystemTime, lifetime: Duration| {
        let spec = CaSpec::new("dev", CaRole::Pipelock, now).with_lifetime(lifetime);
        mint(&spec).inspect(|authority| check(authority, &spec))
    };
    let second = Duration::from_secs(1);
    let first = SystemTime::UNIX_EPOCH - Duration::from_secs(FROM_1950 - BACKDATING);
    mint(first, second).unwrap();
    mint(at(0), second).unwrap();
    mint(at(YEAR_2050 - 1), second).unwrap();
    mint(at(YEAR_2050 + BACKDATING), second).unwrap();
    assert_eq!(mint(at(END_OF_9999 - 5), 5 * second).unwrap().not_after(), at(END_OF_9999));

    for (now, lifetime, says) in [
        (first - Duration::from_nanos(1), second, "begin before 1950"),
        (first - Duration::from_secs(100_000 * 365 * 86400), second, "clock is outside"),
        (at(END_OF_9999 - 5), 6 * second, "end after the year 9999"),
        (at(END_OF_9999 + 1), second, "clock is outside"),
        (at(1 << 62), second, "clock is outside"),
        (at(NOON), Duration::from_secs(1 << 62), "end after the year 9999"),
        (at(NOON), Duration::MAX, "end after the year 9999"),
        (at(NOON), Duration::ZERO, "shorter than a second"),
        (at(NOON), Duration::from_millis(999), "shorter than a second"),
    ] {
        let error = mint(now, lifetime).unwrap_err();
        assert!(matches!(error, TlsError::Validity { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error} does not say {says}");
    }
}

#[test]
fn fractions_of_a_second_are_dropped() {
    let now = at(NOON) + Duration::from_millis(999);
    let spec = CaSpec::new("dev", CaRole::Pipelock, now).with_lifetime(Duration::from_millis(5999));
    let authority = mint(&spec).unwrap();
    check(&authority, &spec);
    assert_eq!(authority.not_before(), at(NOON - BACKDATING));
    assert_eq!(authority.not_after(), at(NOON + 5));
}

#[test]
fn a_name_that_does_not_fit_a_subject_is_refused() {
    for (bottle, says) in [
        ("", "is empty"),
        ("a".repeat(41).as_str(), "longer than 40"),
        ("two words", "visible ASCII"),
        ("a\nb", "visible ASCII"),
        ("naïve", "visible ASCII"),
        ("\0", "visible ASCII"),
    ] {
        let error = mint(&CaSpec::new(bottle, CaRole::Egress, at(NOON))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(says), "{text}");
        assert!(!text.contains(['\n', '\0']), "{text:?}");
    }
    let long = mint(&CaSpec::new("a".repeat(10_000), CaRole::Egress, at(NOON))).unwrap_err();
    assert!(long.to_string().len() < 200);
    mint(&CaSpec::new("a".repeat(40), CaRole::Pipelock, at(NOON))).unwrap();
}

/// A source that always returns the same byte.
struct Stuck(u8);

impl RandomSource for Stuck {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(self.0);
        Ok(())
    }
}

/// A source that returns prepared bytes.
struct Loaded(Vec<Vec<u8>>);

impl RandomSource for Loaded {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.0.is_empty() {
            return Err(io::Error::other("the well is dry"));
        }
        buffer.copy_from_slice(&self.0.remove(0));
        Ok(())
    }
}

#[test]
fn a_broken_source_of_randomness_is_an_error() {
    let spec = CaSpec::new("dev", CaRole::Pipelock, at(NOON));
    for byte in [0x00, 0xff] {
        // Zero, and a number past the order of the curve's group: neither is a key.
        let error = CertificateAuthority::mint(&spec, &mut Stuck(byte)).unwrap_err();
        assert!(matches!(error, TlsError::BadRandomness { what: "a private key", .. }), "{error}");
    }
    let error = CertificateAuthority::mint(&spec, &mut Loaded(vec![])).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "the well is dry");

    let zero_serial = Loaded([vec![7; 32]].into_iter().chain(vec![vec![0; 16]; 8]).collect());
    let error = CertificateAuthority::mint(&spec, &mut { zero_serial }).unwrap_err();
    assert!(matches!(error, TlsError::BadRandomness { what: "a serial number", .. }), "{error}");
}

#[test]
fn an_unusable_draw_is_repeated() {
    let spec = CaSpec::new("dev", CaRole::Pipelock, at(NOON));
    let mut lucky = Loaded(vec![vec![0; 32], vec![0xff; 32], vec![7; 32], vec![0; 16], vec![1; 16]]);
    let authority = CertificateAuthority::mint(&spec, &mut lucky).unwrap();
    check(&authority, &spec);
    assert_eq!(parse(&authority).raw_serial(), [1; 16]);
}

#[test]
fn a_serial_number_is_positive_and_minimal() {
    let spec = CaSpec::new("dev", CaRole::Pipelock, at(NOON));
    let mut leading_zeros = [0; 16];
    leading_zeros[14..].copy_from_slice(&[0x80, 0x01]);
    for (drawn, written) in [
        ([0xff; 16], [vec![0], vec![0xff; 16]].concat()),
        ([0x7f; 16], vec![0x7f; 16]),
        (leading_zeros, vec![0, 0x80, 0x01]),
    ] {
        let mut source = Loaded(vec![vec![7; 32], drawn.to_vec()]);
        let authority = CertificateAuthority::mint(&spec, &mut source).unwrap();
        check(&authority, &spec);
        assert_eq!(parse(&authority).raw_serial(), written);
    }
}

#[test]
fn neither_display_nor_debug_shows_the_key() {
    let authority = common::mint(CaRole::Egress);
    let shown = format!(
        "{authority:?} {authority:#?} {:?} {:?} {:?}",
        authority.key_sec1_pem(),
        authority.key_pkcs8_pem(),
        authority.combined_pem()
    );
    let secrets = [authority.key_sec1_pem(), authority.key_pkcs8_pem()];
    for line in secrets.iter().flat_map(|pem| pem.expose().lines()) {
        assert!(!shown.contains(line));
    }
    assert!(shown.contains("SecretPem(redacted)"));
    // The public key may be shown.
    assert!(shown.contains(&authority.fingerprint().to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_argument_gives_a_sound_certificate(
        bottle in "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        role in prop::sample::select(CaRole::ALL),
        now in prop_oneof![
            -631_065_600_i64..=253_402_300_798,
            2_524_600_000_i64..2_524_620_000,
            1_700_000_000_i64..2_000_000_000,
        ],
        lifetime in prop_oneof![1_u64..=30 * 86400, 1_u64..300_000_000_000],
        seed: u64,
    ) {
        let clock = match u64::try_from(now) {
            Ok(after) => at(after),
            Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(now.unsigned_abs()),
        };
        let spec = CaSpec::new(bottle, role, clock).with_lifetime(Duration::from_secs(lifetime));
        match CertificateAuthority::mint(&spec, &mut Seeded::new(seed)) {
            Ok(authority) => {
                check(&authority, &spec);
                prop_assert_eq!(unix(authority.not_before()), now - 86_400);
                prop_assert_eq!(unix(authority.not_after()), now + i64::try_from(lifetime).unwrap());
            }
            Err(error) => prop_assert!(
                now + i64::try_from(lifetime).unwrap() > i64::try_from(END_OF_9999).unwrap(),
                "{error}"
            ),
        }
    }

    #[test]
    fn no_argument_causes_a_panic(bottle: String, seconds: u64, before: bool, lifetime: Duration) {
        let clock = if before {
            SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(seconds))
        } else {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        if let Some(clock) = clock {
            let spec = CaSpec::new(bottle, CaRole::Egress, clock).with_lifetime(lifetime);
            if let Err(error) = mint(&spec) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
