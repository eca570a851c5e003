//! The error of a platform.

use std::error::Error;
use std::fmt;

use bottle::EngineError;
use bottle::exec::{ExecError, chain};
use bottle::launch::LaunchCause;
use bottle_kube::KubeError;

/// An error of a platform. Its text and its causes are those of the platform's own error.
#[derive(Debug)]
pub struct PlatformError {
    error: Box<dyn Error + Send + Sync>,
    failure: Failure,
}

/// The meaning of an error for whoever wants to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The platform has too much to do. The same may succeed later.
    Overloaded,
    /// The platform has no room for another bottle until one ends.
    Full,
    /// Every further attempt would fail as well.
    Final,
}

impl PlatformError {
    /// Returns an error that no further attempt changes.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), failure: Failure::Final }
    }

    /// Sets the meaning.
    #[must_use]
    pub const fn with_failure(mut self, failure: Failure) -> Self {
        self.failure = failure;
        self
    }

    /// Returns the meaning.
    pub const fn failure(&self) -> Failure {
        self.failure
    }

    /// Returns the platform's own error, such as [`bottle::Error`] or [`KubeError`], if it is of this type.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        self.error.downcast_ref()
    }
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for PlatformError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl From<bottle::Error> for PlatformError {
    fn from(error: bottle::Error) -> Self {
        let failure = Failure::from(&error);
        Self::new(error).with_failure(failure)
    }
}

impl From<KubeError> for PlatformError {
    fn from(error: KubeError) -> Self {
        let failure = Failure::from(&error);
        Self::new(error).with_failure(failure)
    }
}

/// The meaning of an error of a launch.
impl From<&bottle::Error> for Failure {
    fn from(error: &bottle::Error) -> Self {
        let bottle::Error::Launch(error) = error else { return Self::Final };
        match &*error.cause {
            _ if error.is_cancelled() => Self::Final,
            LaunchCause::NoSubnet { .. } => Self::Full,
            LaunchCause::Engine(EngineError::NotReady { .. }) => Self::Overloaded,
            LaunchCause::Engine(EngineError::Exec(error)) | LaunchCause::Exec(error) => of_command(error),
            // A protection that is missing, or that could not be probed in time, which the text tells apart.
            cause => of_text(&chain(cause)),
        }
    }
}

/// The meaning of an error of a launch.
impl From<&KubeError> for Failure {
    fn from(error: &KubeError) -> Self {
        match error {
            KubeError::Late { .. } if of_text(&error.to_string()) == Self::Full => Self::Full,
            KubeError::Late { .. } => Self::Overloaded,
            KubeError::Exec(error) | KubeError::Image(EngineError::Exec(error)) => of_command(error),
            other => of_text(&chain(other)),
        }
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
    use std::time::Duration;

    use bottle::exec::ExitStatus;

    use super::*;

    fn failed(stderr: &str) -> ExecError {
        ExecError::Failed { command: "kubectl apply".into(), status: ExitStatus::Code(1), stderr: stderr.into() }
    }

    #[test]
    fn errors_of_a_cluster_have_a_meaning() {
        let late =
            |state: &str| KubeError::Late { pods: vec![format!("`agent` ({state})")], within: Duration::from_secs(1) };
        let cases: [(KubeError, Failure); 9] = [
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
            let error = PlatformError::from(error);
            assert_eq!(error.failure(), meaning, "{error}");
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

    #[test]
    fn text_and_causes_are_those_of_the_platform() {
        let own = bottle::Error::Host(std::io::Error::other("no home"));
        let (text, causes) = (own.to_string(), chain(&own));
        let error = PlatformError::from(own);
        assert_eq!((error.to_string(), chain(&error)), (text, causes));
        assert!(error.downcast_ref::<bottle::Error>().is_some() && error.downcast_ref::<KubeError>().is_none());
    }
}
