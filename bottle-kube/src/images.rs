//! The images of a bottle on a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bottle_engine::{Build, BuildContext as EngineContext, Engine, EngineError, ObjectKind};
use bottle_exec::{Backend as _, Command};
use bottle_files::tar::Packer;
use bottle_plan::resolved::BuiltImage;
use bottle_plan::value::ImageRef;
use bottle_plan::{BottlePlan, LabelKey, Service};
use bottle_sidecars::{BuildContext, agent, egress, git_gate, seal, supervise};

use crate::error::KubeError;

/// The images of a bottle, as its Pods name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeImages {
    /// The images of the agent, the seal, and of each sidecar that the plan has. Without pipelock's, it is that of the plan.
    pub images: BTreeMap<Service, ImageRef>,
    /// The image of the small containers of each Pod. `None`: the base of the plan.
    pub base: Option<ImageRef>,
}

impl From<BTreeMap<Service, ImageRef>> for KubeImages {
    fn from(images: BTreeMap<Service, ImageRef>) -> Self {
        Self { images, base: None }
    }
}

impl KubeImages {
    /// Names these images in a plan.
    pub(crate) fn name_in(&self, plan: &mut BottlePlan) {
        if let Some(pipelock) = self.images.get(&Service::Pipelock) {
            plan.images.pipelock = pipelock.clone();
        }
        if let Some(base) = &self.base {
            plan.images.base = base.clone();
        }
    }

    pub(crate) fn built(&self, service: Service) -> Result<BuiltImage, KubeError> {
        let reference = self.images.get(&service).cloned();
        let reference = reference.ok_or_else(|| KubeError::input(format!("there is no image for `{service}`")))?;
        Ok(BuiltImage { reference, build: None })
    }
}

/// Provides the images of a bottle to the nodes of a cluster.
pub trait ImageSource: Debug + Send + Sync {
    /// Provides the images of a plan, and returns their references.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be provided.
    fn provide(&self, plan: &BottlePlan) -> Result<KubeImages, KubeError>;
}

/// Images that a registry has: `images.ready` of the manifest names each of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadyImages;

impl ImageSource for ReadyImages {
    fn provide(&self, plan: &BottlePlan) -> Result<KubeImages, KubeError> {
        let own = wanted(plan).into_iter().map(|(service, ..)| service);
        let images = own.map(|service| {
            let problem = || {
                KubeError::input(format!(
                    "{}: it names no image; nothing builds one",
                    plan.bottle_key(&format!("images.{service}"))
                ))
            };
            Ok((service, plan.images.ready.get(&service).cloned().ok_or_else(problem)?))
        });
        Ok(images.collect::<Result<BTreeMap<_, _>, KubeError>>()?.into())
    }
}

/// Images that somebody else builds and pushes: the names that a launch would give them, below a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImages {
    /// The registry and a path in it, such as `registry.example.com/agents`.
    pub registry: String,
}

impl ImageSource for NamedImages {
    fn provide(&self, plan: &BottlePlan) -> Result<KubeImages, KubeError> {
        let named = |(service, context, args): (Service, &BuildContext, BTreeMap<String, String>)| {
            let tag = plan.names.built_image(context.name, &context.content_hash(&args));
            let reference = parsed(&format!("{}/{tag}", self.registry.trim_end_matches('/')));
            Ok((service, plan.images.ready.get(&service).cloned().map_or(reference, Ok)?))
        };
        Ok(wanted(plan).into_iter().map(named).collect::<Result<BTreeMap<_, _>, KubeError>>()?.into())
    }
}

/// Images that a container engine of this host builds, and a program loads into the nodes.
#[derive(Debug)]
pub struct BuiltImages {
    engine: Engine,
    loader: Vec<OsString>,
    /// The images that the nodes have. Two launches at once must not build or load the same one.
    loaded: Mutex<BTreeSet<String>>,
}

impl BuiltImages {
    /// Returns a source that builds images and runs `loader` with the references of a bottle's images as further arguments.
    /// It has to make them known to every node, and is run once for each image. Empty: the nodes use the engine's images.
    pub fn new(engine: Engine, loader: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { engine, loader: loader.into_iter().map(Into::into).collect(), loaded: Mutex::default() }
    }
}

impl ImageSource for BuiltImages {
    fn provide(&self, plan: &BottlePlan) -> Result<KubeImages, KubeError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let images = build(&self.engine, plan)?;
        let others = [&plan.images.base, &plan.images.pipelock];
        let all: BTreeSet<String> = images.values().chain(others).map(ToString::to_string).collect();
        let missing: Vec<&String> = all.difference(&loaded).collect();
        if let Some((program, args)) = self.loader.split_first().filter(|_| !missing.is_empty()) {
            let command = Command::new(program)
                .with_args(args)
                .with_args(missing)
                .with_timeout(Duration::from_secs(600))
                .with_label("load the images into the nodes");
            let output = self.engine.backend().run(&command, self.engine.control());
            output.and_then(|output| output.success(&command)).map_err(EngineError::from)?;
        }
        loaded.extend(all);
        Ok(images.into())
    }
}

/// Images that a container engine of this host builds and pushes to a registry. The Pods name every image by its digest, those
/// of the manifest included, so that what runs is what was built here.
#[derive(Debug)]
pub struct PushedImages {
    engine: Engine,
    registry: String,
    /// The images that the registry has, by their local names. Two launches at once must not push the same one.
    pushed: Mutex<BTreeMap<String, ImageRef>>,
}

impl PushedImages {
    /// Returns a source that pushes to a registry and a path in it, such as `registry.example.com/agents`. The engine must be
    /// logged in there, and the nodes be able to pull from it. Images of the manifest that the engine lacks are pulled.
    pub fn new(engine: Engine, registry: impl Into<String>) -> Self {
        Self { engine, registry: registry.into(), pushed: Mutex::default() }
    }

    fn push(&self, image: &ImageRef, pushed: &mut BTreeMap<String, ImageRef>) -> Result<ImageRef, KubeError> {
        let local = image.to_string();
        if let Some(known) = pushed.get(&local) {
            return Ok(known.clone());
        }
        if !self.engine.exists(ObjectKind::Image, &local)? {
            self.engine.pull(&local)?;
        }
        let registry = self.registry.trim_end_matches('/');
        // Without its registry, and without the digest of another one.
        let name = local.split('@').next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        let digest = self.engine.push(&local, &format!("{registry}/{name}"))?;
        let name = name.split(':').next().unwrap_or_default();
        let reference: ImageRef = parsed(&format!("{registry}/{name}@{digest}"))?;
        pushed.insert(local, reference.clone());
        Ok(reference)
    }
}

impl ImageSource for PushedImages {
    fn provide(&self, plan: &BottlePlan) -> Result<KubeImages, KubeError> {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut images = build(&self.engine, plan)?;
        images.insert(Service::Pipelock, plan.images.pipelock.clone());
        for image in images.values_mut() {
            *image = self.push(image, &mut pushed)?;
        }
        Ok(KubeImages { images, base: Some(self.push(&plan.images.base, &mut pushed)?) })
    }
}

/// Builds the images of a plan that the engine lacks, and returns all of them.
fn build(engine: &Engine, plan: &BottlePlan) -> Result<BTreeMap<Service, ImageRef>, KubeError> {
    let mut images = BTreeMap::new();
    for (service, context, args) in wanted(plan) {
        if let Some(ready) = plan.images.ready.get(&service) {
            images.insert(service, ready.clone());
            continue;
        }
        let tag = plan.names.built_image(context.name, &context.content_hash(&args));
        if !engine.exists(ObjectKind::Image, &tag)? {
            let mut build = Build::new(&tag, EngineContext::Tar(tar(context)?));
            let label = LabelKey::Context.under(plan.names.prefix());
            build.labels = BTreeMap::from([(label, context.content_hash(&BTreeMap::new()))]);
            build.args = args.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            engine.build(&build)?;
        }
        images.insert(service, parsed(&tag)?);
    }
    Ok(images)
}

fn parsed(reference: &str) -> Result<ImageRef, KubeError> {
    reference.parse().map_err(|error: bottle_plan::NameError| KubeError::input(error.to_string()))
}

/// Returns the images that are built for a plan, each with its build context and arguments.
fn wanted(plan: &BottlePlan) -> Vec<(Service, &'static BuildContext, BTreeMap<String, String>)> {
    let args = BTreeMap::from([("BASE".to_owned(), plan.images.base.to_string())]);
    let all = [
        (Service::Agent, true, &agent::CONTEXT, agent::build_args(plan)),
        (Service::Seal, true, &seal::CONTEXT, args.clone()),
        (Service::Egress, plan.egress.is_some(), &egress::CONTEXT, args.clone()),
        (Service::GitGate, plan.git_gate.is_some(), &git_gate::CONTEXT, args.clone()),
        (Service::Supervise, plan.supervise.is_some(), &supervise::CONTEXT, args),
    ];
    all.into_iter().filter(|all| all.1).map(|(service, _, context, args)| (service, context, args)).collect()
}

fn tar(context: &BuildContext) -> Result<Vec<u8>, KubeError> {
    let mut packer = Packer::new(Vec::new());
    for file in context.files {
        let mode = if file.executable { 0o755 } else { 0o644 };
        packer.add_bytes(Path::new(file.path), file.content.as_bytes(), mode).map_err(|error| {
            KubeError::input(format!("the build context `{}` cannot be packed: {error}", context.name))
        })?;
    }
    packer.finish().map_err(|error| KubeError::input(error.to_string()))
}
