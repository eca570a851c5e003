//! The attacks as data.

use std::fmt;

use crate::{credentials, git, host, kernel, names, network, proxy, supervise, workspace};

/// Way out of the bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Network,
    Names,
    Proxy,
    Credentials,
    Git,
    Supervise,
    Kernel,
    Workspace,
    Host,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Names => "names",
            Self::Proxy => "proxy protocol",
            Self::Credentials => "credentials",
            Self::Git => "git",
            Self::Supervise => "supervise",
            Self::Kernel => "kernel and resources",
            Self::Workspace => "workspace",
            Self::Host => "host side",
        })
    }
}

/// Evidence that makes an attack count as successful. A record of its nonce and a secret in its output always do.
#[derive(Clone, Copy)]
pub(crate) enum Judge {
    /// Nothing else.
    Recorded,
    /// Also the attack's own claim.
    Claimed,
    /// Also an effect that the host sees.
    Effect(Effect),
}

/// Effect that the host looks for after an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A proposal that would mislead a person.
    Proposal,
    /// A changed setting of the host, or a limit that does not hold.
    Harm,
    /// A copy of `/tmp/out/<nonce>` that does more than lie in its directory.
    Copy,
    /// A line in a sidecar's log that it did not write.
    Log,
    /// A line of `/tmp/speak<nonce>` that counts as an event.
    Event,
}

/// Bottle that an attack runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Every sidecar.
    Full,
    /// Pipelock alone.
    Plain,
}

/// One attack: a row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    /// Program in Python; see `agent.py`.
    pub(crate) program: &'static str,
    pub(crate) judge: Judge,
    pub(crate) topology: Topology,
    /// True if root of the container runs it, otherwise the agent's user.
    pub(crate) is_root: bool,
    /// True if it concerns only gVisor's own kernel there, so that its own claim does not count.
    pub(crate) is_own_kernel: bool,
    /// True if it needs so much of the container that no other runs at the same time.
    pub(crate) is_alone: bool,
}

/// Returns an attack that succeeds if its nonce is recorded anywhere, or its output has a secret.
pub(crate) const fn recorded(group: Group, name: &'static str, program: &'static str) -> Attack {
    let (judge, topology) = (Judge::Recorded, Topology::Full);
    Attack { group, name, program, judge, topology, is_root: false, is_own_kernel: false, is_alone: false }
}

/// Returns an attack that succeeds if it says so.
pub(crate) const fn claimed(group: Group, name: &'static str, program: &'static str) -> Attack {
    recorded(group, name, program).claimed()
}

/// Returns an attack that succeeds if it says so, or the host sees an effect.
pub(crate) const fn effect(group: Group, name: &'static str, program: &'static str, effect: Effect) -> Attack {
    let mut attack = recorded(group, name, program);
    attack.judge = Judge::Effect(effect);
    attack
}

impl Attack {
    pub(crate) const fn claimed(mut self) -> Self {
        self.judge = Judge::Claimed;
        self
    }

    pub(crate) const fn as_root(mut self) -> Self {
        self.is_root = true;
        self
    }

    pub(crate) const fn in_plain(mut self) -> Self {
        self.topology = Topology::Plain;
        self
    }

    pub(crate) const fn own_kernel(mut self) -> Self {
        self.is_own_kernel = true;
        self
    }

    pub(crate) const fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }
}

/// Returns every attack, in the order of the table.
pub(crate) fn attacks() -> Vec<Attack> {
    [
        network::ATTACKS,
        names::ATTACKS,
        proxy::ATTACKS,
        credentials::ATTACKS,
        git::ATTACKS,
        supervise::ATTACKS,
        kernel::ATTACKS,
        workspace::ATTACKS,
        host::ATTACKS,
    ]
    .concat()
}
