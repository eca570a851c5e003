//! A fresh key for every upstream that asks for one.

use bottle_tls::SystemRandom;

use super::{Launch, LaunchCause, files};
use crate::deploy_keys::{self, KeyPair, Registrar, Stopped};

/// Makes each key, lays it down for git-gate, and registers its public half.
pub(super) fn register(launch: &Launch<'_>) -> Result<(), LaunchCause> {
    let registrar = Registrar {
        plan: &launch.plan,
        host: &launch.options.host,
        forges: &*launch.options.forges,
        journal: launch.guard.file(),
        observer: &*launch.options.observer,
    };
    for (upstream, key) in deploy_keys::wanted(&launch.plan) {
        let path = deploy_keys::private_key(&launch.state, upstream);
        let pair =
            KeyPair::generate(&mut SystemRandom).map_err(|source| LaunchCause::Write { path: path.clone(), source })?;
        // Its directory goes with the bottle, by what was recorded first of all.
        files::write(&path, pair.private().as_bytes(), 0o600)?;
        registrar.register(upstream, key, &pair).map_err(|stopped| match stopped {
            Stopped::Journal(error) => LaunchCause::Journal(error),
            Stopped::Forge(error) => LaunchCause::DeployKey(error),
        })?;
    }
    Ok(())
}
