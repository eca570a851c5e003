//! A command for a running container.

use std::collections::BTreeMap;
use std::time::Duration;

use bottle_exec::{EnvValue, Stdin};

/// A command to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// Program and arguments. An empty list is an error.
    pub argv: Vec<String>,
    /// User that runs the command. `None`: the container's own user.
    pub user: Option<String>,
    /// Working directory. `None`: the container's own directory.
    pub workdir: Option<String>,
    /// Additional environment variables. For secrets, only the name is on the command line.
    pub env: BTreeMap<String, EnvValue>,
    /// Standard input.
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
    /// Returns a command for the container's own user, with empty input.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn with_workdir(mut self, workdir: impl Into<String>) -> Self {
        self.workdir = Some(workdir.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<EnvValue>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn with_stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets the timeout. Default: none.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
