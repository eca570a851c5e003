//! The launch: from a plan to a running bottle.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bottle_compose::{Sidecar, agent_argv};
use bottle_exec::{Event, Observer, Stdin, chain, step};
use bottle_kube_render::{Delivery, FILES, GATE, KubeOptions, MAIN, Manifests, RECEIVER, VERIFY, render};
use bottle_lifecycle::{DeployKeys, Owner};
use bottle_plan::manifest::WorkspaceMode;
use bottle_plan::{BottlePlan, Prefix, ResolvedPlan, Service, Slug, UserIds};
use bottle_provision::unprivileged;
use bottle_workspace::{WorkError, WorkLimits, pack};
use serde_json::{Value, json};

use crate::Ownership;
use crate::attacks::{Attacks, Surroundings};
use crate::bottle::{Journal, KubeBottle};
use crate::client::{Kubectl, Target};
use crate::error::KubeError;
use crate::images::ImageSource;
use crate::inputs::KubeInputs;
use crate::keys::{self, Keys};
use crate::lease::{self, Renewal};
use crate::material::Material;
use crate::pods::PodState;
use crate::supervise::KubeSupervisor;

/// Annotation, below the prefix, with the journal.
const JOURNAL: &str = "journal";

/// Time that one hand-over may take.
const HAND_OVER: Duration = Duration::from_secs(60);

/// Bottles on a cluster.
///
/// ```no_run
/// use std::sync::Arc;
/// use bottle_exec::Subprocess;
/// use bottle_kube::{KubeBottles, KubeInputs, Kubectl, ReadyImages};
/// # fn plan() -> bottle_plan::BottlePlan { unimplemented!() }
/// let cluster = Kubectl::new(Arc::new(Subprocess::new(std::env::vars_os())));
/// let bottles = KubeBottles::new(cluster, Arc::new(ReadyImages));
/// let plan = plan();
/// let inputs = KubeInputs::read(&plan, |name| std::env::var(name).ok())?;
/// let bottle = bottles.launch(plan, &inputs)?;
/// print!("{}", bottle.exec(["git", "status"])?.stdout_text());
/// for review in bottle.supervise()?.pending()? {
///     println!("{review}");
/// }
/// bottle.close()?;
/// # Ok::<(), bottle_kube::KubeError>(())
/// ```
#[derive(Clone)]
pub struct KubeBottles {
    cluster: Kubectl,
    prefix: Prefix,
    pub(crate) options: KubeOptions,
    pub(crate) images: Arc<dyn ImageSource>,
    pub(crate) sidecars: Vec<Arc<dyn Sidecar>>,
    observer: Arc<dyn Observer>,
    limit: Duration,
    is_verified: bool,
    keys: Keys,
}

impl std::fmt::Debug for KubeBottles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeBottles")
            .field("cluster", &self.cluster)
            .field("options", &self.options)
            .field("images", &self.images)
            .field("sidecars", &self.sidecars)
            .finish_non_exhaustive()
    }
}

/// A bottle on a cluster, as its namespace says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeSummary {
    /// The namespace.
    pub namespace: String,
    /// The slug.
    pub slug: Slug,
    /// The facts that another process needs to use the bottle. `None` if the annotation cannot be read.
    pub journal: Option<Journal>,
    /// State of its owner.
    pub ownership: Ownership,
    /// `true` if the namespace is being removed.
    pub is_ending: bool,
}

impl KubeBottles {
    /// Returns bottles on a cluster, with the built-in sidecars.
    pub fn new(cluster: Kubectl, images: Arc<dyn ImageSource>) -> Self {
        Self {
            cluster,
            prefix: Prefix::default(),
            options: KubeOptions::default(),
            images,
            sidecars: bottle_sidecars::all().into(),
            observer: Arc::new(|_: &Event| ()),
            limit: Duration::from_secs(300),
            is_verified: true,
            keys: None,
        }
    }

    /// Sets the prefix of the namespaces that [`list`](Self::list), [`attach`](Self::attach) and [`recover`](Self::recover)
    /// find. A launch takes the prefix of its plan. Default: `claude-bottle`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Sets the source of the images.
    #[must_use]
    pub fn with_images(mut self, images: Arc<dyn ImageSource>) -> Self {
        self.images = images;
        self
    }

    /// Sets the settings of the cluster.
    #[must_use]
    pub fn with_options(mut self, options: KubeOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a sidecar.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: Arc<dyn Sidecar>) -> Self {
        self.sidecars.push(sidecar);
        self
    }

    /// Sets the registrar of the deploy keys of git upstreams, such as `bottle::deploy_keys::ForgeKeys`. Default: none,
    /// and a plan that needs one is refused.
    #[must_use]
    pub fn with_deploy_keys(mut self, keys: Arc<dyn DeployKeys>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Sets the observer of the launch's steps. Default: none.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the time in which all Pods have to become ready, pulls of images included. Default: 5 minutes.
    #[must_use]
    pub const fn with_time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves out the attacks before the bottle is handed out. The gates still wait for the policies.
    #[must_use]
    pub const fn without_verification(mut self) -> Self {
        self.is_verified = false;
        self
    }

    /// Launches a bottle. A failure removes everything that was created.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan cannot run on a cluster, the bottle exists, a Pod does not start, or a protection is
    /// missing.
    pub fn launch(&self, plan: BottlePlan, inputs: &KubeInputs) -> Result<KubeBottle, KubeError> {
        let mut plan = as_user(plan);
        let owner = Owner::of_process(std::process::id());
        let images = step(&*self.observer, "provide the images", || self.images.provide(&plan))?;
        images.name_in(&mut plan);
        let made = keys::make(&self.keys, &plan)?;
        let (material, facts) = Material::make(&plan, (inputs, &made.identities), &images, &owner)?;
        let resolved = plan.resolve(facts)?;
        let sidecars: Vec<&dyn Sidecar> = self.sidecars.iter().map(|sidecar| &**sidecar).collect();
        let manifests = render(&resolved, &sidecars, &self.options, Delivery::HandOver)?;
        let keys = &made.entries;
        let launch =
            Launch { bottles: self, plan: &resolved, manifests: &manifests, material: &material, inputs, keys };
        step(&*self.observer, "create the namespace", || launch.take(&owner))?;
        let renewal = Renewal::start(self.cluster.clone(), manifests.namespace().to_owned());
        let mut bottle = KubeBottle {
            cluster: self.cluster.clone(),
            namespace: manifests.namespace().to_owned(),
            journal: launch.journal(),
            renewal: Some(renewal),
            is_removed_on_drop: true,
            keys: self.keys.clone(),
            packed: None,
            limits: WorkLimits::default(),
        };
        match launch.run(&mut bottle) {
            Ok(()) => Ok(bottle),
            Err(error) => {
                bottle.is_removed_on_drop = false;
                bottle.renewal = None;
                if let Err(left) = bottle.remove() {
                    tracing::warn!(
                        namespace = bottle.namespace,
                        error = chain(&left),
                        "a failed launch is not removed"
                    );
                }
                Err(error)
            }
        }
    }

    /// Returns the bottles of the prefix, sorted by namespace. A namespace whose label is no slug is left out.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub fn list(&self) -> Result<Vec<KubeSummary>, KubeError> {
        let prefix = &self.prefix;
        let label = format!("{prefix}.slug");
        let found = self.cluster.get(["namespaces", "--selector", &label])?;
        let leases = self.cluster.get(["leases", "--all-namespaces", "--selector", &label, "--show-managed-fields"])?;
        let now = self.cluster.server_time()?;
        let items =
            |list: &Option<Value>| list.as_ref().and_then(|list| list["items"].as_array().cloned()).unwrap_or_default();
        let leases = items(&leases);
        let summary = |namespace: &Value| {
            let metadata = &namespace["metadata"];
            let name = metadata["name"].as_str().unwrap_or_default();
            let own = leases.iter().find(|lease| lease["metadata"]["namespace"] == name);
            let journal = metadata["annotations"][format!("{prefix}.{JOURNAL}")].as_str();
            Some(KubeSummary {
                namespace: name.to_owned(),
                slug: metadata["labels"][&label].as_str()?.parse().ok()?,
                journal: journal.and_then(|text| serde_json::from_str(text).ok()),
                ownership: lease::ownership(own, metadata["creationTimestamp"].as_str().unwrap_or_default(), &now),
                is_ending: namespace["status"]["phase"] == "Terminating",
            })
        };
        Ok(items(&found).iter().filter_map(summary).collect())
    }

    /// Returns a handle of a bottle that another process has launched. Dropping it leaves the bottle running.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such bottle, or its launch has not finished.
    pub fn attach(&self, slug: &Slug) -> Result<KubeBottle, KubeError> {
        let found = self.list()?.into_iter().find(|bottle| bottle.slug == *slug && !bottle.is_ending);
        let found = found.ok_or_else(|| KubeError::input(format!("there is no bottle `{slug}` on the cluster")))?;
        let journal =
            found.journal.ok_or_else(|| KubeError::input(format!("the journal of bottle `{slug}` cannot be read")))?;
        let cluster = self.cluster.clone();
        Ok(KubeBottle {
            cluster,
            namespace: found.namespace,
            journal,
            renewal: None,
            is_removed_on_drop: false,
            keys: self.keys.clone(),
            packed: None,
            limits: WorkLimits::default(),
        })
    }

    /// Removes every bottle of the prefix whose owner has ended, and returns their namespaces.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer, a namespace is not gone within two minutes, or a deploy key could not be
    /// revoked. The bottles without deploy keys are removed first.
    pub fn recover(&self) -> Result<Vec<String>, KubeError> {
        let abandoned = self.list()?.into_iter().filter(|bottle| bottle.ownership == Ownership::Abandoned);
        let keys = |bottle: &KubeSummary| bottle.journal.as_ref().map_or(&[][..], |journal| &journal.keys).to_vec();
        let (keyed, others): (Vec<_>, Vec<_>) = abandoned.partition(|bottle| !keys(bottle).is_empty());
        let mut namespaces: Vec<String> = others.into_iter().map(|bottle| bottle.namespace).collect();
        if !namespaces.is_empty() {
            let args = ["namespace"].into_iter().chain(namespaces.iter().map(String::as_str));
            self.cluster.delete(args, true)?;
        }
        for bottle in keyed {
            keys::remove(&self.cluster, &bottle.namespace, &self.keys, &keys(&bottle))?;
            namespaces.push(bottle.namespace);
        }
        Ok(namespaces)
    }
}

/// Returns the plan with sidecars that do not run as root. No file of the host has to be readable, and Pod Security allows
/// no root.
pub(crate) fn as_user(mut plan: BottlePlan) -> BottlePlan {
    if plan.user.uid == 0 {
        plan.user = UserIds { uid: 1000, gid: 1000 };
    }
    plan
}

/// One launch.
struct Launch<'a> {
    bottles: &'a KubeBottles,
    plan: &'a ResolvedPlan,
    manifests: &'a Manifests,
    material: &'a Material,
    inputs: &'a KubeInputs,
    /// The entries of the deploy keys.
    keys: &'a [Value],
}

/// A change while the Pods start.
enum Change {
    /// A Pod changed.
    Pod(Value),
    /// The watch ended.
    Ended,
    /// A Pod has its files, or cannot get them.
    HandedOver(Result<(), KubeError>),
}

impl Launch<'_> {
    const fn cluster(&self) -> &Kubectl {
        &self.bottles.cluster
    }

    fn step<T>(&self, name: &str, run: impl FnOnce() -> Result<T, KubeError>) -> Result<T, KubeError> {
        if self.cluster().control().cancel().is_cancelled() {
            return Err(KubeError::Cancelled);
        }
        step(&*self.bottles.observer, name, run)
    }

    fn journal(&self) -> Journal {
        let plan = self.plan.plan();
        Journal {
            slug: plan.names.slug().clone(),
            agent: plan.agent_name.to_string(),
            command: agent_argv(plan),
            workdir: plan.workspace.target.to_string(),
            attacks: Attacks::default(),
            keys: self.keys.to_vec(),
        }
    }

    fn journal_key(&self) -> String {
        format!("{}.{JOURNAL}", self.plan.plan().names.prefix())
    }

    /// Creates the namespace with its Lease, unless it exists.
    fn take(&self, owner: &Owner) -> Result<(), KubeError> {
        let name = self.manifests.namespace();
        let Some(namespace) = self.manifests.base().first() else { return Ok(()) };
        let mut namespace = namespace.clone();
        let journal = serde_json::to_string(&self.journal()).unwrap_or_default();
        namespace.metadata.annotations.insert(self.journal_key(), journal);
        if let Err(error) = self.cluster().create(&namespace) {
            if self.cluster().get(["namespace", name])?.is_none() {
                return Err(error);
            }
            let lease = self.cluster().get(["lease", lease::NAME, "--namespace", name])?;
            let owner = lease.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or("unknown");
            return Err(KubeError::Taken { namespace: name.to_owned(), owner: owner.to_owned() });
        }
        let mut objects = vec![lease::object(name, &namespace.metadata.labels, owner)];
        objects.extend(self.manifests.base()[1..].iter().cloned());
        let applied = self.cluster().apply(&objects);
        if applied.is_err() {
            // No key is registered yet.
            keys::remove(self.cluster(), name, &None, &[])?;
        }
        applied
    }

    fn run(&self, bottle: &mut KubeBottle) -> Result<(), KubeError> {
        let namespace = self.manifests.namespace();
        if !self.keys.is_empty() {
            self.step("register the deploy keys", || {
                keys::register(&self.bottles.keys, self.plan.plan(), &mut bottle.journal.keys)
            })?;
        }
        let (addresses, around) = self.step("read the addresses", || self.addresses())?;
        self.step("start the Pods", || {
            let (sender, receiver) = channel();
            let watch = self.watch(sender.clone())?;
            let started = self
                .cluster()
                .apply(&self.manifests.pods(&addresses)?)
                .and_then(|()| self.await_pods(&sender, &receiver));
            watch.end();
            started
        })?;
        let plan = self.plan.plan();
        if plan.workspace.mode == WorkspaceMode::Copy {
            self.step("copy the workspace", || {
                let mut tar = Vec::new();
                pack(&plan.workspace, plan.agent_user(), &mut tar)?;
                // Without a name, nothing is left of it when this process is killed.
                let kept = tempfile::tempfile().and_then(|mut file| file.write_all(&tar).map(|()| file));
                let failed = |source| WorkError::Write { path: std::env::temp_dir(), source };
                bottle.packed = Some(kept.map_err(failed)?);
                // The names in the stream begin at the root.
                let target = plan.workspace.target.as_str();
                let depth = target.split('/').filter(|part| !part.is_empty()).count();
                bottle.unpack(target, depth, Stdin::Bytes(tar))
            })?;
        }
        self.step("provision the agent", || {
            let run = |script: &str, input: Vec<u8>| {
                let argv = ["sh", "-c", script].map(String::from);
                let stdin = if input.is_empty() { Stdin::Null } else { Stdin::Bytes(input) };
                match self.cluster().exec(&bottle.agent(MAIN), &argv, stdin, HAND_OVER) {
                    Ok(output) => crate::bottle::of_command(&argv, output),
                    Err(error) => Err(error),
                }
                .map_err(|error| match error {
                    KubeError::Exec(error) => error,
                    other => bottle_exec::ExecError::Backend { command: "sh".into(), message: chain(&other) },
                })
            };
            Ok(unprivileged(&run, plan, self.material.certificates.as_bytes())?)
        })?;
        if plan.supervise.is_some() {
            self.step("write the plan in effect", || KubeSupervisor::write_launched(bottle, plan))?;
        }
        let pods = self.cluster().get(["pods", "--namespace", namespace])?.unwrap_or_default();
        bottle.journal.attacks = Attacks::on(self.manifests, &self.around(around, &pods));
        let annotation = serde_json::to_string(&bottle.journal).unwrap_or_default();
        let verify = || -> Result<(), KubeError> {
            if self.bottles.is_verified {
                self.step("verify the protections", || {
                    Ok(bottle.journal.attacks.run(self.cluster(), &bottle.agent(VERIFY))?.into_result()?)
                })?;
            }
            Ok(())
        };
        let patch = json!({"metadata": {"annotations": {self.journal_key(): annotation}}});
        thread::scope(|scope| {
            let recorded = scope.spawn(|| self.cluster().patch_cluster(&format!("namespace/{namespace}"), &patch));
            verify()?;
            recorded.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Returns the addresses of the bottle's Services, and of what surrounds the bottle.
    fn addresses(&self) -> Result<(BTreeMap<String, IpAddr>, Surroundings), KubeError> {
        let services = self.cluster().get(["services", "--all-namespaces"])?.unwrap_or_default();
        let (mut addresses, mut around) = (BTreeMap::new(), Surroundings::default());
        for service in services["items"].as_array().into_iter().flatten() {
            let (metadata, spec) = (&service["metadata"], &service["spec"]);
            let name = metadata["name"].as_str().unwrap_or_default();
            let Some(address) = spec["clusterIP"].as_str().and_then(|text| text.parse::<IpAddr>().ok()) else {
                continue;
            };
            match metadata["namespace"].as_str() {
                Some(namespace) if namespace == self.manifests.namespace() => {
                    addresses.insert(name.to_owned(), address);
                }
                Some("default") if name == "kubernetes" => {
                    let port = spec["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
                    around.api = Some((address.to_string(), port.unwrap_or(443)));
                }
                Some("kube-system")
                    if spec["ports"].as_array().into_iter().flatten().any(|port| port["port"] == 53) =>
                {
                    around.dns = Some(address.to_string());
                }
                _ => {}
            }
        }
        Ok((addresses, around))
    }

    /// Adds the addresses of the bottle's Pods and of their nodes.
    fn around(&self, mut around: Surroundings, pods: &Value) -> Surroundings {
        let mut nodes = BTreeSet::new();
        let expected = self.manifests.expected();
        for pod in pods["items"].as_array().into_iter().flatten() {
            nodes.extend(pod["status"]["hostIP"].as_str().map(ToOwned::to_owned));
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if name == Service::Agent.as_str() {
                continue;
            }
            let open = expected.open.iter().filter(|(host, _)| host == name).map(|(_, port)| *port).collect();
            around.pods.extend(pod["status"]["podIP"].as_str().map(|address| (address.to_owned(), open)));
        }
        around.nodes = nodes.into_iter().collect();
        around
    }

    /// Starts to watch the Pods.
    fn watch(&self, sender: Sender<Change>) -> Result<Watch, KubeError> {
        let mut child = self.cluster().watch_pods(self.manifests.namespace())?;
        let Some(mut output) = child.stdout.take() else { return Err(KubeError::Cancelled) };
        if let Some(mut errors) = child.stderr.take() {
            thread::spawn(move || errors.read_to_end(&mut Vec::new()));
        }
        thread::spawn(move || {
            let documents = serde_json::Deserializer::from_reader(&mut output).into_iter::<Value>();
            for mut document in documents.map_while(Result::ok) {
                if sender.send(Change::Pod(document["object"].take())).is_err() {
                    return;
                }
            }
            // Nobody listens any more when the Pods are ready.
            let _ = sender.send(Change::Ended);
        });
        Ok(Watch(child))
    }

    /// Hands over the files of each Pod whose gate runs, and returns when all Pods are ready.
    fn await_pods(&self, sender: &Sender<Change>, receiver: &Receiver<Change>) -> Result<(), KubeError> {
        let until = Instant::now() + self.bottles.limit;
        let mut waiting: BTreeMap<String, String> =
            self.manifests.pod_names().map(|name| (name.to_owned(), "not created".to_owned())).collect();
        let mut receiving = BTreeSet::new();
        thread::scope(|scope| {
            while !waiting.is_empty() {
                if self.cluster().control().cancel().is_cancelled() {
                    return Err(KubeError::Cancelled);
                }
                let rest = until.saturating_duration_since(Instant::now());
                let event = receiver.recv_timeout(rest.min(Duration::from_millis(100)));
                let pod = match event {
                    Ok(Change::Pod(pod)) => pod,
                    Ok(Change::HandedOver(result)) => {
                        result?;
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) if !rest.is_zero() => continue,
                    Ok(Change::Ended) | Err(_) => {
                        let pods = waiting.iter().map(|(pod, detail)| format!("`{pod}` ({detail})")).collect();
                        return Err(KubeError::Late { pods, within: self.bottles.limit });
                    }
                };
                let Some(name) = pod["metadata"]["name"].as_str() else { continue };
                match PodState::of(&pod) {
                    PodState::Ready => drop(waiting.remove(name)),
                    PodState::Failed { container, reason } => return Err(self.failure(name, &container, reason)),
                    PodState::Starting { is_receiving, detail } => {
                        waiting.insert(name.to_owned(), detail);
                        if is_receiving && receiving.insert(name.to_owned()) {
                            let (name, sender) = (name.to_owned(), sender.clone());
                            scope.spawn(move || sender.send(Change::HandedOver(self.hand_over(&name))));
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Gives a Pod its files, through the standard input of a command in its gate.
    fn hand_over(&self, pod: &str) -> Result<(), KubeError> {
        let archive = self.material.archive(pod, self.manifests.files(), self.inputs)?;
        let target = Target { namespace: self.manifests.namespace(), pod, container: GATE };
        let script = format!(
            "echo $$ >{FILES}/{RECEIVER}; exec tar --extract --no-same-owner --preserve-permissions --file - --directory {FILES}"
        );
        let argv = ["sh", "-c", &script].map(String::from);
        let output = self.cluster().exec(&target, &argv, Stdin::Bytes(archive), HAND_OVER)?;
        crate::bottle::succeed(&argv, output).map(drop)
    }

    /// Returns the error of a Pod that does not start, with the last lines of its container.
    fn failure(&self, pod: &str, container: &str, reason: String) -> KubeError {
        let log = self.cluster().logs(self.manifests.namespace(), pod, container);
        let log = log.map(|output| output.stdout.last_lines(6)).unwrap_or_default();
        if let Some((_, detail)) = log.split_once("network policies are not enforced: ") {
            return KubeError::NotEnforced {
                pod: pod.to_owned(),
                detail: detail.lines().next().unwrap_or_default().to_owned(),
            };
        }
        let problem = if log.is_empty() { reason } else { format!("{reason}: {log}") };
        KubeError::Pod { pod: pod.to_owned(), problem }
    }
}

/// A watch that runs.
struct Watch(bottle_exec::Child);

impl Watch {
    fn end(mut self) {
        if let Err(error) = self.0.kill() {
            tracing::warn!(error = chain(&error), "the watch of the Pods may still run");
        }
    }
}
