//! What the tests share: a source of randomness that repeats itself, and the sidecar's part, which is to sign leaves.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::{io, time::SystemTime};

use bottle_tls::{CaRole, CaSpec, CertificateAuthority, RandomSource, SystemRandom};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use sha2::{Digest as _, Sha256};

/// The host that leaves are issued for.
pub(crate) const HOST: &str = "api.example.test";

/// Bytes that follow from a seed.
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

/// An authority as a launch mints it.
pub(crate) fn mint(role: CaRole) -> CertificateAuthority {
    let spec = CaSpec::new("dev-x7k2q", role, SystemTime::now());
    CertificateAuthority::mint(&spec, &mut SystemRandom).unwrap()
}

/// The certificate and the key that a sidecar makes up for a host.
pub(crate) struct Leaf {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

/// A leaf for [`HOST`] with what an intercepting proxy puts in it: a name, server authentication, and the authority's
/// key identifier.
pub(crate) fn leaf(authority: &CertificateAuthority) -> Leaf {
    issue(authority, IsCa::NoCa)
}

/// The same, but for an authority below the authority.
pub(crate) fn intermediate(authority: &CertificateAuthority) -> Leaf {
    issue(authority, IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
}

/// Signs with any key, whatever the certificate allows it to sign.
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
    // A name of its own for each, or the leaf would seem to have issued itself.
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
