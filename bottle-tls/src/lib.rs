//! Minting the certificate authorities of one bottle.
