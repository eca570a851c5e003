//! The work of the agent, taken out of a bottle without trust.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bottle_engine::{Engine, Exec};
use bottle_exec::Stdin;
use bottle_files::NewFile;
use bottle_plan::plan::WorkspacePlan;
use bottle_plan::{Service, UserIds};
use bottle_workspace::{
    Changes, Exported, FetchedRef, Git, PACKED, Packed, Tree, WorkError, WorkLimits, WorkSource, pack, write_bundle,
};

use crate::bottle::{Bottle, BottleError};

impl Bottle {
    /// Sets the bounds of what [`changes`](Bottle::changes) and the methods after it read and take out.
    #[must_use]
    pub const fn with_work_limits(mut self, limits: WorkLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the files of a copied workspace that the agent added, modified or deleted since the launch.
    ///
    /// The engine sends the files, and this process compares them with the copy that it kept. No program of the bottle takes
    /// part, except `tar` under gVisor. The repository (`.git`) is left out, and so are new files that a `.gitignore`
    /// excludes.
    ///
    /// ```no_run
    /// # fn f(bottle: &bottle_lifecycle::Bottle) -> Result<(), Box<dyn std::error::Error>> {
    /// for change in bottle.changes()?.files {
    ///     println!("{:?} {}", change.kind, change.path.display());
    /// }
    /// std::fs::write("work.patch", bottle.patch()?)?;
    /// for branch in bottle.fetch_into(".".as_ref(), "refs/bottle/demo")? {
    ///     println!("{} is at {}", branch.name, branch.commit);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WorkError::NoBase`] when the workspace was not copied. Other errors when it exceeds the limits, or cannot be read.
    pub fn changes(&self) -> Result<Changes, BottleError> {
        self.source(&self.engine, &self.limits).changes(&open(self.packed())?)
    }

    /// Returns the changes as a binary patch for `git apply`: empty if there are none. Git on this host makes it from the
    /// contents alone. Like every patch, it can add symbolic links.
    ///
    /// # Errors
    ///
    /// As [`changes`](Bottle::changes), and when the changed files exceed [`WorkLimits::taken`], or this host has no git.
    pub fn patch(&self) -> Result<Vec<u8>, BottleError> {
        let (patch, now) = self.patch_of()?;
        self.remember(now);
        Ok(patch)
    }

    /// Returns the patch and the workspace that it was made from.
    fn patch_of(&self) -> Result<(Vec<u8>, Tree), BottleError> {
        self.source(&self.engine, &self.limits).patch(&open(self.packed())?, &self.git()?)
    }

    /// Remembers the workspace that was taken out.
    fn remember(&self, taken: Tree) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
    }

    /// Writes the [`patch`](Bottle::patch) to a file of this host, mode 0600 if it is new. A link to a file is replaced; into
    /// a device or a pipe, the patch is written.
    ///
    /// # Errors
    ///
    /// As [`patch`](Bottle::patch), and when the file cannot be written.
    pub fn write_patch(&self, file: &Path) -> Result<(), BottleError> {
        let (patch, now) = self.patch_of()?;
        let failed = |source| WorkError::Write { path: file.to_owned(), source };
        let is_special = fs::metadata(file).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        let written = if is_special {
            File::options().write(true).open(file).and_then(|mut file| file.write_all(&patch)).map_err(failed)
        } else {
            bottle_files::write(file, &patch, 0o600).map_err(failed)
        };
        written?;
        self.remember(now);
        Ok(())
    }

    /// Copies the files of the workspace into an empty directory of this host, without the repository (`.git`). Symbolic links,
    /// pipes, sockets and devices are refused: they are named in the result and never created. Files that a `.gitignore`
    /// excludes are copied.
    ///
    /// # Errors
    ///
    /// As [`changes`](Bottle::changes), and when the directory is not empty or cannot be written. It is then empty again.
    pub fn export(&self, into: &Path) -> Result<Exported, BottleError> {
        // What changes meanwhile counts as not taken out.
        open(self.packed())?;
        let source = self.source(&self.engine, &self.limits);
        let now = source.tree()?;
        let exported = source.export(into)?;
        self.remember(now);
        Ok(exported)
    }

    /// Fetches the agent's branches into a repository of this host: `main` becomes `<prefix>/main`, and other references below
    /// the prefix are removed. The prefix is below `refs/bottle/`. Returns what it has then.
    ///
    /// The agent's git makes a bundle of its branches, which is all that is taken from it: commits that are on no branch, as on a
    /// detached `HEAD`, stay in the bottle. Git on this host first fetches it into an
    /// empty repository that checks every object. No hook runs, and no file of the repository but its objects and these
    /// references is written. What the agent committed is not checked: do not run it unread.
    ///
    /// # Errors
    ///
    /// Returns an error when the agent has no branch, the bundle exceeds [`WorkLimits::taken`], git refuses an object, or the
    /// repository cannot be written.
    pub fn fetch_into(&self, repository: &Path, prefix: &str) -> Result<Vec<FetchedRef>, BottleError> {
        let git = self.git()?;
        let bundle = git.path("bundle");
        self.bundle(&bundle)?;
        Ok(git.fetch(&bundle, repository, prefix)?)
    }

    /// Returns a sentence with the number of files that changed since the last patch or export, or since the launch. `None`
    /// if there are none, or the workspace was not copied. Each of its two steps takes at most a quarter of
    /// [`WorkLimits::time`], by default half a minute, also after a cancellation.
    ///
    /// # Errors
    ///
    /// As [`changes`](Bottle::changes).
    pub fn work_left(&self) -> Result<Option<String>, BottleError> {
        if !self.packed().exists() {
            return Ok(None);
        }
        let engine = self.engine.clone().with_control(self.engine.control().for_cleanup());
        let limits = WorkLimits { time: self.limits.time / 4, ..self.limits };
        let (base, now) = self.source(&engine, &limits).trees(&open(self.packed())?)?;
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = now.changes_since(taken.as_ref().unwrap_or(&base), &limits)?.files.len();
        let were = if count == 1 { "1 file was" } else { &format!("{count} files were") };
        Ok((count > 0).then(|| format!("{were} changed in the workspace of the bottle and not taken out")))
    }

    /// Copies a workspace of this host into a bottle that was launched with an empty one. It is packed by the rules of a
    /// launch, and is what changes are compared with from then on. The agent's user unpacks it.
    ///
    /// # Errors
    ///
    /// Returns an error when a file cannot be read, or the agent's user cannot write the workspace.
    pub fn put_workspace(&self, workspace: &WorkspacePlan) -> Result<Packed, BottleError> {
        let path = self.packed();
        let failed = |source| WorkError::Write { path: path.clone(), source };
        let mut file = NewFile::create(&path, 0o600).map_err(failed)?;
        // The owner has no meaning: everything belongs to the user who unpacks it.
        let packed = pack(workspace, UserIds { uid: 0, gid: 0 }, BufWriter::new(&mut file))?;
        file.replace().map_err(failed)?;
        let words = ["tar", "--extract", "--file=-", "--no-same-owner", "--same-permissions", "--directory=/"];
        let exec = Exec {
            user: self.handle.user.clone(),
            ..Exec::new(words).with_workdir("/").with_stdin(Stdin::File(path.clone()))
        };
        let output = self.engine.exec(&self.handle.container, &exec)?;
        if output.status.is_success() {
            return Ok(packed);
        }
        let source =
            io::Error::other(format!("`tar` in the bottle {}: {}", output.status, output.stderr.last_lines(3)));
        Err(BottleError::Copy { path: workspace.source.clone(), source })
    }

    /// Returns the path of the workspace as it was copied into the bottle.
    fn packed(&self) -> PathBuf {
        self.state_dir().join(Service::Agent.as_str()).join(PACKED)
    }

    fn git(&self) -> Result<Git<'_>, BottleError> {
        Ok(Git::new(&**self.engine.backend(), self.engine.control(), &self.limits, self.scratch())?)
    }

    /// Returns the workspace as the engine sends it.
    fn source<'a>(&'a self, engine: &'a Engine, limits: &WorkLimits) -> WorkSource<'a, BottleError> {
        let (user, root) = (self.handle.user.as_deref(), self.handle.workdir.as_deref().unwrap_or("/workspace"));
        let open = move || Ok(engine.cp_out_live(&self.handle.container, root, self.handle.copy, user)?);
        WorkSource::new(open, limits, engine.control().cancel())
    }

    /// Writes a bundle of the agent's branches.
    fn bundle(&self, path: &Path) -> Result<(), BottleError> {
        let exec = Exec::new(["git", "bundle", "create", "--quiet", "-", "--branches"]);
        let mut child = self.spawn(exec, None)?;
        child.stdin = None;
        let streams = (child.stdout.take(), child.stderr.take());
        let said = write_bundle(streams, path, &self.limits, self.engine.control().cancel())?;
        if child.wait()?.is_success() {
            return Ok(());
        }
        Err(WorkError::Git { doing: "bundle the agent's branches", said }.into())
    }
}

fn open(path: PathBuf) -> Result<File, WorkError> {
    File::open(&path).map_err(|source| WorkError::NoBase { path, source })
}
