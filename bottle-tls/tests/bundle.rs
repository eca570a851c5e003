//! Inputs that a trust bundle accepts and refuses.
#![expect(clippy::unwrap_used, reason = "a helper of the tests fails by panicking")]

use bottle_tls::{BundleInput, CaRole, TlsError, extra_roots, trust_bundle};
use proptest::prelude::*;

mod common;

fn labels(bundle: &str) -> Vec<&str> {
    bundle.lines().filter(|line| line.starts_with("-----BEGIN")).collect()
}

#[test]
fn the_roots_come_first_and_duplicates_are_removed() {
    let [first, second] = [CaRole::Egress, CaRole::Egress].map(common::mint);
    let authority = common::mint(CaRole::Pipelock);
    let [a, b, c] = [first.certificate_pem(), second.certificate_pem(), authority.certificate_pem()];

    let expected = format!("{a}{b}{c}");
    let plain = trust_bundle(&format!("{a}{b}"), c).unwrap();
    assert_eq!(plain, expected);
    // Duplicates, comments, CRLF and a missing last line end give the same bundle. So does the bundle itself.
    let untidy = format!("# roots\n\n{b}").replace('\n', "\r\n");
    assert_eq!(trust_bundle(&format!("{a}{a}{untidy}"), c.trim_end()).unwrap(), expected);
    assert_eq!(trust_bundle(&expected, c).unwrap(), expected);
    for blank in ["", "\n", " \t\r\n"] {
        assert_eq!(trust_bundle(blank, c).unwrap(), c);
    }
}

#[test]
fn the_system_s_own_roots_are_accepted() {
    let Ok(roots) = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt") else {
        println!("skipped: no roots are installed here");
        return;
    };
    let authority = common::mint(CaRole::Pipelock);
    let bundle = trust_bundle(&roots, authority.certificate_pem()).unwrap();
    assert_eq!(labels(&bundle).len(), labels(&roots).len() + 1);
}

#[test]
fn a_bundle_with_a_private_key_is_refused() {
    let authority = common::mint(CaRole::Pipelock);
    let certificate = authority.certificate_pem();
    let combined = authority.combined_pem();
    let sec1 = format!("{certificate}{}", authority.key_sec1_pem().expose());
    let hidden = authority.key_sec1_pem().expose().replace("EC PRIVATE KEY", "CERTIFICATE");
    for text in [combined.expose(), &sec1, &hidden] {
        for result in [trust_bundle(text, certificate), trust_bundle("", text)] {
            let error = format!("{0} {0:?}", result.unwrap_err());
            for pem in [authority.key_sec1_pem(), authority.key_pkcs8_pem()] {
                assert!(pem.expose().lines().all(|line| { line.starts_with("-----") || !error.contains(line) }));
            }
        }
    }
}

#[test]
fn a_malformed_bundle_is_refused_with_its_line() {
    let authority = common::mint(CaRole::Pipelock);
    let pem = authority.certificate_pem();
    let lines = pem.lines().count();
    let body = pem.lines().nth(1).unwrap();
    let key = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    for (roots, at, says) in [
        ("no such file".to_owned(), 1, "no certificate"),
        (format!("{pem}{key}"), lines + 1, "`EC PRIVATE KEY` and not a certificate"),
        (format!("\n-----BEGIN {body}-----\n"), 2, "of an unknown kind"),
        (pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), 1, "`TRUSTED CERTIFICATE`"),
        (pem.lines().take(3).collect::<Vec<_>>().join("\n"), 1, "never ends"),
        (format!("-----BEGIN CERTIFICATE-----\n{pem}"), 2, "inside another"),
        (format!("{pem}-----END CERTIFICATE-----\n"), lines + 1, "never began"),
        (pem.replacen(body, "!!!!", 1), lines, "not well-formed"),
        (pem.replacen(body, "", 1), lines, "does not hold a certificate"),
        (pem.replacen("-----END CERTIFICATE", "-----END X", 1), lines, "not well-formed"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(), 2, "does not hold"),
        (
            // The three fields of a certificate, and a fourth.
            "-----BEGIN CERTIFICATE-----\nMAkwADAAAwEABQA=\n-----END CERTIFICATE-----\n".into(),
            3,
            "does not hold",
        ),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".into(), 3, "does not hold"),
    ] {
        let error = trust_bundle(&roots, pem).unwrap_err();
        let TlsError::Bundle { input: BundleInput::SystemRoots, line, problem } = &error else {
            panic!("{error:?}");
        };
        assert!(problem.contains(says), "{problem} does not say {says}");
        assert_eq!(*line, at, "{problem}");
    }
}

#[test]
fn the_authority_must_be_one_certificate() {
    let authority = common::mint(CaRole::Pipelock);
    let other = common::mint(CaRole::Pipelock);
    let two = format!("{}{}", authority.certificate_pem(), other.certificate_pem());
    for (text, count) in [("", 0), ("# nothing", 0), (two.as_str(), 2)] {
        let error = trust_bundle("", text).unwrap_err();
        assert!(matches!(error, TlsError::Bundle { input: BundleInput::Authority, .. }));
        assert!(error.to_string().contains(&format!("{count} certificates")), "{error}");
    }
}

#[test]
fn extra_roots_can_be_any_number_of_certificates() {
    let minted: Vec<_> = (0..3).map(|_| common::mint(CaRole::Egress)).collect();
    let [a, b, c] = [0, 1, 2].map(|index: usize| minted[index].certificate_pem());
    let expected = format!("{a}{b}{c}");
    assert_eq!(extra_roots(a).unwrap(), a);
    assert_eq!(extra_roots(&expected).unwrap(), expected);
    // As Windows and company tools write it: a byte order mark, CRLF, comments, one certificate twice, no last line
    // end.
    let untidy = format!("\u{feff}# Issuer: Example Root\n{a}\n# Issuer: Two\n{b}\ts:CN = three\n{a}{}", c.trim_end());
    assert_eq!(extra_roots(&untidy.replace('\n', "\r\n")).unwrap(), expected);
    let many: String = (0..60).map(|_| common::mint(CaRole::Egress).certificate_pem().to_owned()).collect();
    assert_eq!(labels(&extra_roots(&many).unwrap()).len(), 60);
}

#[test]
fn extra_roots_without_a_certificate_or_with_a_key_are_refused_by_number_and_line() {
    let authority = common::mint(CaRole::Pipelock);
    let pem = authority.certificate_pem();
    let lines = pem.lines().count();
    let body = pem.lines().nth(1).unwrap();
    let key = authority.key_sec1_pem();
    let bad = pem.replacen(body, "!!!!", 1);
    for (text, at, says) in [
        (String::new(), 1, "there is no certificate; accepted"),
        ("# nothing\r\n".into(), 1, "there is no certificate; accepted"),
        (format!("{pem}{}", key.expose()), lines + 1, "a block is `EC PRIVATE KEY` and not a certificate"),
        (format!("{}{pem}", key.expose()), 1, "a block is `EC PRIVATE KEY` and not a certificate"),
        (format!("{pem}{pem}{bad}"), 3 * lines, "certificate 3: the block that ends here is not well-formed"),
        (format!("{pem}{}", &pem[..60]), lines + 1, "certificate 2: the block that begins here never ends"),
    ] {
        let error = extra_roots(&text).unwrap_err();
        let TlsError::Bundle { input: BundleInput::ExtraRoots, line, problem } = &error else { panic!("{error:?}") };
        assert!(problem.contains(says) && *line == at, "line {line}: {problem}");
        assert!(key.expose().lines().all(|line| line.starts_with("-----") || !error.to_string().contains(line)));
    }
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "(-----(BEGIN|END) (CERTIFICATE|KEY)-----\n|[A-Za-z0-9+/=]{0,8}\n|.|\n){0,12}") {
        let _ = trust_bundle(&text, &text).map_err(|error| error.to_string());
        let _ = extra_roots(&text).map_err(|error| error.to_string());
    }
}
