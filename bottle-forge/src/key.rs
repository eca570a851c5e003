//! An ssh key pair.

use std::fmt;
use std::io;

use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use zeroize::Zeroizing;

/// An ed25519 key for ssh.
pub struct KeyPair {
    private: Zeroizing<String>,
    public: String,
}

impl KeyPair {
    /// Generates a key. `fill` provides the random bytes of its seed.
    ///
    /// # Errors
    ///
    /// Returns an error when there is no randomness.
    pub fn generate(fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        fill(&mut *seed)?;
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let public = key.public_key().to_openssh().map_err(io::Error::other)?;
        Ok(Self { private, public: public.trim_end().to_owned() })
    }

    /// Returns the private key in OpenSSH's format.
    pub fn private(&self) -> &str {
        &self.private
    }

    /// Returns algorithm and key, as in `authorized_keys`, without a comment.
    pub fn public(&self) -> &str {
        &self.public
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_openssh_format_and_debug_shows_only_its_public_half() {
        let pair = KeyPair::generate(|seed| {
            seed.fill(7);
            Ok(())
        })
        .unwrap();
        let read: PrivateKey = pair.private().parse().unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap().trim_end(), pair.public());
        assert!(pair.private().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        let shown = format!("{pair:?}");
        assert!(shown.contains(pair.public()) && !shown.contains("PRIVATE"), "{shown}");
    }
}
