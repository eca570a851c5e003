//! The launchers of this workspace: a container engine, and a Kubernetes cluster.

use bottle::exec::{ExecError, chain};
use bottle::launch::LaunchCause;
use bottle::{Bottle, BottlePlan, Bottles, EngineError};
use bottle_kube::{KubeBottle, KubeBottles, KubeError, KubeInputs};

use crate::launcher::{Failure, Launcher};

/// Bottles on a container engine. The launches of one fleet have different slugs.
impl Launcher<BottlePlan> for Bottles {
    type Bottle = Bottle;
    type Error = bottle::Error;

    fn launch(&self, job: &BottlePlan) -> Result<Bottle, bottle::Error> {
        Ok(Self::launch(self, job.clone())?)
    }

    fn failure(&self, error: &bottle::Error) -> Failure {
        let bottle::Error::Launch(error) = error else { return Failure::Final };
        match &*error.cause {
            _ if error.is_cancelled() => Failure::Final,
            LaunchCause::NoSubnet { .. } => Failure::Full,
            LaunchCause::Engine(EngineError::NotReady { .. }) => Failure::Overloaded,
            LaunchCause::Engine(EngineError::Exec(error)) | LaunchCause::Exec(error) => of_command(error),
            // A protection that is missing, or that could not be probed in time, which the text tells apart.
            cause => of_text(&chain(cause)),
        }
    }

    fn close(&self, bottle: Bottle) -> Result<(), bottle::Error> {
        bottle.close().map(drop).map_err(Into::into)
    }
}

/// Bottles on a cluster, each with the inputs of its plan.
impl Launcher<(BottlePlan, KubeInputs)> for KubeBottles {
    type Bottle = KubeBottle;
    type Error = KubeError;

    fn launch(&self, (plan, inputs): &(BottlePlan, KubeInputs)) -> Result<KubeBottle, KubeError> {
        Self::launch(self, plan.clone(), inputs)
    }

    fn failure(&self, error: &KubeError) -> Failure {
        match error {
            KubeError::Late { .. } if of_text(&error.to_string()) == Failure::Full => Failure::Full,
            KubeError::Late { .. } => Failure::Overloaded,
            KubeError::Exec(error) | KubeError::Image(EngineError::Exec(error)) => of_command(error),
            other => of_text(&chain(other)),
        }
    }

    fn close(&self, bottle: KubeBottle) -> Result<(), KubeError> {
        bottle.close()
    }
}

/// Output of engines, API servers and schedulers when there is no room for another bottle.
const FULL: [&str; 7] = [
    "all predefined address pools have been fully subnetted",
    "could not find an available, non-overlapping",
    "exceeded quota",
    "nodes are available:",
    "no space left on device",
    "OutOfpods",
    "OutOfmemory",
];

/// Output of the same when they have too much to do.
const OVERLOADED: [&str; 13] = [
    "i/o timeout",
    "context deadline exceeded",
    "Client.Timeout exceeded",
    "TLS handshake timeout",
    "etcdserver: request timed out",
    "etcdserver: leader changed",
    "etcdserver: too many requests",
    "Too Many Requests",
    "the server is currently unable to handle the request",
    "connection refused",
    "connection reset by peer",
    "resource temporarily unavailable",
    "cannot allocate memory",
];

fn of_command(error: &ExecError) -> Failure {
    match error {
        // A process that cannot be started is one for which the machine has no room.
        ExecError::TimedOut { .. } | ExecError::Spawn { .. } => Failure::Overloaded,
        other => of_text(&chain(other)),
    }
}

fn of_text(text: &str) -> Failure {
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    match () {
        () if has(&FULL) => Failure::Full,
        () if has(&OVERLOADED) || text.contains("stopped, since it did not end within") => Failure::Overloaded,
        () => Failure::Final,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bottle::exec::{ExitStatus, RecordingBackend};
    use bottle_kube::{Kubectl, ReadyImages};

    use super::*;

    fn failed(stderr: &str) -> ExecError {
        ExecError::Failed { command: "kubectl apply".into(), status: ExitStatus::Code(1), stderr: stderr.into() }
    }

    #[test]
    fn errors_of_a_cluster_have_a_meaning() {
        let cluster = KubeBottles::new(Kubectl::new(Arc::new(RecordingBackend::new())), Arc::new(ReadyImages));
        let late =
            |state: &str| KubeError::Late { pods: vec![format!("`agent` ({state})")], within: Duration::from_secs(1) };
        let cases = [
            (
                failed("Error from server (Forbidden): pods \"agent\" is forbidden: exceeded quota: small, requested: pods=1").into(),
                Failure::Full,
            ),
            (late("0/3 nodes are available: 3 Too many pods."), Failure::Full),
            (late("its gate waits"), Failure::Overloaded),
            (failed("Error from server: etcdserver: request timed out").into(), Failure::Overloaded),
            (failed("The connection to the server 192.0.2.1:6443 was refused: connection refused").into(), Failure::Overloaded),
            (
                ExecError::TimedOut { command: "kubectl".into(), limit: Duration::from_secs(60), stderr: String::new() }.into(),
                Failure::Overloaded,
            ),
            (failed("error: You must be logged in to the server (Unauthorized)").into(), Failure::Final),
            (
                KubeError::NotEnforced { pod: "agent".into(), detail: "egress:20009 is reachable".into() },
                Failure::Final,
            ),
            (KubeError::Taken { namespace: "a".into(), owner: "b".into() }, Failure::Final),
        ];
        for (error, meaning) in cases {
            let error: KubeError = error;
            assert_eq!(Launcher::failure(&cluster, &error), meaning, "{error}");
        }
    }

    #[test]
    fn errors_of_an_engine_have_a_meaning() {
        let cases = [
            ("Error response from daemon: all predefined address pools have been fully subnetted", Failure::Full),
            ("dial unix docker.sock: connect: resource temporarily unavailable", Failure::Overloaded),
            ("Error response from daemon: No such image: a:1", Failure::Final),
        ];
        for (text, meaning) in cases {
            assert_eq!(of_command(&failed(text)), meaning, "{text}");
        }
    }
}
