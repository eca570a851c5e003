//! The agent's commits, fetched into a repository of this host.

use std::io;
use std::path::Path;

use crate::git::Git;
use crate::work_error::WorkError;

/// Most branches that are fetched: each becomes a file of the repository.
const MAX_BRANCHES: usize = 1000;

/// A branch of the agent that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedRef {
    /// Name of the reference in the repository of this host, below the prefix.
    pub name: String,
    /// Object id of its commit, in hexadecimal.
    pub commit: String,
}

impl Git<'_> {
    /// Fetches the branches of a bundle into a repository: `main` becomes `<prefix>/main`. Others below the prefix are removed.
    /// Returns what the prefix then has, sorted by name.
    ///
    /// The bundle is first fetched into an empty repository, where `git fsck` checks every object and that none is missing. Neither the working tree nor the index, `HEAD`, `FETCH_HEAD` or any other reference changes. No hook runs.
    /// The bundle has no configuration, and that of the user counts only for the last step.
    ///
    /// # Errors
    ///
    /// Returns an error if the prefix is not below `refs/bottle/`, git refuses an object or a reference, or the repository does
    /// not exist.
    pub fn fetch(&self, bundle: &Path, repository: &Path, prefix: &str) -> Result<Vec<FetchedRef>, WorkError> {
        let invalid = || WorkError::Prefix { prefix: prefix.to_owned() };
        if !prefix.starts_with("refs/bottle/") {
            return Err(invalid());
        }
        let check = self.command(None).with_args(["check-ref-format", prefix]);
        self.run("check the prefix", &check).map_err(|error| match error {
            WorkError::Git { .. } => invalid(),
            other => other,
        })?;
        let repository = &std::path::absolute(repository)
            .map_err(|source| WorkError::Write { path: repository.to_owned(), source })?;
        let quarantine = self.init()?;
        // Git would take another file for the address of a repository: `gitdir: …` leads to one of this host.
        let verify = self.command(Some(&quarantine)).with_args(["bundle", "verify", "--quiet"]).with_arg(bundle);
        self.run("verify the bundle of the agent's commits", &verify)?;
        let heads = self.command(Some(&quarantine)).with_args(["bundle", "list-heads"]).with_arg(bundle);
        let branches = self.run("list the agent's branches", &heads)?.lines().count();
        if branches > MAX_BRANCHES {
            let problem = format!("the agent has {branches} branches; accepted: at most {MAX_BRANCHES}");
            return Err(WorkError::Read(io::Error::other(problem)));
        }
        let words = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
        ];
        let first =
            self.command(Some(&quarantine)).with_args(words).with_arg(bundle).with_arg("+refs/heads/*:refs/heads/*");
        self.run("check the agent's commits", &first)?;
        // Git before 2.46 checks nothing that comes from a bundle.
        let fsck =
            self.command(Some(&quarantine)).with_args(["fsck", "--full", "--strict", "--no-dangling", "--no-progress"]);
        self.run("check the agent's commits", &fsck)?;
        let refspec = format!("+refs/heads/*:{prefix}/*");
        let second =
            self.user_command(repository).with_args(words).with_arg("--prune").with_arg(&quarantine).with_arg(refspec);
        self.run("fetch the agent's commits", &second)?;
        let list = ["for-each-ref", "--sort=refname", "--format=%(objectname) %(refname)"];
        let listed =
            self.run("list the fetched branches", &self.user_command(repository).with_args(list).with_arg(prefix))?;
        let fetched = listed.lines().filter_map(|line| line.split_once(' '));
        Ok(fetched.map(|(commit, name)| FetchedRef { name: name.to_owned(), commit: commit.to_owned() }).collect())
    }
}
