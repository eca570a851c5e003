//! The files of this host that the sidecars read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_plan::digest::sha256;

use crate::report::Probe;

/// Looks at a file that has changed, because an approval may be writing it, and the pause between two of them.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Compares files with their checksums at the launch or, where an approval has rewritten one since, with what it wrote. `None`
/// if there are none.
pub(crate) fn probe(files: &BTreeMap<PathBuf, String>) -> Option<Probe> {
    if files.is_empty() {
        return None;
    }
    let problem = |(path, sum): (&PathBuf, &String)| {
        let shown = path.display();
        match is_as_written(path, sum) {
            Ok(true) => None,
            Ok(false) => Some(format!("`{shown}` is not as the launcher wrote it")),
            Err(error) => Some(format!("`{shown}` cannot be read: {error}")),
        }
    };
    let problems: Vec<String> = files.iter().filter_map(problem).collect();
    Some(Probe::of("configuration files", &problems, format!("{} files are as they were written", files.len())))
}

fn is_as_written(path: &Path, launched: &str) -> io::Result<bool> {
    for _ in 1..LOOKS {
        if is_now(path, launched)? {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    is_now(path, launched)
}

fn is_now(path: &Path, launched: &str) -> io::Result<bool> {
    let content = std::fs::read(path)?;
    Ok(match bottle_files::last_rewrite(path)? {
        Some(rewritten) => content == rewritten,
        None => sha256(content) == launched,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Expected;
    use crate::planned::{Container, Planned, PlannedMount};
    use crate::report::Outcome;

    fn expected(directory: &Path) -> Expected {
        let mount = |name: &str, read_only| PlannedMount {
            target: format!("/{name}"),
            kind: "bind".into(),
            source: directory.join(name).display().to_string(),
            subpath: String::new(),
            read_only,
        };
        let container = |service: &str, mounts| Container { service: service.into(), mounts, ..Container::default() };
        let egress = vec![mount("routes.yaml", true), mount("decisions", true), mount("log", false)];
        let containers = vec![container("egress", egress), container("agent", vec![mount("note", true)])];
        let mut expected = crate::expected::tests::expected();
        expected.planned = Planned { containers, ..Planned::default() };
        expected.with_files(directory)
    }

    #[test]
    fn a_file_that_somebody_changed_is_found_and_an_approval_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("decisions")).unwrap();
        let path = dir.path().join("routes.yaml");
        std::fs::write(&path, "launched").unwrap();
        let files = expected(dir.path()).files;
        assert_eq!(files.keys().collect::<Vec<_>>(), [&path], "no directory, nothing of the agent, nothing writable");
        let outcome = || probe(&files).unwrap().outcome;
        assert_eq!(outcome(), Outcome::Held);
        std::fs::write(&path, "weakened").unwrap();
        assert_eq!(outcome(), Outcome::Failed);
        bottle_files::rewrite(&path, b"approved").unwrap();
        assert_eq!(outcome(), Outcome::Held);
        for changed in ["launched", "weakened"] {
            std::fs::write(&path, changed).unwrap();
            assert_eq!(outcome(), Outcome::Failed, "{changed}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(probe(&files).unwrap().detail.contains("cannot be read"), "{}", probe(&files).unwrap());
        assert_eq!(probe(&expected(dir.path()).files).unwrap().outcome, Outcome::Failed, "it was never there");
        assert_eq!(probe(&BTreeMap::new()), None);
    }

    #[test]
    fn a_file_that_an_approval_is_writing_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("decisions")).unwrap();
        let path = dir.path().join("routes.yaml");
        std::fs::write(&path, "launched").unwrap();
        let files = expected(dir.path()).files;
        std::fs::write(&path, "half").unwrap();
        std::thread::scope(|scope| {
            let probed = scope.spawn(|| probe(&files).unwrap());
            bottle_files::rewrite(&path, b"approved").unwrap();
            assert_eq!(probed.join().unwrap().outcome, Outcome::Held);
        });
    }
}
