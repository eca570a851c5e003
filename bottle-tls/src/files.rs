use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bottle_files::{NewFile, sync_directory};

use crate::{CertificateAuthority, TlsError};

const DIRECTORY_MODE: u32 = 0o700;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Paths of the files of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaFiles {
    /// `ca.pem`: the certificate, 0644.
    pub certificate: PathBuf,
    /// `ca-key.pem`: the key in SEC1, 0600.
    pub key: PathBuf,
    /// `ca-combined.pem`: the key in PKCS#8 and the certificate, 0600.
    pub combined: PathBuf,
}

impl CaFiles {
    /// Returns the paths inside `directory`, whether or not the files exist.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            certificate: directory.join("ca.pem"),
            key: directory.join("ca-key.pem"),
            combined: directory.join("ca-combined.pem"),
        }
    }
}

impl CertificateAuthority {
    /// Writes the authority into `directory`. The directory is created if it is missing (its parent is not), and gets
    /// mode 0700. Keys have mode 0600 from the start and the certificate has mode 0644, whatever the umask. Each file
    /// is written under a temporary name and renamed. A reader sees the old file or the new one. A symbolic link in a
    /// file's place is replaced, not followed.
    ///
    /// # Errors
    /// Returns an error when the directory cannot be created, is a link or another kind of file, or when a file cannot
    /// be written. Files that the call had already written are then removed.
    pub fn write_to(&self, directory: &Path) -> Result<CaFiles, TlsError> {
        let made = make_directory(directory)?;
        let files = CaFiles::in_directory(directory);
        let combined = self.combined_pem();
        let contents = [
            (&files.key, self.key_sec1_pem().expose(), KEY_MODE),
            (&files.combined, combined.expose(), KEY_MODE),
            (&files.certificate, self.certificate_pem(), CERTIFICATE_MODE),
        ];
        let mut written = 0;
        let outcome = contents
            .iter()
            .try_for_each(|(path, text, mode)| {
                let write = || {
                    let mut file = NewFile::create(path, *mode)?;
                    file.write_all(text.as_bytes())?;
                    file.sync()?;
                    file.replace()
                };
                write().map_err(|error| failed("write", path, error))?;
                written += 1;
                Ok(())
            })
            .and_then(|()| sync_directory(directory).map_err(|error| failed("write", directory, error)));
        if let Err(error) = outcome {
            // Report the first failure only. A file that cannot be removed either is in a directory of mode 0700.
            for (path, ..) in &contents[..written] {
                fs::remove_file(path).ok();
            }
            if made {
                fs::remove_dir(directory).ok();
            }
            return Err(error);
        }
        Ok(files)
    }
}

/// Creates `directory` if it is missing. Returns true if it was created.
fn make_directory(directory: &Path) -> Result<bool, TlsError> {
    let made = match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed("make the directory", directory, error)),
    };
    // Not `metadata`, which follows links: keys could end up anywhere.
    let kind = fs::symlink_metadata(directory).map_err(|error| failed("look at", directory, error))?;
    if !kind.is_dir() {
        return Err(failed("write keys into", directory, io::ErrorKind::NotADirectory.into()));
    }
    // The umask may have removed bits from a new directory, and an existing one may have too many.
    if kind.permissions().mode() & 0o7777 != DIRECTORY_MODE {
        fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(|error| failed("set the mode of", directory, error))?;
    }
    Ok(made)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> TlsError {
    TlsError::File { action, path: path.to_path_buf(), source }
}
