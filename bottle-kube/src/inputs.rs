//! Inputs of a launch from its host: values of variables, keys and certificates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bottle_plan::plan::GitAuth;
use bottle_plan::value::EntryName;
use bottle_plan::{BottlePlan, SecretValue, Secrets};

use crate::error::KubeError;

/// The inputs of a launch from its host.
#[derive(Debug, Default)]
pub struct KubeInputs {
    /// The value of each credential, by its slot.
    pub credentials: Secrets,
    /// The value of each variable of the agent, by its name.
    pub forwarded: Secrets,
    /// The private key of each git upstream that has one.
    pub identities: BTreeMap<EntryName, SecretValue>,
    /// Certificates of additional authorities (PEM). `None` if the plan has none.
    pub upstream_ca: Option<String>,
}

impl KubeInputs {
    /// Reads what a plan needs. `variable` returns the value of a variable of the host.
    ///
    /// # Errors
    ///
    /// Returns an error if a variable is not set, a file cannot be read, or the plan needs what a cluster does not have.
    pub fn read(plan: &BottlePlan, variable: impl Fn(&str) -> Option<String>) -> Result<Self, KubeError> {
        let mut inputs = Self::default();
        if plan.agent.env_file.is_some() {
            let key = plan.bottle_key("env_file");
            return Err(KubeError::input(format!(
                "{key}: a bottle on a cluster reads no environment file; accepted: `env`"
            )));
        }
        if plan.limits.idle.is_some() {
            let key = plan.bottle_key("limits.idle");
            return Err(KubeError::input(format!("{key}: a cluster pauses no container; accepted: `limits.time`")));
        }
        for wanted in plan.wanted_variables() {
            let problem = || {
                KubeError::input(format!(
                    "{}: the variable `{}` is not set; {}",
                    wanted.key, wanted.source, wanted.purpose
                ))
            };
            let value = SecretValue::new(variable(wanted.source.as_str()).ok_or_else(problem)?);
            let values = if wanted.is_credential { &mut inputs.credentials } else { &mut inputs.forwarded };
            values.insert(wanted.name.clone(), value);
        }
        for (name, dummy) in &plan.agent.placeholders {
            inputs.forwarded.insert(name.clone(), SecretValue::new(dummy));
        }
        for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
            match &upstream.auth {
                GitAuth::IdentityFile(path) => {
                    let key = SecretValue::new(text(&format!("{}.identity_file", upstream.key), path)?);
                    inputs.identities.insert(upstream.name.clone(), key);
                }
                GitAuth::DeployKey(_) | GitAuth::Token { .. } | GitAuth::Anonymous => {}
            }
        }
        if let Some(path) = &plan.tls.upstream_ca {
            let roots = bottle_tls::extra_roots(&text(&plan.bottle_key("tls.upstream_ca"), path)?)?;
            inputs.upstream_ca = Some(roots);
        }
        Ok(inputs)
    }
}

fn text(key: &str, path: &Path) -> Result<String, KubeError> {
    fs::read_to_string(path)
        .map_err(|error| KubeError::input(format!("{key}: `{}` cannot be read: {error}", path.display())))
}
