//! A typed client of `kubectl`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bottle_exec::{Backend, Child, Command, Control, Output, Stdin, TerminalSize};
use bottle_kube_render::object::Object;
use serde_json::Value;

use crate::error::KubeError;

/// Time limit of a request to the API server.
const REQUEST: Duration = Duration::from_secs(60);

/// The manager of the fields that a bottle's objects have.
const MANAGER: &str = "bottle";

/// A client of a cluster. Its commands run `kubectl` on a [`Backend`].
///
/// ```
/// use std::sync::Arc;
/// use bottle_exec::{Answer, Control, Matcher, RecordingBackend};
/// use bottle_kube::Kubectl;
/// let version = r#"{"serverVersion": {"gitVersion": "v1.35.4"}}"#;
/// let backend = Arc::new(RecordingBackend::new().with_answer(Matcher::words(["version"]), Answer::stdout(version)));
/// let cluster = Kubectl::new(backend.clone()).with_context("staging");
/// assert_eq!(cluster.server_version()?, "v1.35.4");
/// assert_eq!(backend.lines(), ["kubectl --context staging version --output json"]);
/// # Ok::<(), bottle_kube::KubeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Kubectl {
    backend: Arc<dyn Backend>,
    control: Control,
    program: OsString,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl Kubectl {
    /// Returns a client that uses kubectl's own configuration and current context.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, control: Control::default(), program: "kubectl".into(), kubeconfig: None, context: None }
    }

    /// Sets the program. Default: `kubectl`.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Sets the configuration file. Default: kubectl's own.
    #[must_use]
    pub fn with_kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// Sets the context of the configuration. Default: the current one.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Sets the control of the commands.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// Returns the control of the commands.
    pub const fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Returns the version of the cluster's API server.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub fn server_version(&self) -> Result<String, KubeError> {
        let version = self.json(&self.command(["version", "--output", "json"]))?;
        Ok(version["serverVersion"]["gitVersion"].as_str().unwrap_or_default().to_owned())
    }

    /// Creates objects or changes them to what is given, by server-side apply. They go through standard input.
    ///
    /// # Errors
    ///
    /// Returns an error if the API server refuses one.
    pub fn apply(&self, objects: &[Object]) -> Result<(), KubeError> {
        self.apply_with(objects, &[])
    }

    /// Has the API server check objects as if they were applied, and changes nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the API server would refuse one.
    pub fn check(&self, objects: &[Object]) -> Result<(), KubeError> {
        self.apply_with(objects, &["--dry-run=server"])
    }

    fn apply_with(&self, objects: &[Object], options: &[&str]) -> Result<(), KubeError> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let command = self
            .command(["apply", "--server-side", "--force-conflicts", "--field-manager", MANAGER, "--filename", "-"])
            .with_args(options)
            .with_stdin(Stdin::Bytes(list.to_string().into_bytes()));
        self.run(&command).map(drop)
    }

    /// Creates objects, and fails if one exists.
    ///
    /// # Errors
    ///
    /// Returns an error if one exists, or the API server refuses one.
    pub fn create(&self, object: &Object) -> Result<(), KubeError> {
        let json = serde_json::to_vec(object).unwrap_or_default();
        let command =
            self.command(["create", "--field-manager", MANAGER, "--filename", "-"]).with_stdin(Stdin::Bytes(json));
        self.run(&command).map(drop)
    }

    /// Returns an object or a list as JSON. `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the API server does not answer.
    pub fn get<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Option<Value>, KubeError> {
        let command = self.command(["get", "--ignore-not-found", "--output", "json"]).with_args(args);
        let output = self.run(&command)?;
        if output.stdout.bytes().iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        parse(&command, &output).map(Some)
    }

    /// Starts to watch the Pods of a namespace and returns the running command, which prints one JSON document for each
    /// change.
    ///
    /// # Errors
    ///
    /// Returns an error if the command cannot be started.
    pub fn watch_pods(&self, namespace: &str) -> Result<Child, KubeError> {
        let command = self.bare([
            "get",
            "pods",
            "--namespace",
            namespace,
            "--watch",
            "--output-watch-events",
            "--output",
            "json",
        ]);
        Ok(self.backend.spawn(&command, &self.control)?)
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    ///
    /// Returns an error if the object does not exist or the API server refuses the change.
    pub fn patch(&self, namespace: &str, object: &str, patch: &Value) -> Result<(), KubeError> {
        let command = self
            .command(["patch", object, "--namespace", namespace, "--type", "merge", "--field-manager", MANAGER])
            .with_args(["--patch-file", "/dev/stdin"])
            .with_stdin(Stdin::Bytes(patch.to_string().into_bytes()));
        self.run(&command).map(drop)
    }

    /// Changes an object outside namespaces by a merge patch.
    ///
    /// # Errors
    ///
    /// As [`patch`](Self::patch).
    pub fn patch_cluster(&self, object: &str, patch: &Value) -> Result<(), KubeError> {
        // The API server ignores the namespace of such an object.
        self.patch("default", object, patch)
    }

    /// Deletes an object, if it exists. With `wait`, returns when it is gone.
    ///
    /// # Errors
    ///
    /// Returns an error if the API server refuses, or the object is not gone within two minutes.
    pub fn delete<'a>(&self, args: impl IntoIterator<Item = &'a str>, wait: bool) -> Result<(), KubeError> {
        let wait = format!("--wait={wait}");
        let command = self.bare(["delete", "--ignore-not-found", &wait]).with_args(args);
        self.run(&command.with_timeout(2 * REQUEST)).map(drop)
    }

    /// Returns the output of a container so far.
    ///
    /// # Errors
    ///
    /// Returns an error if the container does not exist or was never started.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<Output, KubeError> {
        self.run(&self.command(["logs", "--namespace", namespace, pod, "--container", container]))
    }

    /// Returns lines of a container's output, each with its time and a space before it.
    pub(crate) fn log_lines(&self, target: &Target<'_>, options: &[&str]) -> Result<String, KubeError> {
        let args =
            ["logs", "--timestamps", "--namespace", target.namespace, target.pod, "--container", target.container];
        Ok(self.run(&self.command(args).with_args(options))?.stdout_text())
    }

    /// Runs a command in a container to its end and returns its output and exit status.
    ///
    /// # Errors
    ///
    /// Returns an error if `kubectl` cannot be run, or the time is over. A container that does not run is a failure status.
    pub fn exec(
        &self,
        target: &Target<'_>,
        argv: &[String],
        stdin: Stdin,
        limit: Duration,
    ) -> Result<Output, KubeError> {
        let is_empty = stdin == Stdin::Null;
        let command = self.exec_command(target, argv, !is_empty, false).with_stdin(stdin).with_timeout(limit);
        Ok(self.backend.run(&command, &self.control)?)
    }

    /// Starts a command in a container and returns it while it runs.
    ///
    /// # Errors
    ///
    /// Returns an error if `kubectl` cannot be started.
    pub fn spawn(
        &self,
        target: &Target<'_>,
        argv: &[String],
        terminal: Option<TerminalSize>,
    ) -> Result<Child, KubeError> {
        let mut command = self.exec_command(target, argv, true, terminal.is_some());
        if let Some(size) = terminal {
            command = command.with_terminal(size);
        }
        Ok(self.backend.spawn(&command, &self.control)?)
    }

    fn exec_command(&self, target: &Target<'_>, argv: &[String], input: bool, tty: bool) -> Command {
        let command = self.bare(["exec", "--namespace", target.namespace, target.pod, "--container", target.container]);
        let command = if input { command.with_arg("--stdin") } else { command };
        let command = if tty { command.with_arg("--tty") } else { command };
        command.with_arg("--").with_args(argv)
    }

    /// Returns a command with the time limit of a request.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.bare(args).with_timeout(REQUEST)
    }

    fn bare<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(path) = &self.kubeconfig {
            command = command.with_arg("--kubeconfig").with_arg(path);
        }
        if let Some(context) = &self.context {
            command = command.with_args(["--context", context]);
        }
        command.with_args(args)
    }

    fn run(&self, command: &Command) -> Result<Output, KubeError> {
        Ok(self.backend.run(command, &self.control)?.success(command)?)
    }

    pub(crate) fn json(&self, command: &Command) -> Result<Value, KubeError> {
        parse(command, &self.run(command)?)
    }
}

/// A container of a Pod.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The Pod.
    pub pod: &'a str,
    /// The container.
    pub container: &'a str,
}

fn parse(command: &Command, output: &Output) -> Result<Value, KubeError> {
    serde_json::from_slice(&output.stdout.bytes())
        .map_err(|error| KubeError::Answer { command: command.brief(), reason: error.to_string() })
}
