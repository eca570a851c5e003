//! Shared test support: a repeatable source of randomness, and leaf certificates as a sidecar signs them.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::{io, time::SystemTime};

use bottle_tls::{CaRole, CaSpec, CertificateAuthority, RandomSource, SystemRandom};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use sha2::{Digest as _, Sha256};

/// The host that leaves are issued for.
pub(crate) const HOST: &str = "api.example.test";

/// A source of bytes that depend only on a seed.
pub(crate) struct Seeded {
    seed: u64,
    count: u64,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }
}

impl RandomSource for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for chunk in buffer.chunks_mut(32) {
            self.count += 1;
            let mut digest = Sha256::new();
            digest.update(self.seed.to_be_bytes());
            digest.update(self.count.to_be_bytes());
            chunk.copy_from_slice(&digest.finalize()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Mints an authority as a launch does.
pub(crate) fn mint(role: CaRole) -> CertificateAuthority {
    let spec = CaSpec::new("dev-x7k2q", role, SystemTime::now());
    CertificateAuthority::mint(&spec, &mut SystemRandom).unwrap()
}

/// Certificate and key of a host, as a sidecar creates them.
pub(crate) struct Leaf {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

/// Issues a leaf for [`HOST`] as an intercepting proxy does: with a name, server authentication, and the authority's
/// key identifier.
pub(crate) fn leaf(authority: &CertificateAuthority) -> Leaf {
    issue(authority, IsCa::NoCa)
}

/// Issues an intermediate authority below the authority.
pub(crate) fn intermediate(authority: &CertificateAuthority) -> Leaf {
    issue(authority, IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
}

/// Issues a leaf below an intermediate, whether or not that is allowed.
pub(crate) fn issue_below(parent: &Leaf) -> Leaf {
    let key = KeyPair::from_pem(&parent.key.serialize_pem()).unwrap();
    sign(&Issuer::from_ca_cert_der(parent.certificate.der(), key).unwrap(), IsCa::NoCa)
}

fn issue(authority: &CertificateAuthority, is_ca: IsCa) -> Leaf {
    let key = KeyPair::from_pem(authority.key_pkcs8_pem().expose()).unwrap();
    let der = authority.certificate_der().into();
    sign(&Issuer::from_ca_cert_der(&der, key).unwrap(), is_ca)
}

fn sign(issuer: &Issuer<'_, KeyPair>, is_ca: IsCa) -> Leaf {
    let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
    // Distinct names. With equal ones, the leaf would look self-issued.
    let name = if is_ca == IsCa::NoCa { HOST } else { "below" };
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = SystemTime::now().into();
    params.not_after = params.not_before + time::Duration::hours(24);
    params.key_usages = vec![match is_ca {
        IsCa::Ca(_) => KeyUsagePurpose::KeyCertSign,
        _ => KeyUsagePurpose::DigitalSignature,
    }];
    if is_ca == IsCa::NoCa {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }
    params.is_ca = is_ca;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Leaf { certificate, key }
}
