//! Deploy keys for the upstreams that need one.

use bottle_plan::BottlePlan;
use bottle_plan::plan::{DeployKey, GitAuth, Upstream};

#[cfg(feature = "deploy-keys")]
use super::context::Launch;
use crate::launch_error::LaunchCause;

/// Returns the upstreams that need a deploy key.
pub(super) fn wanted(plan: &BottlePlan) -> impl Iterator<Item = (&Upstream, &DeployKey)> {
    plan.git_gate.iter().flat_map(|gate| &gate.upstreams).filter_map(|upstream| match &upstream.auth {
        GitAuth::DeployKey(key) => Some((upstream, key)),
        GitAuth::IdentityFile(_) | GitAuth::Token { .. } | GitAuth::Anonymous => None,
    })
}

/// Generates each key, writes it for git-gate, and registers its public half.
#[cfg(feature = "deploy-keys")]
pub(super) fn register(launch: &Launch<'_>) -> Result<(), LaunchCause> {
    use super::files::write;
    use crate::deploy_keys::{KeyPair, Registrar, Stopped};
    use bottle_tls::{RandomSource as _, SystemRandom};

    let registrar = Registrar {
        plan: &launch.plan,
        host: &launch.bottles.host,
        forges: &*launch.bottles.forges,
        journal: launch.guard.file(),
        observer: &*launch.bottles.observer,
    };
    for (upstream, key) in wanted(&launch.plan) {
        let path = bottle_sidecars::deploy_key(&launch.state, upstream);
        let pair = KeyPair::generate(|seed| SystemRandom.fill(seed))
            .map_err(|source| LaunchCause::Write { path: path.clone(), source })?;
        // The first entry of the journal removes this directory.
        write(&path, pair.private().as_bytes(), 0o600)?;
        registrar.register(upstream, key, &pair).map_err(|stopped| match stopped {
            Stopped::Journal(error) => LaunchCause::Journal(error),
            Stopped::Forge(error) => LaunchCause::DeployKey(error),
        })?;
    }
    Ok(())
}

/// Refuses a plan that needs a deploy key: this build cannot register one.
#[cfg(not(feature = "deploy-keys"))]
pub(super) fn refuse(plan: &BottlePlan) -> Result<(), LaunchCause> {
    wanted(plan).next().map_or(Ok(()), |(upstream, _)| {
        Err(LaunchCause::NoDeployKeys { upstream: upstream.name.to_string(), key: upstream.key.clone() })
    })
}
