//! The search for secrets.

/// Returns true if the bytes hold one of the secrets. Values of fewer than six characters are not searched for.
pub(crate) fn holds_secret(bytes: &[u8], secrets: &[&str]) -> bool {
    // A value of a few characters is found anywhere.
    const SHORTEST: usize = 6;
    let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    secrets.iter().any(|secret| secret.len() >= SHORTEST && holds(secret.as_bytes()))
}
