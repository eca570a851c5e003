//! The pools from which new networks take their subnets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::name::NameError;
use crate::subnet::Subnet;

const KIND: &str = "a source of subnets";

/// The source of the subnets of new networks: pools of private addresses, or the engine's own choice.
///
/// An engine with its default settings has room for some 30 networks. A pool is divided into blocks as small as the network
/// needs. The default has three pools in ranges that engines, clusters and home routers leave alone. The later ones are used
/// when the first has no free block, for example because a VPN has all of it.
///
/// ```
/// # use bottle_values::value::Subnets;
/// let subnets: Subnets = "10.80.0.0/16,172.30.0.0/20".parse()?;
/// assert_eq!(subnets.blocks(28, 0).count(), 4096 + 256);
/// assert_eq!("engine".parse(), Ok(Subnets::Engine));
/// assert!("198.51.100.0/24".parse::<Subnets>().is_err(), "it is not private");
/// # Ok::<(), bottle_values::name::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subnets {
    /// The engine chooses.
    Engine,
    /// Blocks of these pools, the first pool first.
    Pools(Pools),
}

/// Pools of private addresses. [`Subnets`] parses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools(Vec<Subnet>);

/// The private ranges (RFC 1918, and RFC 6598 for networks behind a carrier). A proxy that guards against requests to
/// internal services treats their addresses as internal.
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

const DEFAULT: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 213, 0, 0), 16), (Ipv4Addr::new(172, 30, 240, 0), 20), (Ipv4Addr::new(192, 168, 240, 0), 20)];

impl Subnets {
    /// Description of what is accepted.
    pub const ACCEPTED: &'static str = "`engine`, or private networks such as `10.213.0.0/16`, with commas between them; a \
                                        network has a prefix length from 8 to 28";

    /// Returns every block with this prefix length, each once. `key` decides the order within a pool, so that launches with
    /// different keys start at different blocks. [`Engine`](Self::Engine) has no blocks.
    pub fn blocks(&self, prefix_len: u8, key: u64) -> impl Iterator<Item = Subnet> + '_ {
        let pools = match self {
            Self::Engine => &[],
            Self::Pools(pools) => pools.0.as_slice(),
        };
        pools.iter().filter(move |pool| pool.prefix_len() <= prefix_len).flat_map(move |pool| {
            let count = 1_u64 << (prefix_len - pool.prefix_len());
            // The count is a power of two and the step is odd, so that the steps reach every block.
            let (first, step) = (key % count, (key >> 32) | 1);
            (0..count).map(move |number| {
                let block = first.wrapping_add(number.wrapping_mul(step)) % count;
                let offset = u32::try_from(block << (32 - u32::from(prefix_len))).unwrap_or_default();
                Subnet::of(Ipv4Addr::from_bits(pool.address().to_bits() | offset), prefix_len)
            })
        })
    }

    /// Returns `true` if an address of the network is in one of the pools.
    pub fn overlaps(&self, net: Subnet) -> bool {
        matches!(self, Self::Pools(pools) if pools.0.iter().any(|pool| pool.overlaps(net)))
    }
}

impl Default for Subnets {
    fn default() -> Self {
        Self::Pools(Pools(DEFAULT.map(|(address, prefix_len)| Subnet::of(address, prefix_len)).to_vec()))
    }
}

impl FromStr for Subnets {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "engine" {
            return Ok(Self::Engine);
        }
        let mut pools: Vec<Subnet> = Vec::new();
        for part in text.split(',') {
            let refused = |reason: &str| NameError::new(KIND, part, reason, Self::ACCEPTED);
            let pool: Subnet = part.trim().parse()?;
            if !(8..=28).contains(&pool.prefix_len()) {
                return Err(refused("it is too large or too small"));
            }
            if pool.has_host_bits() {
                return Err(refused("its host bits are not zero"));
            }
            // Shorter than the private range's own, the prefix would cover other addresses too.
            let is_within = |&(address, length): &(Ipv4Addr, u8)| {
                pool.prefix_len() >= length && pool.overlaps(Subnet::of(address, length))
            };
            if !PRIVATE.iter().any(is_within) {
                return Err(refused("it is not private"));
            }
            if pools.iter().any(|other| other.overlaps(pool)) {
                return Err(refused("it overlaps one before it"));
            }
            pools.push(pool);
        }
        Ok(Self::Pools(Pools(pools)))
    }
}

impl fmt::Display for Subnets {
    /// Writes the form that is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Pools(pools) = self else { return f.write_str("engine") };
        for (index, pool) in pools.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            fmt::Display::fmt(pool, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_is_what_its_text_says() {
        let default = Subnets::default();
        assert_eq!(default.to_string(), "10.213.0.0/16,172.30.240.0/20,192.168.240.0/20");
        assert_eq!(default.to_string().parse(), Ok(default.clone()));
        let documentation: [Subnet; 3] =
            ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"].map(|net| net.parse().unwrap());
        assert!(default.blocks(28, 7).all(|block| documentation.iter().all(|net| !net.overlaps(block))));
    }

    #[test]
    fn what_is_no_private_pool_is_refused_with_a_reason() {
        let told = |text: &str| text.parse::<Subnets>().unwrap_err().to_string();
        for (text, reason) in [
            ("198.51.100.0/24", "`198.51.100.0/24` is not a source of subnets: it is not private"),
            ("203.0.113.0/28", "it is not private"),
            ("172.0.0.0/8", "it is not private"),
            ("10.0.0.0/7", "it is too large or too small"),
            ("10.0.0.0/29", "it is too large or too small"),
            ("10.0.0.1/24", "its host bits are not zero"),
            ("10.1.0.0/16,10.1.2.0/24", "`10.1.2.0/24` is not a source of subnets: it overlaps one before it"),
            ("", "is not an IPv4 network"),
            ("Engine", "is not an IPv4 network"),
        ] {
            assert!(told(text).contains(reason), "{text}: {}", told(text));
        }
        for good in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "10.9.9.0/28"] {
            assert_eq!(good.parse::<Subnets>().map(|subnets| subnets.to_string()).as_deref(), Ok(good));
        }
    }

    proptest! {
        #[test]
        fn every_block_is_given_once_whatever_the_key(key: u64, pool in 18_u8..=28, block in 24_u8..=29) {
            let pool: Subnet = format!("10.64.0.0/{pool}").parse().unwrap();
            let subnets: Subnets = format!("{pool},192.168.0.0/26").parse().unwrap();
            let blocks: Vec<Subnet> = subnets.blocks(block, key).collect();
            let of = |prefix_len: u8| if prefix_len <= block { 1_usize << (block - prefix_len) } else { 0 };
            prop_assert_eq!(blocks.len(), of(pool.prefix_len()) + of(26));
            let distinct: BTreeSet<Subnet> = blocks.iter().copied().collect();
            prop_assert_eq!(distinct.len(), blocks.len());
            for given in blocks {
                prop_assert!(given.prefix_len() == block && !given.has_host_bits());
                prop_assert!(given.overlaps(pool) || given.overlaps("192.168.0.0/26".parse().unwrap()));
            }
        }

        /// The engine is the arbiter: it refuses a block that is taken.
        #[test]
        fn two_launches_never_get_the_same_block_and_use_up_the_pool(one: u64, other: u64) {
            let subnets: Subnets = "10.64.0.0/24".parse().unwrap();
            let mut taken = BTreeSet::new();
            for turn in 0..16 {
                let key = if turn % 2 == 0 { one } else { other };
                let free = subnets.blocks(28, key).find(|block| !taken.contains(block));
                prop_assert!(free.is_some_and(|block| taken.insert(block)));
            }
            prop_assert!(subnets.blocks(28, one).all(|block| taken.contains(&block)));
        }
    }
}
