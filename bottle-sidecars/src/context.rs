//! Build contexts, embedded in this library because there is no repository at run time.

use std::collections::BTreeMap;

use bottle_plan::digest::hex;
use sha2::{Digest, Sha256};

/// An image's build context.
#[derive(Debug, Clone, Copy)]
pub struct BuildContext {
    /// Short name of the image, part of its tag and of the directory that the context is written to.
    pub name: &'static str,
    /// Files of the context, including `Dockerfile`.
    pub files: &'static [ContextFile],
}

/// A file of a build context or of a sidecar.
#[derive(Debug, Clone, Copy)]
pub struct ContextFile {
    /// Path in the context.
    pub path: &'static str,
    /// Content of the file.
    pub content: &'static str,
    /// `true` if the file is a program.
    pub executable: bool,
}

/// Embeds files of `images/<directory>`, by their paths there. The files after `programs` are executable, and those after
/// `shared` are in `images/shared`.
macro_rules! embedded {
    (
        $directory:literal: [$($text:literal),* $(,)?],
        programs: [$($program:literal),* $(,)?]
        $(, shared: [$($shared:literal),* $(,)?])? $(,)?
    ) => {
        &[
            $($($crate::ContextFile::text($shared, include_str!(concat!("../images/shared/", $shared))),)*)?
            $($crate::ContextFile::text($text, include_str!(concat!("../images/", $directory, "/", $text))),)*
            $($crate::ContextFile::program($program, include_str!(concat!("../images/", $directory, "/", $program))),)*
        ]
    };
}

pub(crate) use embedded;

impl ContextFile {
    /// Returns a file that is not executable.
    pub const fn text(path: &'static str, content: &'static str) -> Self {
        Self { path, content, executable: false }
    }

    /// Returns an executable file.
    pub const fn program(path: &'static str, content: &'static str) -> Self {
        Self { path, content, executable: true }
    }
}

impl BuildContext {
    /// Returns the hash that names the image: the first 16 hexadecimal digits of a SHA-256.
    ///
    /// It covers every file and build argument. A change of either gives another tag, and an unchanged image is not
    /// built again.
    pub fn content_hash(&self, args: &BTreeMap<String, String>) -> String {
        let mut hash = Sha256::new();
        // Each part is preceded by its length, so that no two contexts give the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        for file in self.files {
            part(file.path.as_bytes());
            part(&[u8::from(file.executable)]);
            part(file.content.as_bytes());
        }
        for (name, value) in args {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        hex(&hash.finalize()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[ContextFile] = &[ContextFile::text("a", "bc")];
    const MOVED: &[ContextFile] = &[ContextFile::text("ab", "c")];
    const PROGRAM: &[ContextFile] = &[ContextFile::program("a", "bc")];

    #[test]
    fn a_changed_file_mode_or_argument_gives_another_hash() {
        let hash = |files: &'static [ContextFile], args: &[(&str, &str)]| {
            let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            BuildContext { name: "x", files }.content_hash(&args)
        };
        let all = [
            hash(TEXT, &[]),
            hash(MOVED, &[]),
            hash(PROGRAM, &[]),
            hash(TEXT, &[("A", "1")]),
            hash(TEXT, &[("A", "2")]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(hash(TEXT, &[]), hash(TEXT, &[]));
        assert_eq!(all[0].len(), 16);
    }
}
