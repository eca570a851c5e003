//! The plan of a bottle on disk, and the posture that the bottle can read.

use std::io;
use std::path::Path;

use bottle_files::PrivateDir;
use bottle_plan::{BottlePlan, StateLayout};
use bottle_posture::Posture;
use serde::{Deserialize, Serialize};

use super::SuperviseError;

/// The content of `plan.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u8,
    /// Plan in effect.
    pub(super) plan: BottlePlan,
    /// Plan of the launch. Absent: the plan in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launched: Option<BottlePlan>,
    /// Plan for the next launch. Absent: the plan in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<BottlePlan>,
}

impl Record {
    pub(super) fn new(plan: BottlePlan) -> Self {
        Self { version: 1, plan, launched: None, next: None }
    }

    pub(super) fn read(layout: &StateLayout) -> Result<Self, SuperviseError> {
        let path = layout.plan();
        let dir = PrivateDir::open_with_parent(layout.dir()).map_err(failed("open", layout.dir()))?;
        let text = dir.read("plan.json").map_err(failed("read", &path))?;
        let malformed = |reason: String| SuperviseError::Malformed { path: path.clone(), reason };
        let record: Self = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        match record.version {
            1 => Ok(record),
            other => Err(malformed(format!("its version is {other}; accepted: 1"))),
        }
    }

    /// Returns the plan of the launch.
    pub(super) fn launched(&self) -> &BottlePlan {
        self.launched.as_ref().unwrap_or(&self.plan)
    }

    /// Returns the plan for the next launch.
    pub(super) fn next(&self) -> &BottlePlan {
        self.next.as_ref().unwrap_or(&self.plan)
    }

    /// Replaces the plan in effect and the plan for the next launch.
    pub(super) fn with(mut self, plan: BottlePlan, next: BottlePlan) -> Self {
        let launched = self.launched.unwrap_or(self.plan);
        self.launched = (launched != plan).then_some(launched);
        self.next = (next != plan).then_some(next);
        self.plan = plan;
        self
    }

    /// Writes the record. With `supervise` in the plan, also writes the posture, which the agent can read.
    pub(super) fn write(&self, layout: &StateLayout) -> Result<(), SuperviseError> {
        let write = |path: &Path, text: &str, mode| {
            bottle_files::write(path, text.as_bytes(), mode).map_err(failed("write", path))
        };
        write(&layout.plan(), &json(self, &layout.plan())?, 0o600)?;
        if self.plan.supervise.is_some() {
            let posture = Posture::of(&self.plan);
            let dir = layout.current_config();
            let data = dir.join("posture.json");
            write(&data, &json(&posture, &data)?, 0o644)?;
            write(&dir.join("posture.txt"), &posture.to_string(), 0o644)?;
        }
        bottle_files::sync_directory(layout.dir()).map_err(failed("sync", layout.dir()))
    }
}

fn json(value: &impl Serialize, path: &Path) -> Result<String, SuperviseError> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| failed("write", path)(error.into()))
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SuperviseError {
    move |source| SuperviseError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use bottle_plan::{HostFacts, Manifest, PlanRequest, Prefix, StateRoot, UserIds};

    #[test]
    fn the_fullest_plan_is_read_back_from_disk_unchanged() {
        let text = include_str!("../../bottle-plan/tests/good/fullest.yaml");
        let manifest = Manifest::parse(text).unwrap();
        let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } };
        let agent = manifest.agents.keys().next();
        let slug: bottle_plan::Slug = "demo-1".parse().unwrap();
        let request = PlanRequest {
            agent,
            slug: Some(slug.clone()),
            prefix: Prefix::default(),
            manifest_dir: None,
            host: &host,
            random: [0; 5],
        };
        let plan = manifest.plan(request).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layout = StateRoot::at(dir.path()).bottle(&slug);
        fs::create_dir_all(layout.current_config()).unwrap();
        let mut next = plan.clone();
        next.proxy.allow.clear();
        let record = Record::new(plan.clone()).with(plan.clone(), next.clone());
        record.write(&layout).unwrap();
        let read = Record::read(&layout).unwrap();
        assert_eq!((&read.plan, read.next()), (&plan, &next));
        assert_eq!(fs::metadata(layout.plan()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Record::new(plan.clone()).with(plan.clone(), plan.clone()).next, None);

        let posture = fs::read_to_string(layout.current_config().join("posture.json")).unwrap();
        assert_eq!(serde_json::from_str::<Posture>(&posture).unwrap(), Posture::of(&plan));
        fs::write(layout.plan(), "{\"version\": 2}").unwrap();
        assert!(matches!(Record::read(&layout), Err(SuperviseError::Malformed { .. })));
    }
}
