//! Errors of bottles on a cluster.

use std::time::Duration;

use bottle_engine::EngineError;
use bottle_exec::ExecError;
use bottle_forward::ForwardError;
use bottle_kube_render::RenderError;
use bottle_provision::ProvisionError;
use bottle_supervise::SuperviseError;
use bottle_tls::TlsError;
use bottle_verify::VerifyError;
use bottle_workspace::{WorkError, WorkspaceError};

/// An error of a bottle on a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeError {
    /// A command was not run or ended badly.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The output of `kubectl` cannot be parsed.
    #[error("parse the output of `{command}`: {reason}")]
    Answer {
        /// Command line.
        command: String,
        /// Reason why it cannot be parsed.
        reason: String,
    },
    /// The objects cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The plan cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] bottle_plan::ResolveError),
    /// The plan needs something that a cluster or this host does not have.
    #[error("prepare the launch: {problem}")]
    Input {
        /// Problem, and what is accepted.
        problem: String,
    },
    /// The namespace of the bottle exists.
    #[error("create namespace `{namespace}`: it exists (owner: {owner}); use another slug, or remove the bottle")]
    Taken {
        /// The namespace.
        namespace: String,
        /// The owner, as its Lease says.
        owner: String,
    },
    /// A Pod does not start.
    #[error("start Pod `{pod}`: {problem}")]
    Pod {
        /// The Pod.
        pod: String,
        /// Problem, as the kubelet or the Pod's log says.
        problem: String,
    },
    /// A deploy key could not be made or registered.
    #[error("register a deploy key for git upstream `{upstream}` ({key}.deploy_key): {problem}")]
    DeployKey {
        /// Name of the upstream.
        upstream: String,
        /// The manifest's key of the upstream.
        key: String,
        /// Problem, and what is accepted.
        problem: String,
    },
    /// Deploy keys could not be revoked. The Pods of the bottle are removed, and its namespace stays for a recovery.
    #[error("remove bottle `{namespace}`: {}", problems.join("; "))]
    NotRevoked {
        /// The namespace.
        namespace: String,
        /// Problem of each key.
        problems: Vec<String>,
    },
    /// The cluster does not enforce network policies.
    #[error(
        "seal Pod `{pod}`: the cluster does not enforce network policies ({detail}); accepted: a network plugin that does, in both directions"
    )]
    NotEnforced {
        /// The Pod that found it.
        pod: String,
        /// Target that it reached.
        detail: String,
    },
    /// Pods did not become ready in time.
    #[error("start the bottle: {} not ready within {within:?}: {}", if pods.len() == 1 { "a Pod is" } else { "Pods are" }, pods.join(", "))]
    Late {
        /// The Pods, each with its state.
        pods: Vec<String>,
        /// Time limit.
        within: Duration,
    },
    /// An image could not be built.
    #[error(transparent)]
    Image(#[from] EngineError),
    /// A certificate authority could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The workspace could not be packed.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The agent's work could not be taken out.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A port could not be forwarded.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The agent's files could not be put in place.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// An operation of supervise failed.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// A protection is missing.
    #[error(transparent)]
    Unprotected(#[from] VerifyError),
    /// The launch was cancelled.
    #[error("launch the bottle: cancelled")]
    Cancelled,
}

impl KubeError {
    pub(crate) fn input(problem: impl Into<String>) -> Self {
        Self::Input { problem: problem.into() }
    }
}
