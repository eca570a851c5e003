//! Permitted dependencies between the crates.

use std::collections::{BTreeMap, BTreeSet};
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
    ("bottle-events", Some(&["bottle-plan", "bottle-posture", "bottle-compose", "bottle-exec", "bottle-sidecars"])),
    ("bottle-conformance", Some(&["bottle-exec"])),
    ("bottle-forge", Some(&["bottle-plan", "bottle-files", "bottle-lifecycle"])),
    ("bottle-workspace", Some(&["bottle-plan", "bottle-exec", "bottle-files"])),
    ("bottle-sidecars", Some(&["bottle-plan", "bottle-compose"])),
    ("bottle-forward", Some(&["bottle-exec", "bottle-engine"])),
    ("bottle-store", Some(&["bottle-exec", "bottle-engine", "bottle-files"])),
    ("bottle-verify", Some(&["bottle-plan", "bottle-compose", "bottle-exec", "bottle-engine", "bottle-files"])),
    (
        "bottle-lifecycle",
        Some(&[
            "bottle-plan",
            "bottle-exec",
            "bottle-engine",
            "bottle-files",
            "bottle-forward",
            "bottle-store",
            "bottle-verify",
            "bottle-workspace",
        ]),
    ),
    (
        "bottle-provision",
        Some(&[
            "bottle-plan",
            "bottle-compose",
            "bottle-exec",
            "bottle-engine",
            "bottle-files",
            "bottle-sidecars",
            "bottle-verify",
            "bottle-lifecycle",
        ]),
    ),
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
            "bottle-store",
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
            "bottle-events",
            "bottle-files",
            "bottle-lifecycle",
            "bottle-supervise",
            "bottle-forge",
            "bottle-workspace",
            "bottle-verify",
            "bottle-forward",
            "bottle-store",
            "bottle-provision",
        ]),
    ),
    ("bottle-pool", Some(&["bottle"])),
    ("bottle-platform", Some(&["bottle", "bottle-kube"])),
    ("bottle-fleet", Some(&["bottle", "bottle-platform"])),
    ("bottle-progress", Some(&["bottle-exec"])),
    ("bottle-kube-render", Some(&["bottle-plan", "bottle-compose", "bottle-sidecars", "bottle-verify"])),
    (
        "bottle-kube",
        Some(&[
            "bottle-kube-render",
            "bottle-plan",
            "bottle-compose",
            "bottle-sidecars",
            "bottle-exec",
            "bottle-engine",
            "bottle-files",
            "bottle-forward",
            "bottle-lifecycle",
            "bottle-provision",
            "bottle-supervise",
            "bottle-tls",
            "bottle-verify",
            "bottle-workspace",
        ]),
    ),
    ("bottle-tokio", Some(&["bottle", "bottle-exec", "bottle-engine"])),
    ("bottle-testing", None),
    ("xtask", None),
];

/// Packages that only one crate may depend on, itself or through others, so that an embedder who leaves out that crate avoids
/// them. An HTTP client or a runtime that is not listed depends on one that is.
const ONLY_IN: &[Restricted] = &[
    Restricted {
        what: "an HTTP client",
        packages: &[
            "attohttpc",
            "curl",
            "curl-sys",
            "h2",
            "http",
            "httparse",
            "hyper",
            "isahc",
            "minreq",
            "reqwest",
            "surf",
            "ureq",
        ],
        owner: "bottle-forge",
    },
    Restricted {
        what: "an asynchronous runtime",
        packages: &[
            "async-executor",
            "async-io",
            "async-std",
            "compio",
            "futures-executor",
            "glommio",
            "mio",
            "monoio",
            "pollster",
            "polling",
            "smol",
            "tokio",
        ],
        owner: "bottle-tokio",
    },
];

struct Restricted {
    what: &'static str,
    packages: &'static [&'static str],
    /// The crate that may depend on them.
    owner: &'static str,
}

/// One crate of the workspace.
#[derive(Debug)]
pub(super) struct Crate {
    /// Name of its package.
    pub(super) name: String,
    /// Root file of its library, or of its program if it has no library.
    pub(super) root: PathBuf,
    /// Root files of its examples.
    pub(super) examples: Vec<PathBuf>,
    /// Dependencies of the crate within the workspace, without those of tests.
    dependencies: Vec<String>,
    /// Packages outside the workspace that the crate depends on, each with the direct dependency that leads to it. Without
    /// those of tests, and without those of other crates of the workspace.
    foreign: BTreeMap<String, String>,
}

/// Returns the answer of `cargo metadata` for the workspace at `root`.
pub(super) fn metadata(root: &Path) -> Result<Value> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["metadata", "--locked", "--all-features", "--format-version", "1"]);
    Ok(serde_json::from_str(&output(&mut command)?)?)
}

/// Returns every crate of the workspace, without those below `tests/outside`, which stand for crates of others.
pub(super) fn crates(metadata: &Value) -> Result<Vec<Crate>> {
    let crates = parse(metadata).filter(|crates| !crates.is_empty());
    crates.ok_or_else(|| "failed to parse the output of `cargo metadata`".into())
}

fn parse(metadata: &Value) -> Option<Vec<Crate>> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()?
        .iter()
        .map(|package| Some((package["id"].as_str()?, package)))
        .collect::<Option<_>>()?;
    let members: Vec<&str> =
        metadata["workspace_members"].as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    let mut needed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array()? {
        let mut ids = Vec::new();
        for dependency in node["deps"].as_array()? {
            if dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"] != "dev") {
                ids.push(dependency["pkg"].as_str()?);
            }
        }
        needed.insert(node["id"].as_str()?, ids);
    }
    let name_of = |id: &str| packages.get(id)?["name"].as_str();
    let outside = |id: &&str| name_of(id).is_some_and(|name| name.starts_with("outside-"));
    let member = |id: &&str| {
        let targets = packages.get(id)?["targets"].as_array()?;
        let of_kind = |kind: &str| targets.iter().find(|target| target["kind"][0] == kind);
        let root = of_kind("lib").or_else(|| of_kind("bin"))?["src_path"].as_str()?;
        let examples = targets.iter().filter(|target| target["kind"][0] == "example");
        let (ours, others): (Vec<&str>, Vec<&str>) = needed.get(id)?.iter().partition(|id| members.contains(id));
        let mut foreign = BTreeMap::new();
        let mut open: Vec<(&str, &str)> = others.iter().map(|id| Some((*id, name_of(id)?))).collect::<Option<_>>()?;
        while let Some((id, direct)) = open.pop() {
            if foreign.insert(name_of(id)?.to_owned(), direct.to_owned()).is_none() {
                open.extend(needed.get(id)?.iter().map(|id| (*id, direct)));
            }
        }
        Some(Crate {
            name: name_of(id)?.to_owned(),
            root: root.into(),
            examples: examples.map(|target| Some(target["src_path"].as_str()?.into())).collect::<Option<_>>()?,
            dependencies: ours.iter().map(|id| Some(name_of(id)?.to_owned())).collect::<Option<_>>()?,
            foreign,
        })
    };
    members.iter().filter(|id| !outside(id)).map(member).collect()
}

/// Returns the violations of the tables above.
pub(super) fn problems(crates: &[Crate]) -> Vec<String> {
    let is_ours = |name: &str| crates.iter().any(|other| other.name == name);
    let mut problems = Vec::new();
    for Crate { name, dependencies, foreign, .. } in crates {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(known, _)| known == name) else {
            problems.push(format!("crate `{name}` has no row in the table of xtask/src/check/layers.rs"));
            continue;
        };
        for dependency in dependencies.iter().filter(|dependency| is_ours(dependency)) {
            if allowed.is_some_and(|allowed| !allowed.contains(&dependency.as_str())) {
                problems.push(format!("crate `{name}` must not depend on `{dependency}`"));
            }
        }
        for Restricted { what, packages, owner } in ONLY_IN {
            let found = foreign.iter().filter(|(package, _)| packages.contains(&package.as_str()));
            let direct: BTreeSet<&String> = found.map(|(_, direct)| direct).collect();
            for direct in direct.into_iter().filter(|_| owner != name) {
                problems.push(format!("crate `{name}` depends on {what} through `{direct}`; only `{owner}` may"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(name: &str, dependencies: &[&str], foreign: &[(&str, &str)]) -> Crate {
        Crate {
            name: name.to_owned(),
            root: PathBuf::new(),
            examples: Vec::new(),
            dependencies: dependencies.iter().map(|&name| name.to_owned()).collect(),
            foreign: foreign.iter().map(|(name, direct)| ((*name).to_owned(), (*direct).to_owned())).collect(),
        }
    }

    #[test]
    fn a_wrong_way_dependency_an_unknown_crate_a_second_http_client_and_a_runtime_are_found() {
        let crates = [
            member("bottle-plan", &["bottle-exec"], &[("serde", "serde")]),
            member("bottle-exec", &["bottle-values"], &[("http", "new-client"), ("hyper", "new-client")]),
            member("bottle-values", &[], &[]),
            member("bottle-new", &[], &[]),
            member("bottle", &["bottle-plan"], &[("ureq", "ureq"), ("httparse", "ureq")]),
            member("bottle-forge", &[], &[("ureq", "ureq"), ("tokio", "new-runtime")]),
        ];
        let expected = [
            "crate `bottle-plan` must not depend on `bottle-exec`",
            "crate `bottle-exec` depends on an HTTP client through `new-client`; only `bottle-forge` may",
            "crate `bottle-new` has no row in the table of xtask/src/check/layers.rs",
            "crate `bottle` depends on an HTTP client through `ureq`; only `bottle-forge` may",
            "crate `bottle-forge` depends on an asynchronous runtime through `new-runtime`; only `bottle-tokio` may",
        ];
        assert_eq!(problems(&crates), expected);
    }

    #[test]
    fn metadata_without_the_tests_dependencies_is_read() {
        let package = |id: &str| {
            let targets = [("example", "/a/examples/e.rs"), ("lib", "/a/src/lib.rs")];
            let targets = targets.map(|(kind, path)| json!({"kind": [kind], "src_path": path}));
            json!({"id": format!("path+{id}"), "name": id, "targets": targets})
        };
        let dependency = |id: &str, kinds: &[Value]| {
            let kinds: Vec<Value> = kinds.iter().map(|kind| json!({"kind": kind})).collect();
            json!({"pkg": format!("path+{id}"), "dep_kinds": kinds})
        };
        let node = |id: &str, deps: Vec<Value>| json!({"id": format!("path+{id}"), "deps": deps});
        let packages = ["a", "b", "c", "d", "e", "f"].map(package);
        let metadata = json!({
            "packages": packages,
            "workspace_members": ["path+a", "path+b"],
            "resolve": {"nodes": [
                node("a", vec![
                    dependency("b", &[Value::Null]),
                    dependency("c", &[json!("dev")]),
                    dependency("d", &[json!("dev"), json!("build")]),
                ]),
                node("b", vec![dependency("c", &[Value::Null])]),
                node("c", Vec::new()),
                node("d", vec![dependency("e", &[Value::Null]), dependency("f", &[json!("dev")])]),
                node("e", vec![dependency("d", &[Value::Null])]),
                node("f", Vec::new()),
            ]},
        });
        let read = &parse(&metadata).expect("it has all that is read")[0];
        assert_eq!((read.name.as_str(), &read.root), ("a", &PathBuf::from("/a/src/lib.rs")));
        assert_eq!(read.examples, [PathBuf::from("/a/examples/e.rs")]);
        assert_eq!(read.dependencies, ["b"]);
        let foreign: Vec<(&str, &str)> = read.foreign.iter().map(|(name, direct)| (&**name, &**direct)).collect();
        assert_eq!(foreign, [("d", "d"), ("e", "d")]);
    }
}
