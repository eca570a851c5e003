//! The deploy keys of a bottle's git upstreams.

use std::collections::BTreeMap;
use std::sync::Arc;

use bottle_lifecycle::DeployKeys;
use bottle_plan::plan::{DeployKey, GitAuth, Upstream};
use bottle_plan::value::EntryName;
use bottle_plan::{BottlePlan, SecretValue};
use serde_json::Value;

use crate::client::Kubectl;
use crate::error::KubeError;

/// The registrar of deploy keys. `None`: a plan that needs one is refused.
pub(crate) type Keys = Option<Arc<dyn DeployKeys>>;

/// The keys of a launch.
#[derive(Default)]
pub(crate) struct Made {
    /// The private half of each, by its upstream.
    pub(crate) identities: BTreeMap<EntryName, SecretValue>,
    /// The entry of each, in the order of the upstreams.
    pub(crate) entries: Vec<Value>,
}

/// Returns the upstreams that need a deploy key.
fn wanted(plan: &BottlePlan) -> impl Iterator<Item = (&Upstream, &DeployKey)> {
    plan.git_gate.iter().flat_map(|gate| &gate.upstreams).filter_map(|upstream| match &upstream.auth {
        GitAuth::DeployKey(key) => Some((upstream, key)),
        GitAuth::IdentityFile(_) | GitAuth::Token { .. } | GitAuth::Anonymous => None,
    })
}

fn failed(upstream: &Upstream, problem: String) -> KubeError {
    KubeError::DeployKey { upstream: upstream.name.to_string(), key: upstream.key.clone(), problem }
}

/// Makes the keys that a plan needs. Nothing is registered yet.
pub(crate) fn make(keys: &Keys, plan: &BottlePlan) -> Result<Made, KubeError> {
    let mut made = Made::default();
    for (upstream, key) in wanted(plan) {
        let Some(keys) = keys else {
            let accepted = "accepted: `KubeBottles::with_deploy_keys`, `identity_file` or `token`";
            return Err(failed(upstream, format!("nothing registers deploy keys; {accepted}")));
        };
        let result = keys.make(&plan.names.project(), upstream, key);
        let (private, entry) = result.map_err(|problem| failed(upstream, problem))?;
        made.identities.insert(upstream.name.clone(), private);
        made.entries.push(entry);
    }
    Ok(made)
}

/// Registers keys whose entries are recorded, and adds to each the forge's number of it.
pub(crate) fn register(keys: &Keys, plan: &BottlePlan, entries: &mut [Value]) -> Result<(), KubeError> {
    let Some(keys) = keys else { return Ok(()) };
    for ((upstream, key), entry) in wanted(plan).zip(entries) {
        *entry = keys.register(key, entry).map_err(|problem| failed(upstream, problem))?;
    }
    Ok(())
}

/// Revokes the keys of a bottle, and removes its namespace and everything in it. While a key may exist, the namespace stays,
/// without the Pods.
pub(crate) fn remove(cluster: &Kubectl, namespace: &str, keys: &Keys, entries: &[Value]) -> Result<(), KubeError> {
    let cluster = cluster.clone().with_control(cluster.control().for_cleanup());
    let revoke = |entry: &Value| match keys {
        Some(keys) => keys.revoke(namespace, entry).err(),
        None => Some("a deploy key is registered; use `KubeBottles::with_deploy_keys` to revoke it".to_owned()),
    };
    let problems: Vec<String> = entries.iter().filter_map(revoke).collect();
    if problems.is_empty() {
        return cluster.delete(["namespace", namespace], true);
    }
    cluster.delete(["pods", "--all", "--namespace", namespace], true)?;
    Err(KubeError::NotRevoked { namespace: namespace.to_owned(), problems })
}
