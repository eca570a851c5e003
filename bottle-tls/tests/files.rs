//! Files of an authority on disk, also after a failed write.
#![expect(clippy::unwrap_used, reason = "a helper of the tests fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::{
    error::Error as _,
    fs,
    io::ErrorKind,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use bottle_tls::{CaFiles, CaRole, TlsError};
use rustix::fs::Mode;

mod common;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_modes(directory: &Path, files: &CaFiles) {
    assert_eq!(mode(directory), 0o700);
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(mode(&files.combined), 0o600);
    assert_eq!(mode(&files.certificate), 0o644);
}

fn error_of(result: Result<CaFiles, TlsError>) -> (String, ErrorKind) {
    let error = result.unwrap_err();
    let source: &std::io::Error = error.source().unwrap().downcast_ref().unwrap();
    (error.to_string(), source.kind())
}

#[test]
fn each_file_has_its_format_and_mode() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pipelock");
    let authority = common::mint(CaRole::Pipelock);
    let files = authority.write_to(&directory).unwrap();
    assert_eq!(files, CaFiles::in_directory(&directory));
    assert_eq!(fs::read_to_string(&files.certificate).unwrap(), authority.certificate_pem());
    assert!(fs::read_to_string(&files.key).unwrap() == authority.key_sec1_pem().expose());
    assert!(fs::read_to_string(&files.combined).unwrap() == authority.combined_pem().expose());
    assert_eq!(names(&directory), ["ca-combined.pem", "ca-key.pem", "ca.pem"]);
    assert_modes(&directory, &files);
}

#[test]
fn an_older_authority_is_replaced_and_its_directory_gets_mode_0700() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("egress");
    common::mint(CaRole::Egress).write_to(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let files = CaFiles::in_directory(&directory);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o666)).unwrap();

    let authority = common::mint(CaRole::Egress);
    authority.write_to(&directory).unwrap();
    assert!(fs::read_to_string(&files.key).unwrap() == authority.key_sec1_pem().expose());
    assert_eq!(names(&directory).len(), 3);
    assert_modes(&directory, &files);
}

#[test]
fn a_link_in_a_file_s_place_is_replaced_and_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pipelock");
    let elsewhere = root.path().join("elsewhere");
    fs::create_dir(&directory).unwrap();
    fs::write(&elsewhere, "untouched").unwrap();
    let files = CaFiles::in_directory(&directory);
    for path in [&files.key, &files.combined, &files.certificate] {
        symlink(&elsewhere, path).unwrap();
    }
    common::mint(CaRole::Pipelock).write_to(&directory).unwrap();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
    assert!(fs::symlink_metadata(&files.key).unwrap().is_file());
    assert_modes(&directory, &files);
}

#[test]
fn a_link_in_the_directory_s_place_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = root.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let directory = root.path().join("pipelock");
    symlink(&elsewhere, &directory).unwrap();
    let (text, kind) = error_of(common::mint(CaRole::Pipelock).write_to(&directory));
    assert_eq!(kind, ErrorKind::NotADirectory);
    assert!(text.contains(directory.to_str().unwrap()));
    assert!(names(&elsewhere).is_empty());
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let authority = common::mint(CaRole::Pipelock);

    let orphan = root.path().join("missing/pipelock");
    let (text, kind) = error_of(authority.write_to(&orphan));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("make the directory"), "{text}");

    let file = root.path().join("file");
    fs::write(&file, "untouched").unwrap();
    assert_eq!(error_of(authority.write_to(&file)).1, ErrorKind::NotADirectory);
    assert_eq!(fs::read_to_string(&file).unwrap(), "untouched");
    assert_eq!(names(root.path()), ["file"]);

    // The last of the three files cannot be renamed. The first two, which hold keys, are removed.
    let directory = root.path().join("pipelock");
    fs::create_dir_all(directory.join("ca.pem/occupied")).unwrap();
    let (text, _) = error_of(authority.write_to(&directory));
    assert!(text.starts_with("write `") && text.ends_with("ca.pem`"), "{text}");
    assert_eq!(names(&directory), ["ca.pem"]);
}

#[test]
fn a_read_only_directory_is_an_error() {
    // Root may write everywhere except in a file system that does not allow it.
    let directory = if rustix::process::geteuid().is_root() {
        Path::new("/proc").to_path_buf()
    } else {
        let root = tempfile::tempdir().unwrap().keep();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o500)).unwrap();
        root
    };
    let before = names(&directory).len();
    let (text, _) = error_of(common::mint(CaRole::Egress).write_to(&directory.join("egress")));
    assert!(text.contains("make the directory"), "{text}");
    if directory != Path::new("/proc") {
        assert_eq!(names(&directory).len(), before);
        fs::remove_dir(&directory).unwrap();
    }
}

/// Runs an ignored test of this binary in a child process, behind a shell that first sets umask or file size limit.
/// Both apply to a whole process, so the two tests below need one of their own.
fn in_a_child(prelude: &str, test: &str, directory: &Path) {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{prelude}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("1 passed") && !report.contains("skipped"), "{report}");
}

const CHILD_DIRECTORY: &str = "BOTTLE_TLS_TEST_DIRECTORY";

/// Returns the directory that the parent chose for the child. `None` if the ignored tests were run by hand.
#[expect(clippy::disallowed_methods, reason = "a test tells its child process where to work")]
fn child_directory() -> Option<PathBuf> {
    let directory = std::env::var_os(CHILD_DIRECTORY);
    if directory.is_none() {
        println!("skipped: this is run by its parent test");
    }
    directory.map(PathBuf::from)
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let root = tempfile::tempdir().unwrap();
    for umask in ["000", "022", "077", "0777"] {
        let directory = root.path().join(umask);
        in_a_child(&format!("umask {umask}"), "child_under_a_umask", &directory);
        assert_modes(&directory, &CaFiles::in_directory(&directory));
    }
}

#[test]
#[ignore = "the second half of `modes_do_not_depend_on_the_umask`"]
fn child_under_a_umask() {
    let Some(directory) = child_directory() else {
        return;
    };
    let umask = rustix::process::umask(Mode::empty());
    rustix::process::umask(umask);
    let asked = u32::from_str_radix(directory.file_name().unwrap().to_str().unwrap(), 8).unwrap();
    assert_eq!(umask.bits() & 0o777, asked, "the stage is not set");
    common::mint(CaRole::Pipelock).write_to(&directory).unwrap();
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    // The file size limit is 0 and its signal is ignored, so each write fails as on a full disk.
    in_a_child("trap '' XFSZ; ulimit -f 0", "child_on_a_full_disk", root.path());
    assert!(names(root.path()).is_empty());
}

#[test]
#[ignore = "the second half of `a_full_disk_leaves_nothing_behind`"]
fn child_on_a_full_disk() {
    let Some(root) = child_directory() else {
        return;
    };
    let authority = common::mint(CaRole::Pipelock);
    let (text, kind) = error_of(authority.write_to(&root.join("pipelock")));
    assert_eq!(kind, ErrorKind::FileTooLarge);
    assert!(text.ends_with("ca-key.pem`"), "{text}");
    assert!(names(&root).is_empty());
}
