//! Names and address ranges of the tests' networks.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;

use super::run::{docker, run};

/// Name of the outside host.
pub const OUTSIDE: &str = "outside.test";
/// A name of the outside host that no manifest allows.
pub const FORBIDDEN: &str = "forbidden.test";

/// Blocks of 16 addresses that this process uses.
static TAKEN: Mutex<BTreeSet<u8>> = Mutex::new(BTreeSet::new());

/// A block that no other test of this process and no network of the engine uses. It is freed when the value is dropped.
pub struct Subnet(u8);

impl Subnet {
    /// Takes a block.
    pub fn take() -> Self {
        let networks = docker(["network", "ls", "--quiet"]).stdout;
        // Another test may remove a network in between, so a failed inspect is ignored.
        let mut inspect = Command::new("docker");
        inspect.args(["network", "inspect"]).args(networks.split_whitespace());
        // Docker and Podman have different names for the same.
        let described = run(&mut inspect).stdout;
        let used: Vec<ipnet::Ipv4Net> = described.split('"').filter_map(|subnet| subnet.parse().ok()).collect();
        let overlaps = |net: ipnet::Ipv4Net| used.iter().any(|other| other.contains(&net) || net.contains(other));
        let mut taken = TAKEN.lock().unwrap();
        let free = blocks().find(|block| !taken.contains(block) && !overlaps(block_net(*block)));
        let block = free.expect("the tests that run at once need no more than 16 subnets");
        taken.insert(block);
        Self(block)
    }

    pub fn net(&self) -> ipnet::Ipv4Net {
        block_net(self.0)
    }
}

/// Returns all 16 blocks, or those of `BOTTLE_E2E_BLOCKS` (`first-last`), so that simultaneous runs on one engine do
/// not collide.
fn blocks() -> std::ops::RangeInclusive<u8> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test run")]
    let chosen = std::env::var("BOTTLE_E2E_BLOCKS").ok();
    let range = chosen.as_deref().and_then(|text| text.split_once('-'));
    range.and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?)).unwrap_or(0..=15)
}

fn block_net(block: u8) -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(198, 51, 100, block * 16), 28)
}

impl Drop for Subnet {
    fn drop(&mut self) {
        TAKEN.lock().unwrap().remove(&self.0);
    }
}
