//! Checks of the files that a manifest names.

use std::fs::{self, Metadata};
use std::path::Path;

use bottle_plan::manifest::WorkspaceMode;
use bottle_plan::plan::{GitAuth, PromptSource};
use bottle_plan::{BottlePlan, Manifest, ManifestError};

/// Checks that the files and directories that a manifest names exist. Making a plan does not access the file system. An
/// environment file may be absent. A launch makes the same check, but its error has only the manifest's keys and not
/// its lines.
///
/// # Errors
///
/// Returns an error if a path does not exist or is of the wrong kind. The error holds every such path with the
/// manifest's line and key.
pub fn check_files(manifest: &Manifest, plan: &BottlePlan) -> Result<(), ManifestError> {
    let Some(spec) = manifest.agents.get(&plan.agent_name) else { return Ok(()) };
    let mistakes = problems(plan, &format!("bottles.{}.", spec.bottle));
    if mistakes.is_empty() { Ok(()) } else { Err(manifest.error_at(mistakes)) }
}

/// Returns the key and the problem of every unusable file and directory that a plan names. The plan does not have its
/// bottle's name in the manifest, so `bottle` is prepended to the bottle's keys.
pub(crate) fn problems(plan: &BottlePlan, bottle: &str) -> Vec<(String, String)> {
    let agent = &plan.agent_name;
    let mut problems = Vec::new();
    let mut want = |key: String, path: &Path, kind: Kind| {
        if let Some(problem) = kind.problem(path) {
            problems.push((key, problem));
        }
    };
    if plan.workspace.mode != WorkspaceMode::None {
        want(format!("{bottle}workspace.path"), &plan.workspace.source, Kind::Directory);
    }
    if let Some(path) = &plan.tls.upstream_ca {
        want(format!("{bottle}tls.upstream_ca"), path, Kind::File);
    }
    for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
        if let GitAuth::IdentityFile(path) = &upstream.auth {
            want(format!("{}.identity_file", upstream.key), path, Kind::File);
        }
    }
    if let Some(PromptSource::File(path)) = &plan.agent.prompt {
        want(format!("agents.{agent}.prompt_file"), path, Kind::File);
    }
    for (index, path) in plan.agent.skills.iter().enumerate() {
        want(format!("agents.{agent}.skills[{index}]"), path, Kind::Directory);
    }
    problems
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Directory,
}

impl Kind {
    fn problem(self, path: &Path) -> Option<String> {
        let (fits, what): (fn(&Metadata) -> bool, _) = match self {
            Self::File => (Metadata::is_file, "a regular file"),
            Self::Directory => (Metadata::is_dir, "a directory"),
        };
        match fs::metadata(path) {
            Ok(metadata) if fits(&metadata) => None,
            Ok(_) => Some(format!("`{}` is not {what}; accepted: {what}", path.display())),
            Err(error) => Some(format!("`{}` cannot be used: {error}; accepted: {what}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use bottle_plan::{HostFacts, PlanRequest, UserIds};

    use super::*;

    #[test]
    fn a_missing_file_is_a_mistake_of_the_manifest() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        let path = dir.path().join("bottle.yaml");
        let text = "bottles:
  dev:
    workspace: {path: nowhere}
    tls: {upstream_ca: there}
    git:
      upstreams:
        - {name: app, url: 'git@git.example.com:a/b', identity_file: no-key, known_hosts: [git.example.com ssh-ed25519 AAAA]}
agents:
  demo: {bottle: dev, command: [id], prompt_file: no-prompt, skills: [there, no-skill]}
";
        let check = |text: &str| {
            fs::write(&path, text).unwrap();
            let manifest = Manifest::read(&path).unwrap();
            let user = UserIds { uid: 1000, gid: 1000 };
            let host = HostFacts { home: "/home/me".into(), cwd: dir.path().to_owned(), user };
            let plan = manifest.plan(PlanRequest::new(&host, [0; 5]).with_manifest_dir(dir.path())).unwrap();
            check_files(&manifest, &plan)
        };
        let error = check(text).unwrap_err();
        let places: Vec<_> = error.mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
        assert_eq!(
            places,
            [
                ("bottles.dev.workspace.path", Some(3)),
                ("bottles.dev.tls.upstream_ca", Some(4)),
                ("bottles.dev.git.upstreams[0].identity_file", Some(7)),
                ("agents.demo.prompt_file", Some(9)),
                ("agents.demo.skills[1]", Some(9)),
            ]
        );
        let drawn = crate::report(&error).to_string();
        assert!(drawn.contains("bottle.yaml:3:23") && drawn.contains("accepted: a directory"), "{drawn}");
        assert_eq!(check("bottles: {dev: {}}\nagents: {demo: {bottle: dev, command: [id], skills: [there]}}"), Ok(()));
    }
}
