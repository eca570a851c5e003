//! The files of a bottle while it is launched. They are in memory only: nothing of a bottle is on the launcher's disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bottle_exec::quote_text;
use bottle_files::tar::Packer;
use bottle_kube_render::{COMPLETE, Content, File};
use bottle_lifecycle::Owner;
use bottle_plan::resolved::{
    AgentFacts, EgressFacts, EngineFacts, GitGateFacts, HostGateway, NetworkFacts, PipelockFacts, SuperviseFacts,
};
use bottle_plan::value::EntryName;
use bottle_plan::{BottlePlan, LaunchFacts, SecretValue, Service, StateRoot};
use bottle_sidecars::{egress, git_gate, pipelock};
use bottle_tls::{CaRole, CaSpec, CertificateAuthority, SystemRandom};

use crate::error::KubeError;
use crate::images::KubeImages;
use crate::inputs::KubeInputs;

/// Directory that stands for the state directory in the facts of a launch. No file of this host is there.
const ROOT: &str = "/bottle";

/// The files of a bottle, by their paths in the facts of the launch.
#[derive(Default)]
pub(crate) struct Material {
    files: BTreeMap<PathBuf, SecretValue>,
    /// The certificates (PEM) that the agent trusts.
    pub(crate) certificates: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("files", &self.files.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Material {
    fn add(&mut self, path: PathBuf, content: &str) -> PathBuf {
        self.files.insert(path.clone(), SecretValue::new(content));
        path
    }

    /// Makes the files of a bottle and returns them with the facts of its launch.
    pub(crate) fn make(
        plan: &BottlePlan,
        (inputs, keys): (&KubeInputs, &BTreeMap<EntryName, SecretValue>),
        images: &KubeImages,
        owner: &Owner,
    ) -> Result<(Self, LaunchFacts), KubeError> {
        let mut files = Self::default();
        let root = StateRoot::at(ROOT);
        let state = root.bottle(plan.names.slug());
        let dir = |service: Service| state.service_dir(service);
        let authority = |role| {
            let spec = CaSpec::new(plan.names.slug().as_str(), role, SystemTime::now());
            CertificateAuthority::mint(&spec.with_lifetime(plan.tls.lifetime.duration()), &mut SystemRandom)
        };
        let own = authority(CaRole::Pipelock)?;
        let pipelock = PipelockFacts {
            config: files.add(state.pipelock_config(), &pipelock::config(plan, None)),
            ca_cert: files.add(dir(Service::Pipelock).join("ca.pem"), own.certificate_pem()),
            ca_key: files.add(dir(Service::Pipelock).join("ca-key.pem"), own.key_sec1_pem().expose()),
        };
        own.certificate_pem().clone_into(&mut files.certificates);
        let mut egress = None;
        if plan.egress.is_some() {
            let own = authority(CaRole::Egress)?;
            own.certificate_pem().clone_into(&mut files.certificates);
            egress = Some(EgressFacts {
                image: images.built(Service::Egress)?,
                routes: files.add(state.egress_routes(), &egress::routes(plan)),
                ca_combined: files.add(dir(Service::Egress).join("ca-combined.pem"), own.combined_pem().expose()),
                ca_cert: files.add(dir(Service::Egress).join("ca.pem"), own.certificate_pem()),
            });
        }
        let upstream_ca = inputs.upstream_ca.as_ref().map(|certificates| {
            if plan.egress.is_none() {
                files.certificates.push_str(certificates);
            }
            files.add(dir(Service::Pipelock).join("upstream-ca.pem"), certificates)
        });
        let git_gate = files.git_gate(plan, (inputs, keys), images, &dir(Service::GitGate))?;
        let supervise = match &plan.supervise {
            Some(_) => Some(SuperviseFacts {
                image: images.built(Service::Supervise)?,
                queue: state.supervise_queue(),
                decisions: state.supervise_decisions(),
                current_config: state.current_config(),
            }),
            None => None,
        };
        let facts = LaunchFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            owner: owner.to_string(),
            state: "kubernetes".to_owned(),
            engine: EngineFacts {
                host_gateway: HostGateway::Isolated,
                start_interval: true,
                memory: None,
                processors: None,
                disk_quota: true,
            },
            networks: NetworkFacts {
                internal: plan.names.internal_network(),
                egress: plan.names.egress_network(),
                internal_cidr: None,
                internal_subnet: None,
                egress_subnet: None,
            },
            agent: AgentFacts {
                image: images.built(Service::Agent)?.reference,
                env_file: None,
                volumes: Vec::new(),
                workspace_mounts: Vec::new(),
            },
            pipelock,
            seal: images.built(Service::Seal)?,
            egress,
            git_gate,
            supervise,
            upstream_ca,
            stored: None,
            waits: false,
        };
        Ok((files, facts))
    }

    fn git_gate(
        &mut self,
        plan: &BottlePlan,
        (inputs, keys): (&KubeInputs, &BTreeMap<EntryName, SecretValue>),
        images: &KubeImages,
        dir: &Path,
    ) -> Result<Option<GitGateFacts>, KubeError> {
        let Some(gate) = &plan.git_gate else { return Ok(None) };
        for script in git_gate::SCRIPTS {
            self.add(dir.join(script.path), script.content);
        }
        let identities = gate.upstreams.iter().filter_map(|up| {
            let key = inputs.identities.get(&up.name).or_else(|| keys.get(&up.name))?;
            Some((up.name.clone(), self.add(dir.join(format!("{}-key", up.name)), key.expose())))
        });
        let identities = identities.collect();
        Ok(Some(GitGateFacts {
            image: images.built(Service::GitGate)?,
            scripts: dir.to_owned(),
            upstreams: self.add(dir.join("upstreams.json"), &git_gate::upstreams(gate)),
            known_hosts: self.add(dir.join("known_hosts"), &git_gate::known_hosts(gate)),
            identities,
        }))
    }

    /// Returns the content of a file.
    pub(crate) fn content<'a>(&'a self, file: &'a File, inputs: &'a KubeInputs) -> Result<&'a str, KubeError> {
        let content = match &file.content {
            Content::Text(text) => Some(text.as_str()),
            Content::Of(path) => self.files.get(path).map(SecretValue::expose),
            Content::Credential(slot) => {
                let slot = slot.parse().map_err(|error: bottle_plan::NameError| KubeError::input(error.to_string()))?;
                inputs.credentials.get(&slot).map(SecretValue::expose)
            }
        };
        content.ok_or_else(|| KubeError::input(format!("Pod `{}`: `{}` has no content", file.pod, file.target)))
    }

    /// Returns the files of a Pod as a tar stream, relative to the volume of its files.
    pub(crate) fn archive(&self, pod: &str, files: &[File], inputs: &KubeInputs) -> Result<Vec<u8>, KubeError> {
        let mut packer = Packer::new(Vec::new());
        let mut add = |name: &str, content: &str, mode| {
            packer.add_bytes(Path::new(name), content.as_bytes(), mode).map_err(|error| unpacked(pod, &error))
        };
        for file in files.iter().filter(|file| file.pod == pod) {
            let content = self.content(file, inputs)?;
            add(file.path(), content, file.mode)?;
        }
        if pod == Service::Agent.as_str() {
            let lines =
                inputs.forwarded.iter().map(|(name, value)| format!("export {name}={}\n", quote_text(value.expose())));
            add(crate::bottle::ENVIRONMENT.trim_start_matches('/'), &lines.collect::<String>(), 0o600)?;
        }
        // Last, so that everything before it is complete.
        add(COMPLETE, "", 0o644)?;
        packer.finish().map_err(|error| unpacked(pod, &error))
    }
}

fn unpacked(pod: &str, error: &io::Error) -> KubeError {
    KubeError::input(format!("the files of Pod `{pod}` cannot be packed: {error}"))
}
