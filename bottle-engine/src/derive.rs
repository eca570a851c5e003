//! Short-lived containers: to create an image, or to query an image.

use std::collections::BTreeMap;

use bottle_exec::Output;

use crate::client::{Engine, pass_env};
use crate::error::EngineError;
use crate::exec::Exec;

impl Engine {
    /// Creates a container without a network and does not start it.
    ///
    /// # Errors
    ///
    /// Returns an error when the image does not exist or the name is taken.
    pub fn create_container(
        &self,
        name: &str,
        image: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let labels = labels.iter().flat_map(|(key, value)| ["--label".to_owned(), format!("{key}={value}")]);
        let command = self
            .change(["container", "create", "--name", name, "--network", "none"])
            .with_args(labels)
            .with_arg(image)
            .with_label(format!("make container {name}"))
            .with_uninterrupted();
        self.run(&command).map(drop)
    }

    /// Creates an image from a container's files. The image gets the container's labels.
    ///
    /// # Errors
    ///
    /// Returns an error when the container does not exist.
    pub fn commit_container(&self, name: &str, tag: &str) -> Result<(), EngineError> {
        let command = self
            .change(["container", "commit", name, tag])
            .with_label(format!("make image {tag}"))
            .with_uninterrupted();
        self.run(&command).map(drop)
    }

    /// Runs a command in a new container of an image, without a network. Returns its output, whatever its status, and
    /// removes the container.
    ///
    /// # Errors
    ///
    /// Returns an error when the command could not be run to its end.
    pub fn run_once(&self, image: &str, exec: &Exec) -> Result<Output, EngineError> {
        let (program, args) = exec.argv.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
        let command = self.change(["run", "--rm", "--network", "none", "--cap-drop", "ALL", "--entrypoint", program]);
        let command = pass_env(command, "--env", exec.env.clone())?
            .with_arg(image)
            .with_args(args)
            .with_stdin(exec.stdin.clone())
            .with_label(format!("run {program} in image {image}"))
            .with_uninterrupted();
        self.run_any(&command)
    }
}
