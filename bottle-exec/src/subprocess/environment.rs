//! The environment of subprocesses, and the search for programs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bottle_values::environment::is_inherited;

pub(super) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(super) fn new(host: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(host.into_iter().filter(|(name, _)| name.to_str().is_some_and(is_inherited)).collect())
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.keys().map(OsString::as_os_str)
    }

    /// Returns the absolute path of a program. Relative and empty directories in `PATH` are skipped: they mean the
    /// working directory, which may belong to another user.
    pub(super) fn find(&self, program: &OsStr) -> Option<PathBuf> {
        if program.as_encoded_bytes().contains(&b'/') {
            return std::path::absolute(program).ok().filter(|path| is_executable(path));
        }
        let path = self.0.get(OsStr::new("PATH"))?;
        std::env::split_paths(path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(program))
            .find(|candidate| is_executable(candidate))
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
