//! Image builds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bottle_exec::{EnvValue, OutputPolicy, Stdin};

use crate::client::{Engine, pass_env};
use crate::error::EngineError;
use crate::info::Flavour;
use crate::progress::{BuildProgress, Reporting};

/// The context of an image build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// The content of a tar file. Owners and modes are kept.
    Tar(Vec<u8>),
}

/// An image to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Build context.
    pub context: BuildContext,
    /// Tag of the image.
    pub tag: String,
    /// Path of the Dockerfile in the context. Default: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// Build arguments. For a secret, only the name is on the command line, and the value is in the environment.
    /// Builders keep build arguments in the image's history all the same.
    pub args: BTreeMap<String, EnvValue>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Network of the build steps. `None`: the engine's default.
    pub network: Option<String>,
}

impl Build {
    /// Returns a build of this tag from this context.
    pub fn new(tag: impl Into<String>, context: BuildContext) -> Self {
        Self {
            context,
            tag: tag.into(),
            dockerfile: None,
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            network: None,
        }
    }
}

impl Engine {
    /// Builds an image as [`build`](Engine::build) does, and passes its progress to `report`, a few times a second, in place of
    /// the output to the control's sink.
    ///
    /// # Errors
    ///
    /// Returns an error when the build fails.
    pub fn build_reporting(
        &self,
        build: &Build,
        report: impl Fn(BuildProgress) + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        let control = self.control.clone().with_sink(Arc::new(Reporting::new(report)));
        self.clone().with_control(control).build(build)
    }

    /// Builds an image. The builder's output goes to the control's sink, and its last lines into the error.
    ///
    /// # Errors
    ///
    /// Returns an error when the build fails.
    pub fn build(&self, build: &Build) -> Result<(), EngineError> {
        let mut command = self
            .change(["build", "--tag", &build.tag])
            .with_timeout(self.limits.build)
            .with_output(OutputPolicy::Stream)
            .with_label(format!("build image {}", build.tag));
        if self.info.flavour == Flavour::Docker {
            command = command.with_env("BUILDKIT_PROGRESS", "plain");
            if !self.info.context.is_empty() {
                // A builder other than the context's own may not load the image into the engine.
                command = command.with_env("BUILDX_BUILDER", self.info.context.as_str());
            }
        }
        for (option, value) in [("--file", &build.dockerfile), ("--network", &build.network)] {
            if let Some(value) = value {
                command = command.with_args([option, value]);
            }
        }
        command = pass_env(command, "--build-arg", build.args.clone())?;
        for (key, value) in &build.labels {
            command = command.with_arg("--label").with_arg(format!("{key}={value}"));
        }
        let command = match &build.context {
            BuildContext::Directory(path) => command.with_arg(path),
            BuildContext::Tar(bytes) => command.with_arg("-").with_stdin(Stdin::Bytes(bytes.clone())),
        };
        self.run(&command).map(drop)
    }

    /// Pulls an image from its registry.
    ///
    /// # Errors
    ///
    /// Returns an error when the registry does not have it.
    pub fn pull(&self, image: &str) -> Result<(), EngineError> {
        self.run(&self.change(["pull", "--quiet", image]).with_timeout(self.limits.build)).map(drop)
    }

    /// Pushes an image to a registry as `reference`, with the engine's own login, and returns the digest of what the registry has
    /// then, such as `sha256:…`. The engine does not keep the reference, unless it is the image's own.
    ///
    /// # Errors
    ///
    /// Returns an error when there is no such image, or the registry does not take it.
    pub fn push(&self, image: &str, reference: &str) -> Result<String, EngineError> {
        if image != reference {
            self.run(&self.change(["tag", image, reference]))?;
        }
        let command = self.change(["push", reference]).with_timeout(self.limits.build);
        let pushed = self.run(&command.clone().with_label(format!("push image {reference}")));
        let untagged = if image == reference { Ok(()) } else { self.run(&self.change(["rmi", reference])).map(drop) };
        let printed = pushed?.stdout_text();
        untagged?;
        let digest = printed.lines().find_map(|line| line.split_once("digest: ")?.1.split(' ').next());
        let digest = digest.filter(|digest| digest.starts_with("sha256:"));
        digest.map(ToOwned::to_owned).ok_or_else(|| EngineError::answer(&command, "it has no digest", &printed))
    }
}
