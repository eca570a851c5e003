//! IPv4 networks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::name::{NameError, deserialize_parsed};

const KIND: &str = "an IPv4 network";

/// An IPv4 network in CIDR notation (RFC 4632), such as `10.99.0.0/28`.
///
/// ```
/// # use bottle_values::value::Subnet;
/// let subnet: Subnet = "10.99.0.16/28".parse()?;
/// assert_eq!((subnet.address().to_string().as_str(), subnet.prefix_len()), ("10.99.0.16", 28));
/// assert!(subnet.overlaps("10.99.0.0/24".parse()?) && !subnet.overlaps("10.99.0.0/28".parse()?));
/// # Ok::<(), bottle_values::name::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(Ipv4Net);

impl Subnet {
    /// Returns the network of this address. A prefix length above 32 counts as 32.
    pub(crate) fn of(address: Ipv4Addr, prefix_len: u8) -> Self {
        Self(Ipv4Net::new_assert(address, prefix_len.min(32)))
    }

    /// Description of what is accepted.
    pub const ACCEPTED: &'static str = "an IPv4 network such as `10.99.0.0/28`";

    /// Returns the first address of the network.
    pub fn address(self) -> Ipv4Addr {
        self.0.network()
    }

    /// Returns the addresses that hosts can have: all but the first and the last.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.hosts()
    }

    /// Returns the number of bits that all addresses of the network share: 0 to 32.
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns `true` if the text named an address other than the first, as `10.99.0.7/28` does.
    pub fn has_host_bits(self) -> bool {
        self.0.addr() != self.0.network()
    }

    /// Returns `true` if an address is in both networks.
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }
}

impl FromStr for Subnet {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let reason = "it is not four numbers with dots, `/` and a prefix length";
        text.parse().map(Self).map_err(|_| NameError::new(KIND, text, reason, Self::ACCEPTED))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_parsed(deserializer, KIND, Self::ACCEPTED)
    }
}

impl schemars::JsonSchema for Subnet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Subnet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // The prefix lengths are those that the networks of a bottle can have.
        schemars::json_schema!({
            "type": "string", "pattern": r"^[0-9.]+/(?:[89]|[12][0-9])$", "description": Self::ACCEPTED
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_an_address_and_a_prefix_length() {
        for (text, has_host_bits) in [("10.99.0.0/28", false), ("10.99.0.7/28", true), ("0.0.0.0/0", false)] {
            let subnet: Subnet = text.parse().unwrap();
            assert_eq!((subnet.to_string().as_str(), subnet.has_host_bits()), (text, has_host_bits));
        }
        for bad in ["", "10.99.0.0", "10.99.0.0/33", "10.99.0/28", "fd00::/64", "10.99.0.0/28 ", "a/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
