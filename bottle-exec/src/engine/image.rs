//! Building images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::client::{Engine, pass_env};
use super::error::EngineError;
use super::info::Flavour;
use crate::command::{EnvValue, OutputPolicy, Stdin};

/// What an image is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// The content of a tar file, whose owners and modes are kept.
    Tar(Vec<u8>),
}

/// An image to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// What it is built from.
    pub context: BuildContext,
    /// What it is called.
    pub tag: String,
    /// The Dockerfile's path inside the context, if it is not `Dockerfile`.
    pub dockerfile: Option<String>,
    /// Build arguments. A secret one is named on the command line and its value is in the environment only; yet builders
    /// keep build arguments in the image's history.
    pub args: BTreeMap<String, EnvValue>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
    /// The network of the build's own steps; the engine's default if there is none.
    pub network: Option<String>,
}

impl Build {
    /// An image with this tag from this context.
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
    /// Builds an image. What the builder prints goes to the control's sink, its end into the error.
    ///
    /// # Errors
    ///
    /// When the build fails.
    pub fn build(&self, build: &Build) -> Result<(), EngineError> {
        let mut command = self
            .change(["build", "--tag", &build.tag])
            .with_timeout(self.limits.build)
            .with_output(OutputPolicy::Stream)
            .with_label(format!("build image {}", build.tag));
        if self.info.flavour == Flavour::Docker {
            command = command.with_env("BUILDKIT_PROGRESS", "plain");
            if !self.info.context.is_empty() {
                // Another builder than the context's own may keep the image to itself.
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
}
