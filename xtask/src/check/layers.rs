//! Permitted dependencies between the crates.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{Result, output};

/// The crates of the workspace that each crate may depend on, tests apart. `None`: on all of them.
const MAY_DEPEND_ON: &[(&str, Option<&[&str]>)] = &[
    ("bottle-values", Some(&[])),
    ("bottle-yaml", Some(&["bottle-values"])),
    ("bottle-plan", Some(&["bottle-values", "bottle-yaml"])),
    ("bottle-posture", Some(&["bottle-plan"])),
    ("bottle-tls", Some(&["bottle-files"])),
    ("bottle-files", Some(&[])),
    ("bottle-compose", Some(&["bottle-plan"])),
    ("bottle-exec", Some(&["bottle-values"])),
    ("bottle-engine", Some(&["bottle-exec"])),
    ("bottle-conformance", Some(&["bottle-exec"])),
    ("bottle-forge", Some(&["bottle-plan"])),
    ("bottle-sidecars", Some(&["bottle-plan", "bottle-compose"])),
    ("bottle-lifecycle", Some(&["bottle-plan", "bottle-exec", "bottle-engine", "bottle-files"])),
    (
        "bottle-supervise",
        Some(&[
            "bottle-values",
            "bottle-plan",
            "bottle-posture",
            "bottle-sidecars",
            "bottle-exec",
            "bottle-engine",
            "bottle-files",
        ]),
    ),
    (
        "bottle",
        Some(&[
            "bottle-plan",
            "bottle-posture",
            "bottle-compose",
            "bottle-tls",
            "bottle-sidecars",
            "bottle-exec",
            "bottle-engine",
            "bottle-conformance",
            "bottle-files",
            "bottle-lifecycle",
            "bottle-supervise",
            "bottle-forge",
        ]),
    ),
    ("bottle-testing", None),
    ("xtask", None),
];

/// Dependencies that only one crate may have, so that an embedder who leaves out the crate avoids them.
const ONLY_IN: &[(&str, &str)] = &[("ureq", "bottle-forge")];

/// One crate of the workspace.
#[derive(Debug)]
pub(super) struct Crate {
    /// Name of its package.
    pub(super) name: String,
    /// Root file of its library, or of its program if it has no library.
    pub(super) root: PathBuf,
    /// Dependencies of the crate, without those of tests.
    dependencies: Vec<String>,
}

/// Returns every crate of the workspace at `root`.
pub(super) fn crates(root: &Path) -> Result<Vec<Crate>> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&output(&mut command)?)?;
    let crates: Option<Vec<Crate>> = metadata["packages"].as_array().into_iter().flatten().map(parse).collect();
    crates.filter(|crates| !crates.is_empty()).ok_or_else(|| "failed to parse the output of `cargo metadata`".into())
}

fn parse(package: &Value) -> Option<Crate> {
    let targets = package["targets"].as_array()?;
    let of_kind = |kind: &str| targets.iter().find(|target| target["kind"][0] == kind);
    let root = of_kind("lib").or_else(|| of_kind("bin"))?["src_path"].as_str()?;
    let dependencies = package["dependencies"].as_array()?.iter().filter(|dependency| dependency["kind"] != "dev");
    Some(Crate {
        name: package["name"].as_str()?.to_owned(),
        root: root.into(),
        dependencies: dependencies.filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned())).collect(),
    })
}

/// Returns the violations of the tables above.
pub(super) fn problems(crates: &[Crate]) -> Vec<String> {
    let is_ours = |name: &str| crates.iter().any(|other| other.name == name);
    let mut problems = Vec::new();
    for Crate { name, dependencies, .. } in crates {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(known, _)| known == name) else {
            problems.push(format!("crate `{name}` has no row in the table of xtask/src/check/layers.rs"));
            continue;
        };
        for dependency in dependencies.iter().filter(|dependency| is_ours(dependency)) {
            if allowed.is_some_and(|allowed| !allowed.contains(&dependency.as_str())) {
                problems.push(format!("crate `{name}` must not depend on `{dependency}`"));
            }
        }
        for (dependency, owner) in ONLY_IN {
            if name != owner && dependencies.iter().any(|other| other == dependency) {
                problems.push(format!("crate `{name}` depends on `{dependency}`, which is only for `{owner}`"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[&str]) -> Crate {
        let dependencies = dependencies.iter().map(|&name| name.to_owned()).collect();
        Crate { name: name.to_owned(), root: PathBuf::new(), dependencies }
    }

    #[test]
    fn a_wrong_way_dependency_an_unknown_crate_and_a_second_http_client_are_found() {
        let crates = [
            member("bottle-plan", &["bottle-exec", "serde"]),
            member("bottle-exec", &["bottle-values"]),
            member("bottle-values", &[]),
            member("bottle-new", &[]),
            member("bottle", &["bottle-plan", "ureq"]),
            member("bottle-forge", &["ureq"]),
        ];
        let expected = [
            "crate `bottle-plan` must not depend on `bottle-exec`",
            "crate `bottle-new` has no row in the table of xtask/src/check/layers.rs",
            "crate `bottle` depends on `ureq`, which is only for `bottle-forge`",
        ];
        assert_eq!(problems(&crates), expected);
    }

    #[test]
    fn metadata_without_the_tests_dependencies_is_read() {
        let package = serde_json::json!({
            "name": "a",
            "targets": [
                {"kind": ["example"], "src_path": "/a/examples/e.rs"},
                {"kind": ["lib"], "src_path": "/a/src/lib.rs"},
            ],
            "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}, {"name": "d", "kind": "build"}],
        });
        let read = parse(&package).expect("it has all that is read");
        assert_eq!((read.name.as_str(), read.root), ("a", PathBuf::from("/a/src/lib.rs")));
        assert_eq!(read.dependencies, ["b", "d"]);
    }
}
