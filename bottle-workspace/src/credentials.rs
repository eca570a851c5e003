//! Files that usually hold credentials.

use std::path::Path;

/// Files by their name, in lower case. A name that begins with `*` stands for every name with that end.
const NAMES: &[&str] = &[
    ".env",
    "*.env",
    ".envrc",
    // HTTP and git
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".htpasswd",
    // package managers
    ".npmrc",
    ".pypirc",
    "auth.json",
    // databases
    ".pgpass",
    ".my.cnf",
    // clouds
    ".boto",
    ".s3cfg",
    ".dockercfg",
    ".terraformrc",
    ".vault-token",
    "application_default_credentials.json",
    "kubeconfig",
    // keys
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.tfstate",
    // by convention
    "credentials",
    "credentials.json",
    "credentials.toml",
    "secrets.json",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
];

/// Files by the end of their path, for names that are ordinary elsewhere.
const PATHS: &[&str] = &[
    ".aws/config",
    ".codex/auth.json",
    ".docker/config.json",
    ".kube/config",
    ".m2/settings.xml",
    ".gradle/gradle.properties",
    ".config/gh/hosts.yml",
];

/// Directories of which every file is one.
const DIRECTORIES: &[&str] = &[".gnupg", ".ssh", ".azure", "gcloud"];

/// Returns true if a file of this path usually holds credentials. Upper and lower case are the same.
///
/// A template such as `.env.example` holds none.
pub(super) fn is_credential_file(path: &Path) -> bool {
    let path = path.to_string_lossy().to_ascii_lowercase();
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or_default();
    if [".example", ".sample", ".template", ".dist"].iter().any(|end| name.ends_with(end)) {
        return false;
    }
    let named = NAMES.iter().any(|known| match known.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => name == *known,
    });
    let placed =
        PATHS.iter().any(|known| path.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('/')));
    named || name.starts_with(".env.") || placed || parts.any(|directory| DIRECTORIES.contains(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_files_are_known_by_name_path_or_directory() {
        for path in [
            ".env",
            "deep/.env.local",
            "prod.env",
            ".envrc",
            "a/.netrc",
            ".npmrc",
            ".git-credentials",
            "home/.aws/credentials",
            ".aws/config",
            ".cargo/credentials.toml",
            "ID_ED25519",
            "tls/server.key",
            ".ssh/anything",
            ".docker/config.json",
            "infra/terraform.tfstate",
        ] {
            assert!(is_credential_file(Path::new(path)), "{path}");
        }
        for path in [
            ".env.example",
            "deploy/prod.env.template",
            "environment.rs",
            "config.json",
            "aws/config",
            "my.docker/config.json",
            "id_rsa.pub",
            "keyboard.rs",
            "ssh/config",
            "secrets/readme.md",
            "credentials.rs",
        ] {
            assert!(!is_credential_file(Path::new(path)), "{path}");
        }
    }
}
