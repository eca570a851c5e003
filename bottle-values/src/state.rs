//! Where a bottle keeps its files on the host. Paths only: nothing here touches the file system.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::name::{Service, Slug};

/// The directory that holds every bottle's state, mode 0700.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRoot(PathBuf);

impl StateRoot {
    /// The root at a given absolute path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The default place: `$CLAUDE_BOTTLE_STATE`, else `$XDG_STATE_HOME/claude-bottle`, else
    /// `<home>/.local/state/claude-bottle`. An empty value counts as unset, and a relative `$XDG_STATE_HOME` is ignored
    /// as the XDG Base Directory specification asks.
    pub fn from_host(chosen: Option<&Path>, xdg_state_home: Option<&Path>, home: &Path) -> Self {
        let set = |path: Option<&Path>| path.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
        if let Some(path) = set(chosen) {
            return Self(path);
        }
        let base = set(xdg_state_home).filter(|path| path.is_absolute()).unwrap_or_else(|| home.join(".local/state"));
        Self(base.join("claude-bottle"))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The state of one bottle.
    pub fn bottle(&self, slug: &Slug) -> StateLayout {
        StateLayout { dir: self.0.join(slug.as_str()) }
    }

    /// Where the embedded build context `name` with this content hash is written.
    pub fn image_context(&self, name: &str, content_hash: &str) -> PathBuf {
        self.0.join("images").join(name).join(content_hash)
    }
}

/// The files of one bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLayout {
    dir: PathBuf,
}

impl StateLayout {
    /// `<root>/<slug>/`, mode 0700.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The journal: what was made, and so what must be undone.
    pub fn metadata(&self) -> PathBuf {
        self.dir.join("metadata.json")
    }

    /// The plan in effect, which holds no secret, mode 0600; it stays after teardown.
    pub fn plan(&self) -> PathBuf {
        self.dir.join("plan.json")
    }

    /// Held by the process that owns the bottle.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The rendered document, mode 0644.
    pub fn compose_file(&self) -> PathBuf {
        self.dir.join("docker-compose.yml")
    }

    /// What the services printed, written at teardown, mode 0644.
    pub fn compose_log(&self) -> PathBuf {
        self.dir.join("compose.log")
    }

    /// The directory of a service's own files, mode 0700.
    pub fn service_dir(&self, service: Service) -> PathBuf {
        self.dir.join(service.as_str())
    }

    /// Pipelock's configuration.
    pub fn pipelock_config(&self) -> PathBuf {
        self.service_dir(Service::Pipelock).join("pipelock.yaml")
    }

    /// Egress's routes.
    pub fn egress_routes(&self) -> PathBuf {
        self.service_dir(Service::Egress).join("routes.yaml")
    }

    /// Where proposals arrive; the one directory that a sidecar may write.
    pub fn supervise_queue(&self) -> PathBuf {
        self.service_dir(Service::Supervise).join("queue")
    }

    /// Where a person's decisions are put; no container may write it.
    pub fn supervise_decisions(&self) -> PathBuf {
        self.service_dir(Service::Supervise).join("decisions")
    }

    /// What the bottle may do, for the agent to read.
    pub fn current_config(&self) -> PathBuf {
        self.service_dir(Service::Agent).join("current-config")
    }
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
