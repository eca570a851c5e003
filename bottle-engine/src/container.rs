//! Commands in a container, and copies into and out of it.

use std::path::Path;
use std::time::{Duration, Instant};

use bottle_exec::{Child, Command, Output, OutputPolicy, Stdin};

use crate::arrival::{Listing, unreadable};
use crate::client::{Engine, pass_env, seconds};
use crate::error::EngineError;
use crate::exec::Exec;
use crate::kill::Mark;
use crate::object::ObjectKind;
use crate::state::{ContainerState, CopyMethod};

impl Engine {
    /// Runs a command in a container and captures its output, whatever its status.
    ///
    /// After a timeout or a cancellation, the command and everything that it started are also stopped in the container:
    /// by SIGTERM, and by SIGKILL half a second later. They are found by a random number that the command gets and its
    /// children inherit, in the variable `BOTTLE_EXEC` and as the limit of file locks. A shell sets the limit before it
    /// becomes the command, so the container needs `sh`. Some shells drop variables whose names they cannot assign.
    ///
    /// # Errors
    ///
    /// Returns an error when the command is interrupted, [`EngineError::StillRunning`] when one of its processes
    /// survives, and [`EngineError::NotRunning`] when the container does not run. A missing program is no error but an
    /// exit status (126 or 127), because the engines report it that way. So is an unknown working directory (126). Both have a
    /// message on standard error. [`EngineError::NoCommand`] for a command without words.
    pub fn exec(&self, container: &str, exec: &Exec) -> Result<Output, EngineError> {
        self.run_exec(container, exec, false, |command| command)
    }

    /// Runs a command that ends by itself, in a container that may have no shell. After a timeout or a cancellation it is
    /// not stopped in the container.
    ///
    /// # Errors
    ///
    /// Returns an error when the command is interrupted. A container that does not run is an exit status.
    pub fn exec_bare(&self, container: &str, exec: &Exec) -> Result<Output, EngineError> {
        self.run_any(&self.exec_command(container, exec, None, false)?)
    }

    /// Like [`exec`](Engine::exec), but passes the output to the control's sink as it arrives.
    ///
    /// # Errors
    ///
    /// Same as [`exec`](Engine::exec).
    pub fn exec_streaming(&self, container: &str, exec: &Exec) -> Result<Output, EngineError> {
        self.run_exec(container, exec, false, |command| command.with_output(OutputPolicy::Stream))
    }

    /// Runs a command in a container on the caller's own input and output, with a terminal in the container if `tty` is
    /// true. `tty` must be true exactly if both ends of the caller are terminals.
    ///
    /// # Errors
    ///
    /// Same as [`exec`](Engine::exec).
    pub fn exec_interactive(&self, container: &str, exec: &Exec, tty: bool) -> Result<Output, EngineError> {
        let exec = Exec { stdin: Stdin::Inherit, ..exec.clone() };
        self.run_exec(container, &exec, tty, Command::with_interactive)
    }

    fn run_exec(
        &self,
        container: &str,
        exec: &Exec,
        tty: bool,
        shape: impl FnOnce(Command) -> Command,
    ) -> Result<Output, EngineError> {
        let mark = Mark::new();
        let command = shape(self.exec_command(container, exec, Some(&mark), tty)?);
        self.attend(container, exec.user.as_deref(), &mark, &command)
    }

    pub(crate) fn exec_command(
        &self,
        container: &str,
        exec: &Exec,
        mark: Option<&Mark>,
        tty: bool,
    ) -> Result<Command, EngineError> {
        if exec.argv.is_empty() {
            return Err(EngineError::NoCommand { container: container.to_owned() });
        }
        let mut command = Command::new(&self.info.program).with_arg("exec");
        if exec.stdin != Stdin::Null {
            command = command.with_arg("--interactive");
        }
        if tty {
            command = command.with_arg("--tty");
        }
        let workdir = exec.workdir.as_deref();
        // The shell of a marked command enters the directory. The container's own one may be gone; `/` exists.
        let of_client = workdir.map(|workdir| if mark.is_some() { "/" } else { workdir });
        for (option, value) in [("--user", exec.user.as_deref()), ("--workdir", of_client)] {
            if let Some(value) = value {
                command = command.with_args([option, value]);
            }
        }
        if let Some(mark) = mark {
            command = command.with_args(["--env", mark.as_entry()]);
        }
        let prologue = mark.map_or_else(Vec::new, |_| Mark::prologue(workdir));
        let mut command = pass_env(command, "--env", exec.env.clone())?
            .with_arg(container)
            .with_args(prologue)
            .with_args(&exec.argv)
            .with_stdin(exec.stdin.clone())
            .with_label(format!("run {} in {container}", exec.argv[0]));
        if let Some(timeout) = exec.timeout {
            command = command.with_timeout(timeout);
        }
        Ok(command)
    }

    /// Unpacks a tar stream in an existing directory of a running container. Modes are taken from the stream. With
    /// [`CopyMethod::Engine`] so are the owners. With [`CopyMethod::Tar`] everything belongs to `user` (a name, or
    /// `uid:gid`; default: root), who unpacks the stream.
    ///
    /// One exec by `user` then checks that every name exists and that every file has its size. If the user cannot enter
    /// the directory, or the container has no shell, the engine copies one small file back instead. A stream that
    /// cannot be read twice ([`Stdin::Inherit`]) is not checked.
    ///
    /// # Errors
    ///
    /// Returns an error when the directory does not exist or cannot be written, and [`EngineError::NotCopied`] when the
    /// engine reports success and something is missing.
    pub fn cp_in(
        &self,
        container: &str,
        directory: &str,
        tar: Stdin,
        method: CopyMethod,
        user: Option<&str>,
    ) -> Result<(), EngineError> {
        let listing = Listing::read(&tar).map_err(unreadable(container, directory))?;
        let command = match method {
            CopyMethod::Engine => self.change(self.copy_words()).with_args(["-", &format!("{container}:{directory}")]),
            CopyMethod::Tar => {
                self.change(["exec", "--interactive", "--user", user.unwrap_or("0"), container]).with_args([
                    "tar",
                    "--extract",
                    "--file=-",
                    "--no-same-owner",
                    "--same-permissions",
                    &format!("--directory={directory}"),
                ])
            }
        };
        let command = command.with_stdin(tar).with_label(format!("copy files into {container}:{directory}"));
        self.run(&command)?;
        self.check_arrival(container, directory, &listing, method, user)
    }

    /// Unpacks a tar stream in an existing directory of a container that was created and does not run. Modes and owners
    /// are taken from the stream. The engine then copies the last small file of the stream back, as a check.
    ///
    /// # Errors
    ///
    /// Same as [`cp_in`](Engine::cp_in).
    pub fn cp_into_created(&self, container: &str, directory: &str, tar: Stdin) -> Result<(), EngineError> {
        let listing = Listing::read(&tar).map_err(unreadable(container, directory))?;
        let command = self.change(self.copy_words()).with_args(["-", &format!("{container}:{directory}")]);
        self.run(&command.with_stdin(tar).with_label(format!("copy files into {container}:{directory}")))?;
        self.check_witness(container, directory, &listing)
    }

    /// Writes a file or a directory of a container to a tar file, mode 0600, under its own last name. With
    /// [`CopyMethod::Tar`], `user` (default: root) reads it.
    ///
    /// # Errors
    ///
    /// Returns an error when the path does not exist, or the file cannot be written.
    pub fn cp_out(
        &self,
        container: &str,
        path: &str,
        tar: &Path,
        method: CopyMethod,
        user: Option<&str>,
    ) -> Result<(), EngineError> {
        let command = self
            .cp_out_command(container, path, method, user)
            .with_stdout(OutputPolicy::File { path: tar.to_owned(), mode: 0o600 });
        self.run(&command).map(drop)
    }

    /// Returns a small file or directory of a container as a tar of at most [`Command::CAPTURE_LIMIT`] bytes.
    ///
    /// # Errors
    ///
    /// Returns an error when the path does not exist, or the tar is larger.
    pub fn cp_out_small(&self, container: &str, path: &str) -> Result<Vec<u8>, EngineError> {
        let command = self.cp_out_command(container, path, CopyMethod::Engine, None);
        let output = self.run(&command)?;
        if output.stdout.is_truncated() {
            let reason = format!("it has more than {} bytes", Command::CAPTURE_LIMIT);
            return Err(EngineError::answer(&command, &reason, ""));
        }
        Ok(output.stdout.bytes())
    }

    /// Like [`cp_out`](Engine::cp_out), but returns the engine's client while it runs. Its standard output is the tar stream,
    /// which the caller bounds. Only with the client's success is it complete.
    ///
    /// # Errors
    ///
    /// Returns an error when the client cannot be started, or the backend cannot start a live command.
    pub fn cp_out_live(
        &self,
        container: &str,
        path: &str,
        method: CopyMethod,
        user: Option<&str>,
    ) -> Result<Child, EngineError> {
        let mut child = self.backend.spawn(&self.cp_out_command(container, path, method, user), &self.control)?;
        child.stdin = None;
        Ok(child)
    }

    fn cp_out_command(&self, container: &str, path: &str, method: CopyMethod, user: Option<&str>) -> Command {
        let command = match method {
            CopyMethod::Engine => self.change(self.copy_words()).with_args([&format!("{container}:{path}"), "-"]),
            CopyMethod::Tar => {
                let trimmed = path.trim_end_matches('/');
                let (parent, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
                let parent = if parent.is_empty() { "/" } else { parent };
                let directory = format!("--directory={parent}");
                self.change(["exec", "--user", user.unwrap_or("0"), container]).with_args([
                    "tar",
                    "--create",
                    "--file=-",
                    &directory,
                    "--",
                    if name.is_empty() { "." } else { name },
                ])
            }
        };
        command.with_label(format!("copy {container}:{path} out"))
    }

    /// Returns the words of the engine's own copy. They turn off Podman's archive mode, which would give every file to
    /// the container's user.
    pub(crate) fn copy_words(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once("cp").chain(self.is_podman().then_some("--archive=false"))
    }

    /// Sends a signal to a container's first process. The signal is a name such as `HUP`.
    ///
    /// # Errors
    ///
    /// Returns an error when the container does not exist or does not run.
    pub fn kill(&self, container: &str, signal: &str) -> Result<(), EngineError> {
        let command = self.change(["kill", "--signal", signal, container]);
        self.run(&command.with_label(format!("send {signal} to {container}"))).map(drop)
    }

    /// Returns the size in bytes of the files that a container has written to its own layer. `None` if it does not exist, or
    /// the engine does not tell. The engine adds up the sizes of the files, so it takes longer the more there are.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried, or takes longer than two minutes.
    pub fn written_bytes(&self, container: &str) -> Result<Option<u64>, EngineError> {
        let words = ["container", "inspect", "--size", "--format", "{{.SizeRw}}", container];
        let output = self.run_if_there(&self.query(words).with_timeout(Duration::from_secs(120)))?;
        Ok(output.and_then(|output| output.stdout.text().trim().parse().ok()))
    }

    /// Stops containers at the same time: each gets SIGTERM, and SIGKILL after the grace, in whole seconds.
    ///
    /// # Errors
    ///
    /// Returns an error when one of the containers does not exist or cannot be stopped.
    pub fn stop<'a>(&self, containers: impl IntoIterator<Item = &'a str>, grace: Duration) -> Result<(), EngineError> {
        let containers: Vec<&str> = containers.into_iter().collect();
        if containers.is_empty() {
            return Ok(());
        }
        let command = self.change(["stop", "-t", &seconds(grace)]).with_args(&containers);
        let command = command.with_timeout(grace + self.limits.change).with_label("stop the services");
        self.run(&command).map(drop)
    }

    /// Suspends every process of a container.
    ///
    /// # Errors
    ///
    /// Returns an error when the container does not exist, does not run or is paused.
    pub fn pause(&self, container: &str) -> Result<(), EngineError> {
        self.run(&self.change(["pause", container]).with_label(format!("pause {container}"))).map(drop)
    }

    /// Resumes the processes of a paused container.
    ///
    /// # Errors
    ///
    /// Returns an error when the container does not exist or is not paused.
    pub fn unpause(&self, container: &str) -> Result<(), EngineError> {
        self.run(&self.change(["unpause", container]).with_label(format!("unpause {container}"))).map(drop)
    }

    /// Sets the restart policy of containers, such as `on-failure`.
    ///
    /// # Errors
    ///
    /// Returns an error when one of the containers does not exist, or the engine cannot change the policy.
    pub fn set_restart_policy<'a>(
        &self,
        containers: impl IntoIterator<Item = &'a str>,
        policy: &'a str,
    ) -> Result<(), EngineError> {
        let set = |containers: &[&str]| {
            let command = self.change(["update", "--restart", policy].iter().chain(containers).copied());
            self.run(&command.with_label("set the restart policy")).map(drop)
        };
        let containers: Vec<&str> = containers.into_iter().collect();
        // Podman changes one at a time.
        containers.chunks(if self.is_podman() { 1 } else { containers.len().max(1) }).try_for_each(set)
    }

    /// Returns the output of a container since a time, bounded, each line after its timestamp. The time is one of those
    /// timestamps, by the engine's clock; lines of that very time are included. Without a time: all output.
    ///
    /// # Errors
    ///
    /// Returns an error when the container does not exist, or its log driver keeps no logs that can be read back.
    pub fn logs_since(&self, container: &str, time: Option<&str>) -> Result<Output, EngineError> {
        let since = time.into_iter().flat_map(|time| ["--since", time]);
        let command = self.query(["logs", "--timestamps"].into_iter().chain(since).chain([container]));
        self.run(&command.with_label(format!("read the log of {container}")))
    }

    /// Returns the timestamp of the last line that a container printed. `None` if it printed nothing.
    ///
    /// # Errors
    ///
    /// Same as [`logs_since`](Engine::logs_since).
    pub fn last_log_time(&self, container: &str) -> Result<Option<String>, EngineError> {
        let command = self.query(["logs", "--timestamps", "--tail", "1", container]);
        let output = self.run(&command.with_label(format!("read the log of {container}")))?;
        let lines = [output.stdout.text(), output.stderr.text()];
        let times = lines.iter().flat_map(|text| text.lines()).filter_map(|line| line.split(' ').next());
        Ok(times.filter(|time| time.contains('T')).max().map(ToOwned::to_owned))
    }

    /// Returns the state of a container, or `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn container(&self, name: &str) -> Result<Option<ContainerState>, EngineError> {
        let Some(value) = self.inspect(ObjectKind::Container, name)? else { return Ok(None) };
        Ok(Some(ContainerState::read(&value)))
    }

    /// Waits until a container runs and, if it has a health check, is healthy.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotReady`] when the time is up, or at once when the container has ended or does not exist.
    pub fn wait_ready(&self, container: &str, within: Duration) -> Result<(), EngineError> {
        const PAUSE: Duration = Duration::from_millis(100);
        let until = Instant::now() + within;
        loop {
            let state = self.container(container)?;
            let not_ready = |state: String| EngineError::NotReady { container: container.to_owned(), state };
            match state {
                None => return Err(not_ready("there is no such container".into())),
                Some(state) if state.is_ready() => return Ok(()),
                Some(state) if matches!(state.status.as_str(), "exited" | "dead") => {
                    return Err(not_ready(format!("it ended with status {}", state.exit_code)));
                }
                Some(state) if Instant::now() >= until => {
                    let health = state.health.map_or_else(String::new, |health| format!(" and {health}"));
                    return Err(not_ready(format!("after {within:?} it is {}{health}", state.status)));
                }
                Some(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}
