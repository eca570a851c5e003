//! A command for a running container.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::{EnvValue, Stdin};

/// A command to be run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Who runs it; the container's own user if there is none.
    pub user: Option<String>,
    /// Where; the container's own directory if there is none.
    pub workdir: Option<String>,
    /// What is added to its environment. Secret values are named on the command line only.
    pub env: BTreeMap<String, EnvValue>,
    /// What it reads.
    pub stdin: Stdin,
    /// Time limit. When it is reached, the command and what it started in the container are ended.
    pub timeout: Option<Duration>,
}

/// A program and its arguments, as in `bottle.exec(["git", "status"])`.
impl<S: Into<String>, const N: usize> From<[S; N]> for Exec {
    fn from(argv: [S; N]) -> Self {
        Self::new(argv)
    }
}

impl From<Vec<String>> for Exec {
    fn from(argv: Vec<String>) -> Self {
        Self::new(argv)
    }
}

impl From<&[&str]> for Exec {
    fn from(argv: &[&str]) -> Self {
        Self::new(argv.iter().copied())
    }
}

impl Exec {
    /// A command as the container's own user, with nothing to read.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets who runs it.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets where it runs.
    #[must_use]
    pub fn with_workdir(mut self, workdir: impl Into<String>) -> Self {
        self.workdir = Some(workdir.into());
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<EnvValue>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets what it reads.
    #[must_use]
    pub fn with_stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
