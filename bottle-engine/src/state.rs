//! The state of a container.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The method for copying files into and out of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyMethod {
    /// The engine copies. It sees the container's files on the host and needs nothing in the image.
    #[default]
    Engine,
    /// A `tar` in the container copies. This is for runtimes that hide the files from the host, as gVisor does with its
    /// overlay in memory: the engine's own copy succeeds, but the container does not see it.
    ///
    /// Files belong to the user that runs `tar`, and only go where that user may write. In a container without
    /// capabilities nobody can change the owner of a file, not even root.
    Tar,
}

/// State of a container, and how it was created. `Display` completes the sentence "it …".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `exited`, `dead`.
    pub status: String,
    /// `starting`, `healthy` or `unhealthy`. `None` if there is no health check.
    pub health: Option<String>,
    /// Exit status.
    pub exit_code: i64,
    /// True if its main process was killed because the container used up its memory.
    pub oom_killed: bool,
    /// Number of times that the engine has restarted it.
    pub restarts: u64,
    /// Time of its last start. `None` if it was never started, or the engine does not tell.
    pub started: Option<SystemTime>,
    /// Reference of its image, as it was given.
    pub image: String,
    /// Id of its image, such as `sha256:…`, which says what the reference was resolved to.
    pub image_id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Default user of its processes. Empty for root.
    pub user: String,
    /// Default working directory of its processes. Empty for `/`.
    pub workdir: String,
    /// Runtime, such as `runc` or `runsc`.
    pub runtime: String,
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.as_str(), self.health.as_deref()) {
            ("exited" | "dead", _) => write!(f, "exited with status {}", self.exit_code)?,
            ("created", _) => write!(f, "was never started")?,
            (status, Some(health)) => write!(f, "is {status}, {health}")?,
            (status, None) => write!(f, "is {status}")?,
        }
        if self.oom_killed && self.status != "running" {
            f.write_str(" (killed: out of memory)")?;
        }
        match self.restarts {
            0 => Ok(()),
            1 => f.write_str(", restarted once"),
            times => write!(f, ", restarted {times} times"),
        }
    }
}

impl ContainerState {
    /// Reads the engine's description of a container.
    pub(crate) fn read(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (state, config) = (&value["State"], &value["Config"]);
        let labels = config["Labels"].as_object().into_iter().flatten();
        // Podman runs a check without an interval only when it is asked to, and says nothing of use otherwise.
        let is_asked =
            value.get("OCIRuntime").is_some() && config["Healthcheck"]["Interval"].as_u64().is_none_or(|it| it == 0);
        let health = state["Health"]["Status"].as_str().filter(|health| !matches!(*health, "" | "none") && !is_asked);
        Self {
            status: text(&state["Status"]),
            health: health.map(str::to_owned),
            exit_code: state["ExitCode"].as_i64().unwrap_or_default(),
            oom_killed: state["OOMKilled"].as_bool().unwrap_or_default(),
            restarts: value["RestartCount"].as_u64().unwrap_or_default(),
            started: start_time(&state["StartedAt"]),
            image: text(&config["Image"]),
            image_id: text(&value["Image"]),
            labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
            user: text(&config["User"]),
            workdir: text(&config["WorkingDir"]),
            runtime: text(&value["HostConfig"]["Runtime"]),
        }
    }

    /// Returns true if it runs and, if it has a health check, is healthy.
    pub fn is_ready(&self) -> bool {
        self.status == "running" && self.health.as_deref().is_none_or(|health| health == "healthy")
    }

    /// Returns the method for copying files into and out of it.
    pub fn copy_method(&self) -> CopyMethod {
        if self.runtime.contains("runsc") { CopyMethod::Tar } else { CopyMethod::Engine }
    }
}

/// Parses the time of a start. The engines write the year 1 for a container that was never started.
fn start_time(value: &Value) -> Option<SystemTime> {
    let time = SystemTime::from(OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?);
    (time > UNIX_EPOCH).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_podman_does_not_run_by_itself_says_nothing() {
        let state = |interval: u64| {
            let check = serde_json::json!({"Test": ["CMD", "true"], "Interval": interval});
            let state = serde_json::json!({"Status": "running", "Health": {"Status": "starting"}});
            ContainerState::read(
                &serde_json::json!({"OCIRuntime": "crun", "State": state, "Config": {"Healthcheck": check}}),
            )
        };
        assert!(state(0).is_ready() && !state(1_000_000_000).is_ready());
    }

    #[test]
    fn start_times_of_docker_and_podman_can_be_compared() {
        let time = |text: &str| start_time(&text.into());
        let docker = time("2026-03-01T12:00:00.123456789Z").unwrap();
        let podman = time("2026-03-01T13:00:00.123456788+01:00").unwrap();
        assert!(podman < docker);
        assert_eq!((time("0001-01-01T00:00:00Z"), time("soon"), start_time(&Value::Null)), (None, None, None));
    }
}
