//! Checks of the tree that no compiler makes.

mod circles;
mod errors;
mod layers;
mod packages;
mod platforms;
mod size;
mod source;
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, output, root};

/// Runs every check and reports all problems.
///
/// # Errors
///
/// Returns an error if a check finds something, or cannot read the tree.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let metadata = layers::metadata(&root)?;
    let crates = layers::crates(&metadata)?;
    let mut problems = layers::problems(&crates);
    problems.extend(packages::problems(&metadata));
    let shown = errors::shown(&root)?;
    for member in &crates {
        let tree = source::Tree::read(&member.root)?;
        let mut lines = tree.lines();
        for example in &member.examples {
            lines += source::Tree::read(example)?.lines();
        }
        println!("{lines:>6} lines  {}", member.name);
        problems.extend(size::problem(&member.name, lines));
        problems.extend(circles::problems(&member.name, &tree));
        problems.extend(errors::problems(&member.name, &tree, &shown));
    }
    let files = files(&root)?;
    problems.extend(words::problems(&root, &files)?);
    problems.extend(platforms::problems(&root, &files)?);
    if problems.is_empty() {
        println!("sizes, dependencies, modules, words and names of tests are as they should be");
        return Ok(());
    }
    Err(format!("the tree breaks its own rules\n  {}", problems.join("\n  ")).into())
}

/// Returns every file that git tracks, relative to the repository.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = output(Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]))?;
    Ok(listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
}
