use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyUsagePurpose, SerialNumber,
};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, macros::datetime};

use crate::{
    RandomSource, SecretPem, TlsError,
    key::{CaKey, draw},
};

/// Default lifetime of an authority: seven days. This is longer than any session of an agent and short enough for a
/// forgotten key not to matter.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Time before the given clock from which an authority is valid: one day. It covers an engine whose clock is behind the
/// launcher's, and a launcher's clock that is set back after the authority was minted.
const BACKDATING: time::Duration = time::Duration::DAY;

/// Range of dates that X.509 can encode (RFC 5280, section 4.1.2.5) and that all verifiers read the same way.
const EARLIEST: OffsetDateTime = datetime!(1950-01-01 00:00:00 UTC);
const LATEST: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// Maximum length of a bottle's name in a subject. A common name has room for 64 characters (RFC 5280, appendix A), and
/// the other words of the subject need some of them.
const BOTTLE_MAX: usize = 40;

/// The sidecar that an authority belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CaRole {
    /// The scanning proxy.
    Pipelock,
    /// The proxy that injects credentials.
    Egress,
}

impl CaRole {
    /// Every role.
    pub const ALL: &[Self] = &[Self::Pipelock, Self::Egress];

    /// Returns the name of the role, which is the name of its service.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipelock => "pipelock",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for CaRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The input for minting an authority, apart from randomness.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaSpec {
    /// Slug of the bottle, which the subject contains: 1 to 40 visible ASCII characters.
    pub bottle: String,
    /// Sidecar that holds the key.
    pub role: CaRole,
    /// Current time. The authority is valid from one day before it. Fractions of a second are dropped.
    pub now: SystemTime,
    /// Lifetime from `now`, in whole seconds, at least one. Default: [`DEFAULT_LIFETIME`].
    pub lifetime: Duration,
}

impl CaSpec {
    /// Returns the spec of an authority for `role` in `bottle`, with [`DEFAULT_LIFETIME`] from `now`.
    pub fn new(bottle: impl Into<String>, role: CaRole, now: SystemTime) -> Self {
        Self { bottle: bottle.into(), role, now, lifetime: DEFAULT_LIFETIME }
    }

    /// Sets the lifetime.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

/// A certificate authority: a self-signed certificate and its private key, ECDSA on P-256.
///
/// The certificate has `CA:TRUE, pathlen:0` and the key usages `keyCertSign` and `cRLSign`, both extensions critical.
/// With `pathlen:0` it can sign leaf certificates but no further authorities. It also has a subject key identifier,
/// from which leaves get the authority key identifier that strict verifiers require.
pub struct CertificateAuthority {
    subject: String,
    certificate_pem: String,
    certificate_der: Vec<u8>,
    sec1: SecretPem,
    pkcs8: SecretPem,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl CertificateAuthority {
    /// Mints an authority. The same `spec` and the same bytes from `random` give the same authority, to the byte.
    ///
    /// # Errors
    /// Returns an error when the bottle's name does not fit a subject, when a date falls outside the years 1950 to
    /// 9999, when the lifetime is shorter than a second, or when `random` fails or returns nothing usable.
    pub fn mint(spec: &CaSpec, random: &mut dyn RandomSource) -> Result<Self, TlsError> {
        let subject = common_name(&spec.bottle, spec.role)?;
        let (not_before, not_after) = validity(spec.now, spec.lifetime)?;
        let key = CaKey::draw(random)?;
        // All 128 bits are random. If the top bit is set, the encoder prepends a zero octet to keep the number
        // positive. That gives at most 17 octets; RFC 5280, section 4.1.2.2, allows 20. Zero is not a valid serial
        // number.
        let serial = draw(random, &mut [0; 16], "a serial number", |bytes| {
            bytes.iter().any(|byte| *byte != 0).then(|| SerialNumber::from_slice(bytes))
        })?;

        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "bottle");
        params.distinguished_name.push(DnType::CommonName, subject.as_str());
        params.serial_number = Some(serial);
        params.not_before = not_before;
        params.not_after = not_after;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // RFC 7093, section 2, method 1: the first 160 bits of the public key's SHA-256.
        params.key_identifier_method = KeyIdMethod::PreSpecified(Sha256::digest(key.public())[..20].to_vec());

        let certificate = params
            .self_signed(&key)
            .map_err(|error| TlsError::Encode { what: "the certificate", reason: error.to_string() })?;
        let certificate_der = certificate.der().to_vec();
        Ok(Self {
            subject,
            certificate_pem: crate::bundle::certificate_pem(&certificate_der),
            certificate_der,
            sec1: key.sec1_pem()?,
            pkcs8: key.pkcs8_pem()?,
            not_before: not_before.into(),
            not_after: not_after.into(),
        })
    }

    /// Returns the common name of the subject, such as `bottle dev-x7k2q pipelock CA`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the certificate as one `CERTIFICATE` block. A client that trusts the authority needs nothing else.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// Returns the key in SEC1 with a named curve, as one `EC PRIVATE KEY` block without preceding text. This is the
    /// only form that pipelock accepts.
    pub fn key_sec1_pem(&self) -> &SecretPem {
        &self.sec1
    }

    /// Returns the key in PKCS#8, as one `PRIVATE KEY` block. This is the form that most other programs accept.
    pub fn key_pkcs8_pem(&self) -> &SecretPem {
        &self.pkcs8
    }

    /// Returns the key in PKCS#8 followed by the certificate. This is the form that mitmproxy accepts.
    pub fn combined_pem(&self) -> SecretPem {
        self.pkcs8.followed_by(&self.certificate_pem)
    }

    /// Returns the SHA-256 of the certificate, by which a person can identify the authority.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.certificate_der).into())
    }

    /// Returns the start of the certificate's validity, in whole seconds.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Returns the end of the certificate's validity, in whole seconds.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Omits the private key.
impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("subject", &self.subject)
            .field("fingerprint", &format_args!("{}", self.fingerprint()))
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The SHA-256 of a certificate. Displays as `openssl x509 -fingerprint -sha256` shows it: `AB:CD:…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The digest itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

fn common_name(bottle: &str, role: CaRole) -> Result<String, TlsError> {
    let reason = if bottle.is_empty() {
        "is empty"
    } else if bottle.len() > BOTTLE_MAX {
        "is longer than 40 characters"
    } else if !bottle.bytes().all(|byte| byte.is_ascii_graphic()) {
        "holds something else than visible ASCII characters"
    } else {
        return Ok(format!("bottle {bottle} {role} CA"));
    };
    Err(TlsError::Bottle { bottle: bottle.chars().take(64).collect(), reason })
}

fn validity(now: SystemTime, lifetime: Duration) -> Result<(OffsetDateTime, OffsetDateTime), TlsError> {
    let out_of_range = |reason| TlsError::Validity { reason };
    if lifetime.as_secs() == 0 {
        return Err(out_of_range("the lifetime is shorter than a second"));
    }
    let now = unix_seconds(now)
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| out_of_range("the clock is outside the years 1950 to 9999"))?;
    let not_before = now
        .checked_sub(BACKDATING)
        .filter(|date| *date >= EARLIEST)
        .ok_or_else(|| out_of_range("they would begin before 1950"))?;
    let not_after = i64::try_from(lifetime.as_secs())
        .ok()
        .and_then(|seconds| now.checked_add(time::Duration::seconds(seconds)))
        .filter(|date| *date <= LATEST)
        .ok_or_else(|| out_of_range("they would end after the year 9999"))?;
    Ok((not_before, not_after))
}

/// Returns whole seconds since 1970, rounded down.
fn unix_seconds(time: SystemTime) -> Option<i64> {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok(),
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).ok()?;
            (-seconds).checked_sub(i64::from(before.subsec_nanos() > 0))
        }
    }
}
