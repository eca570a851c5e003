//! A bottle as a directory for `kubectl apply -k`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bottle_compose::{Sidecar, to_plain_yaml};
use bottle_kube_render::{Delivery, render, to_yaml};
use bottle_lifecycle::Owner;
use bottle_plan::value::Subnet;
use bottle_plan::{BottlePlan, SecretValue, Service};
use serde::Serialize;

use crate::error::KubeError;
use crate::keys;
use crate::launch::as_user;
use crate::material::Material;
use crate::{KubeBottles, KubeInputs};

/// A file of a directory for `kubectl apply -k`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryFile {
    /// The content.
    pub content: SecretValue,
    /// `true` for a key or the value of a credential, which belongs in no repository.
    pub is_secret: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kustomization {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    resources: [&'static str; 1],
    generator_options: GeneratorOptions,
    config_map_generator: Vec<Generator>,
    secret_generator: Vec<Generator>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GeneratorOptions {
    /// The Pods name the objects as they are.
    disable_name_suffix_hash: bool,
}

#[derive(Serialize)]
struct Generator {
    name: String,
    files: Vec<String>,
}

impl KubeBottles {
    /// Returns a bottle as the files of a directory for `kubectl apply -k`, by their paths. Nothing is applied.
    ///
    /// The material that a launch hands over is in `ConfigMaps` and Secrets here, which the API server stores. The agent is not
    /// provisioned, its workspace is empty, and nobody attacks the bottle before it is used; the gates still wait for the
    /// policies. The Services get the first addresses of `addresses`, which must belong to the cluster's range and be free.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan cannot run on a cluster, or the range has too few addresses.
    pub fn directory(
        &self,
        plan: BottlePlan,
        inputs: &KubeInputs,
        addresses: Subnet,
    ) -> Result<BTreeMap<String, DirectoryFile>, KubeError> {
        let mut plan = as_user(plan);
        let images = self.images.provide(&plan)?;
        images.name_in(&mut plan);
        let keys = keys::make(&None, &plan)?.identities;
        let owner = Owner::of_process(std::process::id());
        let (material, facts) = Material::make(&plan, (inputs, &keys), &images, &owner)?;
        let resolved = plan.resolve(facts)?;
        let sidecars: Vec<&dyn Sidecar> = self.sidecars.iter().map(|sidecar| &**sidecar).collect();
        let manifests = render(&resolved, &sidecars, &self.options, Delivery::Objects)?;
        let size = 1_u32.checked_shl(32 - u32::from(addresses.prefix_len())).unwrap_or(u32::MAX);
        // The first and the last address of a range belong to no host.
        let mut free =
            (1..size.saturating_sub(1)).map(|number| Ipv4Addr::from(u32::from(addresses.address()) + number));
        let mut fixed: BTreeMap<String, IpAddr> = BTreeMap::new();
        for service in manifests.services() {
            let problem =
                || KubeError::input(format!("the range {addresses} has too few addresses for the bottle's Services"));
            fixed.insert(service.to_owned(), free.next().ok_or_else(problem)?.into());
        }
        let mut files = BTreeMap::new();
        let mut generators: [BTreeMap<String, Vec<String>>; 2] = Default::default();
        let mut add = |object: String, key: &str, content: SecretValue, is_secret: bool| {
            let path = format!("{}/{object}/{key}", if is_secret { "secrets" } else { "files" });
            generators[usize::from(is_secret)].entry(object).or_default().push(format!("{key}={path}"));
            files.insert(path, DirectoryFile { content, is_secret });
        };
        for file in manifests.files() {
            add(file.object(), &file.key(), SecretValue::new(material.content(file, inputs)?), file.is_secret);
        }
        for (name, value) in inputs.forwarded.iter() {
            add(format!("{}-env", Service::Agent), name.as_str(), value.clone(), true);
        }
        let [config_map_generator, secret_generator] =
            generators.map(|all| all.into_iter().map(|(name, files)| Generator { name, files }).collect());
        let kustomization = Kustomization {
            api_version: "kustomize.config.k8s.io/v1beta1",
            kind: "Kustomization",
            namespace: manifests.namespace().to_owned(),
            resources: ["objects.yaml"],
            generator_options: GeneratorOptions { disable_name_suffix_hash: true },
            config_map_generator,
            secret_generator,
        };
        let visible = |text: String| DirectoryFile { content: SecretValue::new(text), is_secret: false };
        files.insert("kustomization.yaml".into(), visible(to_plain_yaml(&kustomization, &[])));
        files.insert("objects.yaml".into(), visible(to_yaml(&manifests.with_addresses(&fixed)?)));
        files.insert(".gitignore".into(), visible("/secrets/\n".into()));
        Ok(files)
    }
}
