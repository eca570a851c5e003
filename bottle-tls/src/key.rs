use std::fmt;

use p256::{
    SecretKey,
    ecdsa::{DerSignature, SigningKey, signature::Signer as _},
    elliptic_curve::sec1::ToSec1Point as _,
    pkcs8::{EncodePrivateKey as _, LineEnding},
};
use zeroize::Zeroizing;

use crate::{RandomSource, TlsError};

/// Maximum number of draws before the source is considered broken. A draw from a sound source fails with a probability
/// of 2^-32.
const ATTEMPTS: usize = 8;

/// PEM text that holds a private key: it cannot be displayed, debug-printed or serialized, and its memory is wiped when
/// it is dropped. [`expose`](Self::expose) is the one way to the text.
pub struct SecretPem(Zeroizing<String>);

impl SecretPem {
    /// Returns the text. Keep it off command lines and out of logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns this key followed by `certificate`, in one text.
    pub(crate) fn followed_by(&self, certificate: &str) -> Self {
        // Allocated at full size, because a string that grows leaves copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() + certificate.len()));
        text.push_str(&self.0);
        text.push_str(certificate);
        Self(text)
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPem(redacted)")
    }
}

/// A key pair on P-256 that rcgen can sign with.
///
/// It signs by RFC 6979, which derives the nonce from key and message. Signing needs no further randomness, and a weak
/// source cannot reveal the key through a signature.
pub(crate) struct CaKey {
    secret: SecretKey,
    public: Box<[u8]>,
}

impl CaKey {
    /// Draws candidates until one is in the curve's range, `1..n`.
    pub(crate) fn draw(random: &mut dyn RandomSource) -> Result<Self, TlsError> {
        let mut candidate = Zeroizing::new([0; 32]);
        let secret =
            draw(random, candidate.as_mut_slice(), "a private key", |bytes| SecretKey::from_slice(bytes).ok())?;
        let public = secret.public_key().to_sec1_point(false).to_bytes();
        Ok(Self { secret, public })
    }

    /// Returns the public key as an uncompressed point, as the certificate contains it.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Returns the key in SEC1 with a named curve, as one `EC PRIVATE KEY` block.
    pub(crate) fn sec1_pem(&self) -> Result<SecretPem, TlsError> {
        self.secret.to_sec1_pem(LineEnding::LF).map(SecretPem).map_err(encode_error)
    }

    /// Returns the key in PKCS#8, as one `PRIVATE KEY` block.
    pub(crate) fn pkcs8_pem(&self) -> Result<SecretPem, TlsError> {
        self.secret.to_pkcs8_pem(LineEnding::LF).map(SecretPem).map_err(encode_error)
    }
}

impl rcgen::PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature =
            SigningKey::from(&self.secret).try_sign(message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_bytes().to_vec())
    }
}

/// Fills `buffer` until `accept` returns a value, at most [`ATTEMPTS`] times.
pub(crate) fn draw<T>(
    random: &mut dyn RandomSource,
    buffer: &mut [u8],
    what: &'static str,
    mut accept: impl FnMut(&[u8]) -> Option<T>,
) -> Result<T, TlsError> {
    for _ in 0..ATTEMPTS {
        random.fill(buffer).map_err(|source| TlsError::Random { source })?;
        if let Some(value) = accept(buffer) {
            return Ok(value);
        }
    }
    Err(TlsError::BadRandomness { what, attempts: ATTEMPTS })
}

fn encode_error(reason: impl fmt::Display) -> TlsError {
    TlsError::Encode { what: "the private key", reason: reason.to_string() }
}
