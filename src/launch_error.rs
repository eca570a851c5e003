//! The errors of a launch.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bottle_compose::RenderError;
use bottle_engine::EngineError;
use bottle_exec::ExecError;
use bottle_plan::{ManifestError, ResolveError};
use bottle_provision::ProvisionError;
use bottle_store::StoreError;
use bottle_supervise::SuperviseError;
use bottle_tls::TlsError;
use bottle_verify::VerifyError;
use bottle_workspace::WorkspaceError;

#[cfg(feature = "deploy-keys")]
use crate::deploy_keys::DeployKeyError;
use crate::lifecycle::{BottleError, HandOverError, JournalError, TeardownReport};

/// A step of the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Checks that everything the plan needs exists, and opens the journal.
    Prepare,
    /// Builds the agent's base image, the sidecars' images, and the derived image with the workspace.
    BuildImages,
    /// Creates the networks.
    CreateNetworks,
    /// Mints the certificate authorities.
    MintCertificates,
    /// Writes each sidecar's configuration.
    WriteConfiguration,
    /// Registers deploy keys at forges.
    RegisterKeys,
    /// Resolves the plan with the facts of the launch.
    Resolve,
    /// Renders and writes the Compose file.
    WriteCompose,
    /// Creates the services, starts them, and waits until they are healthy.
    Up,
    /// Provisions the agent's container after its start.
    Provision,
    /// Attacks the bottle, and compares what holds with what was planned.
    Verify,
    /// Creates the handle.
    HandOut,
}

impl Step {
    /// Returns the step in words that follow "failed to".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare the launch",
            Self::BuildImages => "build the images",
            Self::CreateNetworks => "create the networks",
            Self::MintCertificates => "mint the certificates",
            Self::WriteConfiguration => "write the configuration",
            Self::RegisterKeys => "register the deploy keys",
            Self::Resolve => "resolve the plan",
            Self::WriteCompose => "write the Compose file",
            Self::Up => "start the services",
            Self::Provision => "provision the agent",
            Self::Verify => "verify the protections",
            Self::HandOut => "hand out the bottle",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed launch: the step, the cause, and the report of the teardown.
///
/// `Display` gives the step, and `source` the cause. [`report`](crate::report) prints all of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct LaunchError {
    /// The step.
    pub step: Step,
    /// Cause of the failure.
    pub cause: Box<LaunchCause>,
    /// Report of the teardown. `None` if nothing had been created.
    pub teardown: Option<TeardownReport>,
}

impl LaunchError {
    pub(crate) fn new(step: Step, cause: LaunchCause) -> Self {
        Self { step, cause: Box::new(cause), teardown: None }
    }

    pub(crate) fn with_teardown(mut self, report: TeardownReport) -> Self {
        self.teardown = Some(report);
        self
    }

    /// Returns true if the launch was cancelled.
    pub fn is_cancelled(&self) -> bool {
        match &*self.cause {
            LaunchCause::Cancelled => true,
            LaunchCause::Engine(error) => error.is_cancelled(),
            LaunchCause::HandOver(error) => error.is_cancelled(),
            LaunchCause::Provision(error) => error.is_cancelled(),
            LaunchCause::Store(error) => error.is_cancelled(),
            _ => false,
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.step, f)
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// An error of the engine, as one of the step that starts the services.
impl From<EngineError> for LaunchError {
    fn from(error: EngineError) -> Self {
        Self::new(Step::Up, error.into())
    }
}

/// Cause of a failed step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchCause {
    /// The launch was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// The manifest names something that cannot be used, such as a variable that is not set. All of it is in this error.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file that the plan names cannot be used.
    #[error("{what} `{}` {problem}", path.display())]
    Unusable {
        /// Purpose of the file.
        what: String,
        /// The file.
        path: PathBuf,
        /// Problem with the file, and what would be accepted.
        problem: String,
    },
    /// No block of the pools is free.
    #[error(
        "find a subnet for network `{network}`: a network of the engine or a route of this host uses every /{prefix_len} of \
         `{subnets}`; accepted: other pools for `Bottles::with_subnets` (option `--subnets`), or `engine`, which lets the engine \
         choose"
    )]
    NoSubnet {
        /// Name of the network.
        network: String,
        /// Prefix length of the subnet.
        prefix_len: u8,
        /// The pools.
        subnets: String,
    },
    /// A file of the bottle's state could not be written.
    #[error("write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The plan or the posture could not be written.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// The workspace cannot be packed.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The engine reported an error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A command of the engine could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The journal cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A certificate authority could not be minted.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A deploy key could not be registered.
    #[cfg(feature = "deploy-keys")]
    #[error(transparent)]
    DeployKey(Box<DeployKeyError>),
    /// The plan needs a deploy key, and the crate was built without its feature `deploy-keys`.
    #[error(
        "git upstream `{upstream}` ({key}.deploy_key): this build of `bottle` has no deploy keys; build it with the feature `deploy-keys`, or give the upstream another way to authenticate"
    )]
    NoDeployKeys {
        /// The upstream.
        upstream: String,
        /// The manifest's key of the upstream.
        key: String,
    },
    /// The plan could not be resolved with the facts of the launch.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The document could not be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A sidecar did not get its credentials.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    /// The bottle's files could not be written to its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent's container could not be provisioned.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A protection is missing, or could not be probed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The handle could not be created.
    #[error(transparent)]
    Bottle(#[from] BottleError),
}
