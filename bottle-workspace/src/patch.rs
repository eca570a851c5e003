//! The changes as a patch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bottle_exec::Stdin;

use crate::changes::{Changes, Content, FileState, Found, Tree, quoted};
use crate::git::Git;
use crate::stream::{EntryKind, walk};
use crate::work_error::WorkError;

impl Git<'_> {
    /// Returns the changes as a binary patch for `git apply`: empty if there are none.
    ///
    /// `base` is the packed workspace that `before` was read from, and `tar` a stream of the workspace as it is now, from
    /// which the changed files are read. A file that has changed again since is taken as it is in the stream.
    ///
    /// Git never sees the agent's files as a working tree: both states of each file become objects of a new repository, and
    /// two of its trees are compared.
    ///
    /// # Errors
    ///
    /// Returns an error if the changes exceed [`WorkLimits::taken`](crate::WorkLimits::taken), or git fails.
    pub fn patch(
        &self,
        base: &File,
        before: &Tree,
        after: &Tree,
        changes: &Changes,
        tar: impl Read,
    ) -> Result<Vec<u8>, WorkError> {
        if changes.files.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.path("import");
        let failed = |source| WorkError::Write { path: path.clone(), source };
        let mut import = Import::new(File::create_new(&path).map_err(failed)?, path.clone(), self.limits().taken);
        import.old_tree(base, changes.files.iter().filter_map(|change| before.files.get_key_value(&change.path)))?;
        let new = changes.files.iter().filter_map(|change| after.files.get_key_value(&change.path)).collect();
        import.new_tree(new, |blob| {
            walk(tar, self.limits(), |entry, content| match entry.kind {
                EntryKind::File => blob(&entry.path, entry.size, content),
                _ => Ok(()),
            })
        })?;
        import.out.flush().map_err(failed)?;
        let repository = self.init()?;
        let command = self.command(Some(&repository)).with_args(["fast-import", "--quiet", "--done"]);
        self.run("import the changed files", &command.with_stdin(Stdin::File(path)))?;
        let words = ["diff-tree", "-r", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv"];
        let command = self.command(Some(&repository)).with_args(words).with_args(["refs/heads/old", "refs/heads/new"]);
        let path = self.write("compare the changed files", command, "patch")?;
        fs::read(&path).map_err(|source| WorkError::Write { path, source })
    }
}

/// A stream for `git fast-import`.
struct Import {
    out: BufWriter<File>,
    path: PathBuf,
    marks: u64,
    limit: u64,
    left: u64,
}

/// Lines of a commit: mode, mark and quoted path of each file.
type Lines = Vec<String>;

impl Import {
    fn new(file: File, path: PathBuf, limit: u64) -> Self {
        Self { out: BufWriter::new(file), path, marks: 0, limit, left: limit }
    }

    /// Writes the files that were copied into the bottle, from the tar that they were read from.
    fn old_tree<'a>(
        &mut self,
        base: &File,
        files: impl Iterator<Item = (&'a PathBuf, &'a Found)>,
    ) -> Result<(), WorkError> {
        let mut lines = Lines::new();
        for (path, Found { state, content }) in files {
            match content {
                Content::Target(target) => self.blob(state.size, &mut target.as_slice())?,
                Content::At { offset, .. } => self.blob(state.size, &mut At { file: base, at: *offset })?,
            }
            lines.push(Self::line(state, self.marks, path));
        }
        self.commit("old", &lines)
    }

    /// Writes the files as they are now. `read` passes every file of the workspace to its argument.
    fn new_tree(
        &mut self,
        files: BTreeMap<&PathBuf, &Found>,
        read: impl FnOnce(&mut dyn FnMut(&Path, u64, &mut dyn Read) -> Result<(), WorkError>) -> Result<(), WorkError>,
    ) -> Result<(), WorkError> {
        let wanted: BTreeSet<&Path> = files.values().filter_map(|found| found.content.path()).collect();
        let mut marks = BTreeMap::new();
        read(&mut |path, size, content| {
            if wanted.contains(path) && !marks.contains_key(path) {
                self.blob(size, content)?;
                marks.insert(path.to_owned(), self.marks);
            }
            Ok(())
        })?;
        let mut lines = Lines::new();
        for (path, Found { state, content }) in files {
            match content {
                Content::Target(target) => {
                    self.blob(state.size, &mut target.as_slice())?;
                    lines.push(Self::line(state, self.marks, path));
                }
                // One that is gone by now is deleted.
                Content::At { path: at, .. } => lines.extend(marks.get(at).map(|mark| Self::line(state, *mark, path))),
            }
        }
        self.commit("new", &lines)?;
        self.write(b"done\n")
    }

    /// Writes a content of exactly this size.
    fn blob(&mut self, size: u64, content: &mut dyn Read) -> Result<(), WorkError> {
        self.left = self
            .left
            .checked_sub(size)
            .ok_or_else(|| WorkError::TooMuch { what: "changed files", limit: format!("{} bytes", self.limit) })?;
        self.marks += 1;
        let head = format!("blob\nmark :{}\ndata {size}\n", self.marks);
        self.write(head.as_bytes())?;
        let copied = io::copy(&mut content.take(size), &mut self.out).map_err(WorkError::Read)?;
        if copied != size {
            return Err(WorkError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.write(b"\n")
    }

    fn line(state: &FileState, mark: u64, path: &Path) -> String {
        let mode = match state {
            FileState { is_link: true, .. } => "120000",
            FileState { mode, .. } if mode & 0o100 != 0 => "100755",
            _ => "100644",
        };
        format!("M {mode} :{mark} {}\n", quoted(path))
    }

    fn commit(&mut self, branch: &str, lines: &[String]) -> Result<(), WorkError> {
        let head = format!("commit refs/heads/{branch}\ncommitter bottle <bottle@localhost> 0 +0000\ndata 0\n\n");
        self.write(head.as_bytes())?;
        lines.iter().try_for_each(|line| self.write(line.as_bytes()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WorkError> {
        self.out.write_all(bytes).map_err(|source| WorkError::Write { path: self.path.clone(), source })
    }
}

/// A file from a position on.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
