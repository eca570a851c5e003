//! Files that usually hold credentials.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use memchr::memmem;

/// Bytes at the beginning of a file that are searched for private keys.
pub(super) const SEARCHED: usize = 64 << 10;

/// Files by their name or the end of their path, as `.gitignore` writes it. Upper and lower case are the same. The last
/// pattern that matches decides; one with `!` keeps the file, unless it is in one of the [`DIRECTORIES`].
const FILES: &[&str] = &[
    // HTTP and git
    "{.,_}netrc",
    ".netrc.*",
    ".authinfo*",
    ".git-credentials*",
    ".gitcookies",
    "{.htpasswd,htpasswd,.htdigest}",
    ".wgetrc",
    ".hgrc",
    "**/.hg/hgrc",
    "cookies.{txt,sqlite}",
    // package managers
    ".npmrc",
    ".yarnrc*",
    ".pypirc",
    ".condarc",
    ".bunfig.toml",
    "pip.{conf,ini}",
    "auth.{json,toml}",
    "**/.bundle/config",
    "**/.m2/settings*.xml",
    "settings-security.xml",
    "**/.gradle/gradle.properties",
    "**/.nuget/nuget.config",
    "**/.nuget/nuget/nuget.config",
    "**/.hex/hex.config",
    // databases
    ".pgpass",
    "pgpass.conf",
    ".pg_service.conf",
    "{.my,.mylogin}.cnf",
    ".rediscli_auth",
    // clouds and their tools
    ".boto",
    ".s3cfg",
    ".passwd-s3fs",
    "rclone.conf",
    "kubeconfig*",
    "*.kubeconfig",
    ".dockercfg",
    ".dockerconfigjson",
    "**/.docker/config.json",
    ".terraformrc",
    "terraform.rc",
    "*.tfrc.json",
    "*.tfvars",
    "*.tfvars.json",
    "*.tfstate",
    "*.tfstate.*",
    "{.vault,vault}[-_]token",
    "{.vault,vault}[-_]pass*",
    "**/.pulumi/credentials.json",
    "application_default_credentials.json",
    "{access_tokens,credentials}.db",
    "client_secret*.json",
    "*{service-account,service_account,serviceaccount,firebase-adminsdk}*.json",
    "{gcp,gcloud}[-_]key.json",
    "local.settings.json",
    ".dev.vars*",
    // agents and models
    ".claude.json",
    "oauth_creds.json",
    ".aider.conf.yml",
    "kaggle.json",
    "**/huggingface/token",
    // keys
    "id_{rsa,dsa,ecdsa,ed25519,ecdsa_sk,ed25519_sk}",
    "id_{rsa,dsa,ecdsa,ed25519}[-_.]*",
    "*.{key,p8,p12,pfx,pk8,ppk,jks,bks,keystore,keytab,kdb,kdbx,psafe3,ovpn,agekey,keychain,keychain-db}",
    "{key,private}.pem",
    "*[-_.]{key,privkey,private}.pem",
    "privkey*.pem",
    "secring.*",
    "wallet.dat",
    "UTC--*",
    "wg[0-9].conf",
    // browsers
    "{login data,logins.json,key[34].db}",
    // shells and other programs that keep what was typed
    ".*_history",
    "{.history,.zhistory,.histfile}",
    "fish_history",
    "consolehost_history.txt",
    // by convention
    "{credentials,.credentials,.smbcredentials,.secrets}",
    "{credential,credentials,secret,secrets}.*",
    ".{credential,credentials,secret,secrets}.*",
    "{credentials,secrets}[-_.]*.{json,toml,yaml,yml,ini,env,properties}",
    "*[-_.]{credentials,secrets}.{json,toml,yaml,yml,ini,env,properties}",
    "{password,passwords,passwd}.{txt,csv}",
    "{api_key,apikey,api-key,token}.{txt,json,pickle}",
    ".{api_key,apikey,api-key,token,password}",
    // Source, documentation, templates of charts, and what is encrypted.
    "!*.{rs,go,py,pyi,js,mjs,cjs,jsx,ts,mts,cts,tsx,vue,svelte,java,kt,kts,scala,c,cc,cpp,h,hpp,cs,fs,rb,erb,php,swift,m}",
    "!*.{ex,exs,erl,hs,ml,clj,dart,lua,pl,r,jl,zig,nix,tf,sql,proto,graphql,md,mdx,rst,adoc,html,css,scss,svg}",
    "!*.enc",
    "!**/templates/*.{yaml,yml}",
    // environments
    ".env",
    ".env[-_.~]*",
    "..env.sw?",
    "*.env",
    "*.env.{bak,local,old,orig}",
    ".envrc*",
    "!*.d.ts",
    // Examples hold no credential. A public key is none.
    "!*.{example,sample,template,dist,tmpl,tpl,j2,pub}",
    "!.env.{example,sample,template,dist}.*",
    "!{example,sample,template}.{env,tfvars}",
    "!*[-_.]{example,sample,template}.{env,tfvars,json,toml,yaml,yml}",
];

/// Directories of which every file is one.
const DIRECTORIES: &[&str] = &[
    ".ssh/",
    ".gnupg/",
    ".aws/",
    ".azure/",
    ".kube/",
    ".oci/",
    ".aliyun/",
    ".bluemix/",
    ".gcloud/",
    ".fly/",
    ".cloudflared/",
    ".terraform.d/",
    ".secrets/",
    ".credentials/",
    ".history/",
    ".huggingface/",
    ".anthropic/",
    ".password-store/",
    ".putty/",
    ".mozilla/",
    "*.agilekeychain/",
    "legacy_credentials/",
    "**/.docker/contexts/",
    "**/.subversion/auth/",
    "**/.wrangler/config/",
    "**/.local/share/keyrings/",
    "**/.config/{gcloud,gh,glab-cli,github-copilot,op,doctl,rclone,hcloud,heroku,hub,configstore,.wrangler,chromium,google-chrome}/",
    "**/share/fish/",
];

/// Names that are the source of a program. A key in it is a test's, more often than not.
const SOURCE: &[&str] = &[
    "rs", "go", "py", "js", "mjs", "cjs", "ts", "jsx", "tsx", "java", "kt", "scala", "c", "cc", "cpp", "h", "hpp",
    "cs", "rb", "php", "swift", "ex", "exs", "erl", "hs", "ml", "clj", "dart", "lua", "pl",
];

/// The names of files that usually hold credentials.
pub(super) struct Names {
    files: Gitignore,
    directories: Gitignore,
}

impl Names {
    pub(super) fn new() -> Result<Self, ignore::Error> {
        let compiled = |patterns: &[&str]| {
            let mut builder = GitignoreBuilder::new("");
            builder.case_insensitive(true)?;
            for pattern in patterns {
                builder.add_line(None, pattern)?;
            }
            builder.build()
        };
        Ok(Self { files: compiled(FILES)?, directories: compiled(DIRECTORIES)? })
    }

    /// Returns true if a file of this path, relative to the workspace, usually holds credentials.
    pub(super) fn has(&self, path: &Path) -> bool {
        let mut above = path.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty());
        match self.files.matched(path, false) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => above.any(|directory| self.directories.matched(directory, true).is_ignore()),
        }
    }
}

/// Returns true for a name that is the source of a program, which is not searched for keys.
pub(super) fn is_source(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    SOURCE.contains(&extension.as_str())
}

/// Returns true if the beginning of a file has a private key: of PEM, OpenSSH or PGP with its body, or of age.
pub(super) fn has_private_key(start: &[u8]) -> bool {
    let follows =
        |at: usize, most: usize| start.get(at..).map(|rest| &rest[..rest.len().min(most)]).unwrap_or_default();
    let is_armored = memmem::find_iter(start, "-----BEGIN ").any(|at| {
        let (label, rest) = split_at(follows(at + 11, 200), b"-----");
        (label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK")) && is_body(rest)
    });
    is_armored || memmem::find_iter(start, "AGE-SECRET-KEY-1").any(|at| is_encoded(follows(at + 16, 40)))
}

/// Returns what is before and after the first `separator`. Nothing is after it if there is none.
fn split_at<'a>(text: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = memmem::find(text, separator).unwrap_or(text.len());
    (&text[..at], text.get(at + separator.len()..).unwrap_or_default())
}

/// Returns true if the text is the body of a key: 40 characters of base64 after the end of the line, which JSON writes as
/// `\n`, or a header such as `Proc-Type: `.
fn is_body(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"\\r").unwrap_or(text);
    let text = text.strip_prefix(b"\\n").unwrap_or(text).trim_ascii_start();
    let headers: [&[u8]; 5] = [b"Proc-Type:", b"Version:", b"Comment:", b"Hash:", b"Charset:"];
    headers.iter().any(|header| text.starts_with(header)) || text.get(..40).is_some_and(is_encoded)
}

fn is_encoded(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_files_are_known_by_name_path_or_directory() {
        let names = Names::new().unwrap();
        for path in [
            ".env",
            "deep/.env.local",
            ".env~",
            "..env.swp",
            "prod.env",
            "app.env.local",
            ".envrc",
            "a/.netrc",
            "_netrc",
            ".npmrc",
            ".yarnrc.yml",
            ".git-credentials",
            ".htpasswd",
            "home/.aws/credentials",
            ".aws/config",
            ".aws/sso/cache/1.json",
            ".azure/msal_token_cache.json",
            ".config/gcloud/credentials.db",
            ".config/gh/hosts.yml",
            ".kube/config",
            "deploy/kubeconfig.yaml",
            ".docker/config.json",
            ".cargo/credentials.toml",
            ".gem/credentials",
            ".m2/settings.xml",
            ".gradle/gradle.properties",
            ".terraform.d/credentials.tfrc.json",
            "infra/prod.tfvars",
            "infra/terraform.tfstate",
            "infra/terraform.tfstate.backup",
            ".claude/.credentials.json",
            ".codex/auth.json",
            ".gemini/oauth_creds.json",
            ".pgpass",
            ".my.cnf",
            ".boto",
            ".s3cfg",
            ".vault-token",
            "ID_ED25519",
            "id_rsa_work",
            "id_ed25519.bak",
            "tls/server.key",
            "tls/privkey1.pem",
            "store.p12",
            "passwords.kdbx",
            "office.ovpn",
            ".ssh/anything",
            "my-service-account-1.json",
            "secrets.yml",
            "config/secrets.prod.yaml",
            "db-credentials.json",
            ".bash_history",
            ".psql_history",
            "fish_history",
        ] {
            assert!(names.has(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn ordinary_files_are_kept() {
        let names = Names::new().unwrap();
        for path in [
            ".env.example",
            ".env.sample",
            ".env.template",
            "deploy/prod.env.template",
            "example.env",
            "terraform.tfvars.example",
            "environment.rs",
            "src/env.d.ts",
            "config.json",
            "aws/config",
            "my.docker/config.json",
            ".docker/Dockerfile",
            "id_rsa.pub",
            ".ssh/id_rsa.pub",
            "id_rsa_test.go",
            "keyboard.rs",
            "ssh/config",
            "gcloud/deploy.sh",
            "secrets/readme.md",
            "docs/secrets.md",
            "src/credentials.rs",
            "src/credentials/mod.rs",
            "src/secrets/index.ts",
            "src/token.rs",
            "chart/templates/secrets.yaml",
            "config/credentials.yml.enc",
            ".cargo/config.toml",
            ".claude/settings.json",
            ".gitlab-ci.yml",
            ".gitignore",
            "gradle.properties",
            "tests/fixtures/cert.pem",
            "tests/fixtures/key.rs",
            "docs/history.md",
            "package.json",
            "Makefile",
            "main.tf",
            "kubeconfig.go",
        ] {
            assert!(!names.has(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn private_keys_are_found_in_the_content() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
        let key = |label: &str, between: &str| format!("-----BEGIN {label}-----{between}{body}");
        let found = |name: &str, text: &str| !is_source(Path::new(name)) && has_private_key(text.as_bytes());
        for label in
            ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
        {
            assert!(found("notes", &format!("Bag Attributes\n{}", key(label, "\r\n"))), "{label}");
        }
        assert!(found("sa.json", &format!("{{\"private_key\": \"{}", key("PRIVATE KEY", "\\n"))));
        assert!(found("values.yaml", &format!("key: |\n  {}", key("EC PRIVATE KEY", "\n  "))));
        assert!(found("old.txt", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(found("keys.txt", &format!("# created\nAGE-SECRET-KEY-1{}", "Q".repeat(58))));
        for (name, text) in [
            ("cert.pem", key("CERTIFICATE", "\n")),
            ("id.pub", key("PUBLIC KEY", "\n")),
            ("docs.md", "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----".to_owned()),
            ("rules.toml", "regex = '-----BEGIN [A-Z ]*PRIVATE KEY-----'".to_owned()),
            ("tests/key.rs", key("PRIVATE KEY", "\n")),
            ("end", "-----BEGIN ".to_owned()),
            ("end", "-----BEGIN PRIVATE KEY-----".to_owned()),
        ] {
            assert!(!found(name, &text), "{name}: {text}");
        }
    }
}
