//! Paths of a bottle's files on the host. This module only builds paths and does not access the file system.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::name::{Service, Slug};

/// The directory that holds the state of every bottle, mode 0700.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRoot(PathBuf);

impl StateRoot {
    /// Creates a root at an absolute path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the default root: `$CLAUDE_BOTTLE_STATE`, else `$XDG_STATE_HOME/claude-bottle`, else
    /// `<home>/.local/state/claude-bottle`. An empty value counts as unset. A relative `$XDG_STATE_HOME` is ignored, as
    /// the XDG Base Directory specification requires.
    pub fn from_host(chosen: Option<&Path>, xdg_state_home: Option<&Path>, home: &Path) -> Self {
        let set = |path: Option<&Path>| path.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
        if let Some(path) = set(chosen) {
            return Self(path);
        }
        let base = set(xdg_state_home).filter(|path| path.is_absolute()).unwrap_or_else(|| home.join(".local/state"));
        Self(base.join("claude-bottle"))
    }

    /// Returns the directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the paths of one bottle's files.
    pub fn bottle(&self, slug: &Slug) -> StateLayout {
        StateLayout { dir: self.0.join(slug.as_str()) }
    }

    /// Returns the path of the lock that launches share while they use cached images. A prune holds it alone.
    pub fn images_lock(&self) -> PathBuf {
        self.0.join("images").join("lock")
    }

    /// Returns the path to which the embedded build context `name` with this content hash is written.
    pub fn image_context(&self, name: &str, content_hash: &str) -> PathBuf {
        self.0.join("images").join(name).join(content_hash)
    }
}

/// The paths of one bottle's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLayout {
    dir: PathBuf,
}

impl StateLayout {
    /// Returns the bottle's directory, `<root>/<slug>/`, mode 0700.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of the journal, which records what must be undone.
    pub fn metadata(&self) -> PathBuf {
        self.dir.join("metadata.json")
    }

    /// Returns the path of the plan in effect, mode 0600. The plan holds no secret, and the file stays after teardown.
    pub fn plan(&self) -> PathBuf {
        self.dir.join("plan.json")
    }

    /// Returns the path of the lock file. The process that owns the bottle holds the lock.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Returns the path of the rendered Compose document, mode 0644.
    pub fn compose_file(&self) -> PathBuf {
        self.dir.join("docker-compose.yml")
    }

    /// Returns the path of the services' output, written at teardown, mode 0644.
    pub fn compose_log(&self) -> PathBuf {
        self.dir.join("compose.log")
    }

    /// Returns the path of the launcher's events, one JSON object per line, mode 0600. The file stays after teardown.
    pub fn events(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    /// Returns the directory of a service's own files, mode 0700.
    pub fn service_dir(&self, service: Service) -> PathBuf {
        self.dir.join(service.as_str())
    }

    /// Returns the path of pipelock's configuration.
    pub fn pipelock_config(&self) -> PathBuf {
        self.service_dir(Service::Pipelock).join("pipelock.yaml")
    }

    /// Returns the path of egress's routes.
    pub fn egress_routes(&self) -> PathBuf {
        self.service_dir(Service::Egress).join("routes.yaml")
    }

    /// Returns the directory to which supervise writes proposals. It is the only directory that a sidecar may write to.
    pub fn supervise_queue(&self) -> PathBuf {
        self.service_dir(Service::Supervise).join("queue")
    }

    /// Returns the directory to which a person's decisions are written. No container may write to it.
    pub fn supervise_decisions(&self) -> PathBuf {
        self.service_dir(Service::Supervise).join("decisions")
    }

    /// Returns the directory that describes to the agent what the bottle may do.
    pub fn current_config(&self) -> PathBuf {
        self.service_dir(Service::Agent).join("current-config")
    }

    /// Returns the path that one of the bottle's files has in its store, on an engine that does not see this host's files.
    /// `None` for a file of somewhere else.
    pub fn stored(&self, file: &Path) -> Option<String> {
        Some(format!("{}/{}", Self::STORED, file.strip_prefix(&self.dir).ok()?.display()))
    }

    /// Directory of the store with everything that services only read.
    pub const STORED: &str = "files";

    /// Directory of the store to which supervise writes proposals.
    pub const STORED_QUEUE: &str = "supervise-queue";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_follows_the_first_variable_that_is_set() {
        let home = Path::new("/home/u");
        let root = |chosen: Option<&str>, xdg: Option<&str>| {
            StateRoot::from_host(chosen.map(Path::new), xdg.map(Path::new), home).path().to_owned()
        };
        assert_eq!(root(Some("/s"), Some("/x")), Path::new("/s"));
        assert_eq!(root(Some(""), Some("/x")), Path::new("/x/claude-bottle"));
        assert_eq!(root(None, Some("relative")), Path::new("/home/u/.local/state/claude-bottle"));
        assert_eq!(root(None, None), Path::new("/home/u/.local/state/claude-bottle"));
    }
}
