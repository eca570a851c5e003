//! Files that usually hold credentials.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use flate2::bufread::MultiGzDecoder;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use memchr::memmem;

/// Bytes at the beginning of a file, and of what it unpacks to, that are searched for private keys.
pub(super) const SEARCHED: usize = 8 << 20;

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
    ".curlrc",
    ".cvspass",
    ".lftprc",
    ".{mailrc,msmtprc,muttrc}",
    "{.ftpconfig,sftp-config.json,sftp.json}",
    "**/.svn/auth/**",
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
    ".dbshell",
    ".databrickscfg",
    "datasources.local.xml",
    // clouds and their tools
    ".boto",
    ".s3cfg",
    ".passwd-s3fs",
    "{.rclone,rclone}.conf",
    "**/.config/{hub,openai,anthropic,cohere,mistral,replicate}",
    "{accesskeys,rootkey}.csv",
    ".{clasprc,sentryclirc,ngrok.yml}",
    ".clasprc.json",
    "{.p4tickets,p4tickets.txt}",
    "{gcp,gcloud,firebase,sa}.json",
    "**/.supabase/access-token",
    "**/.expo/state.json",
    "**/.netlify/config.json",
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
    "vault.{yml,yaml}",
    "{keystore,local}.properties",
    "*.secret.{yaml,yml,json}",
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
    "{deploy,ci,ssh}[-_]key",
    "core.[0-9]*",
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
    "{.lesshst,.viminfo}",
    // by convention
    "{credentials,.credentials,.smbcredentials,.secrets}",
    "{credential,credentials,secret,secrets}.*",
    ".{credential,credentials,secret,secrets}.*",
    "{credentials,secrets}[-_.]*.{json,toml,yaml,yml,ini,env,properties}",
    "*[-_.]{credentials,secrets}.{json,toml,yaml,yml,ini,env,properties}",
    "{password,passwords,passwd}.{txt,csv}",
    "{api_key,apikey,api-key,token}.{txt,json,pickle}",
    ".{api_key,apikey,api-key,token,password,secret}",
    ".*[-_]{api_key,apikey,key,token,credentials}",
    "{github,gitlab,gh,oauth,access,api,npm}[-_]token*",
    "*[-_]{credentials,credential}.csv",
    "*[-_]api[-_]key",
    "*.secrets",
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
    ".ansible/",
    ".gsutil/",
    ".jfrog/",
    ".ngrok2/",
    ".railway/",
    ".snowsql/",
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
    "**/.config/{gcloud,gh,glab-cli,github-copilot,op,doctl,rclone,hcloud,heroku,hub,configstore,openai,anthropic,netlify,stripe,ngrok,.wrangler,chromium,google-chrome}/",
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

/// Beginnings of base64 that only private keys have: of OpenSSH, PKCS #8 (RSA, P-256, P-384, Ed25519), PKCS #1 and SEC 1.
const ENCODED: [&str; 11] = [
    "b3BlbnNzaC1rZXktdjEA",
    "IBADANBgkqhkiG9w0BAQEFAASC",
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
    "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDA",
    "MC4CAQAwBQYDK2VwBCIEI",
    "MHcCAQEEI",
    "MIGkAgEBBDA",
    "IBAAKCAQEA",
    "IBAAKCAYEA",
    "IBAAKCAgEA",
    "IBAAKBgQ",
];

/// `-----BEGIN ` in base64, as the first bytes of what is encoded.
const ENCODED_PEM: &str = "LS0tLS1CRUdJTi";

/// Returns true if the beginning of a file has a private key: of PEM, OpenSSH or PGP with its body, of `PuTTY` or age, in DER, or
/// one of these in base64 or gzip.
pub(super) fn has_private_key(start: &[u8]) -> bool {
    if start.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        // What is cut off, or damaged at its end, is searched up to there.
        let _ = MultiGzDecoder::new(start).take(SEARCHED as u64).read_to_end(&mut unpacked);
        return !unpacked.starts_with(&[0x1f, 0x8b]) && has_private_key(&unpacked);
    }
    has_key_as_it_is(start)
        || is_der(start)
        || memmem::find_iter(start, ENCODED_PEM).any(|at| is_encoded_pem(&start[at..]))
}

/// Characters of base64 that are decoded to see whether a PEM of a private key begins there.
const ENCODED_PEM_LENGTH: usize = 400;

/// Returns true if a text begins with a private key's PEM in base64, whose lines may end with a written `\n`.
fn is_encoded_pem(text: &[u8]) -> bool {
    let mut text = text[..text.len().min(ENCODED_PEM_LENGTH)].to_vec();
    let gaps: Vec<usize> = memmem::find_iter(&text, "\\n").collect();
    for gap in gaps {
        text[gap..gap + 2].fill(b' ');
    }
    text.retain(|byte| !byte.is_ascii_whitespace());
    let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)).count();
    let whole = &text[..length - length % 4];
    base64::engine::general_purpose::STANDARD.decode(whole).is_ok_and(|decoded| has_key_as_it_is(&decoded))
}

/// Returns true if a file is a private key in DER: PKCS #8, also encrypted, PKCS #1 or SEC 1.
fn is_der(file: &[u8]) -> bool {
    // PKCS #5, scheme 2.
    const ENCRYPTED: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    let Some([0x30, length]) = file.first_chunk() else { return false };
    let (header, length) = match length {
        0x81 => (3, file.get(2).map(|byte| usize::from(*byte))),
        0x82 => (4, file.get(2..4).map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]))),
        short => (2, Some(usize::from(*short))),
    };
    let (Some(length), Some(body)) = (length, file.get(header..)) else { return false };
    let begins = |start: &[u8]| body.starts_with(start);
    let is_key = begins(&[2, 1, 0, 0x30]) || begins(&[2, 1, 1, 0x30]) || begins(&[2, 1, 0, 2]) || begins(&[2, 1, 1, 4]);
    length == body.len() && (is_key || body.get(2..).is_some_and(|rest| rest.starts_with(ENCRYPTED)))
}

/// Returns true if a text has a private key that is not encoded as a whole.
fn has_key_as_it_is(start: &[u8]) -> bool {
    let follows =
        |at: usize, most: usize| start.get(at..).map(|rest| &rest[..rest.len().min(most)]).unwrap_or_default();
    let is_armored = memmem::find_iter(start, "-----BEGIN ").any(|at| {
        let (label, rest) = split_at(follows(at + 11, 200), b"-----");
        (label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK")) && is_body(rest)
    });
    let has = |sign: &str, length: usize| {
        memmem::find_iter(start, sign).any(|at| {
            let text = follows(at + sign.len(), length);
            text.len() == length && is_base64(text)
        })
    };
    let is_putty =
        memmem::find(start, b"PuTTY-User-Key-File-").is_some() && memmem::find(start, b"Private-Lines: ").is_some();
    is_armored || is_putty || has("AGE-SECRET-KEY-1", 40) || ENCODED.iter().any(|sign| has(sign, 20))
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
    text.len() == 40 && is_base64(text)
}

fn is_base64(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
            ".config/hub",
            ".config/openai",
            ".config/stripe/config.toml",
            ".svn/auth/svn.simple/1",
            ".anthropic_key",
            ".openai_api_key",
            ".github_token",
            "github-token.txt",
            "oauth_token",
            ".aws-credentials",
            "aws_credentials.csv",
            "accessKeys.csv",
            "rootkey.csv",
            "ANTHROPIC_API_KEY",
            "app.secrets",
            "values.secret.yaml",
            "deploy_key",
            "local.properties",
            ".gsutil/credstore",
            ".jfrog/jfrog-cli.conf",
            ".railway/config.json",
            ".idea/dataSources.local.xml",
            ".vscode/sftp.json",
            "group_vars/vault.yml",
            ".curlrc",
            ".msmtprc",
            ".p4tickets",
            ".viminfo",
            "core.123",
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
            "ansible.cfg",
            "src/core.1.rs",
            ".mcp.json",
            "docs/token",
            "tokenizer.json",
            "config/database.yml",
            ".vscode/settings.json",
            ".idea/dataSources.xml",
            "vault.hcl",
            "public_key",
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
        let pem = format!("{}\n-----END PRIVATE KEY-----\n", key("PRIVATE KEY", "\n"));
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        assert!(found("late.txt", &format!("{}{pem}", "x".repeat(100 << 10))));
        assert!(found("putty.txt", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAA\n"));
        assert!(found("k.yaml", &format!("client-key-data: {}\n", encode(pem.as_bytes()))));
        let lines = encode(pem.as_bytes()).as_bytes().chunks(60).map(<[u8]>::to_vec).collect::<Vec<_>>().join(&b'\n');
        assert!(has_private_key(&lines));
        assert!(found("vars", &format!("KEY={body}")) && found("vars", &format!("A=MHcCAQEEI{}", "B".repeat(40))));
        let packed = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        assert!(has_private_key(&packed(pem.as_bytes())));
        assert!(has_private_key(&[packed(b"first"), packed(pem.as_bytes())].concat()));
        assert!(!has_private_key(&packed(b"notes")) && !has_private_key(&packed(&packed(b"notes"))));
        let mut der = vec![0x30, 0x82, 1, 4, 2, 1, 0, 0x30];
        der.resize(4 + 0x104, 7);
        assert!(has_private_key(&der));
        assert!(!has_private_key(&der[..200]), "it is not as long as it says");
        assert!(has_private_key(
            &[&[0x30, 13, 0x30, 11][..], &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 0x0d]].concat()
        ));
        assert!(!has_private_key(&[0x30, 6, 0x30, 4, 2, 1, 0, 0]), "a certificate begins with a sequence");
        let certificate = encode(key("CERTIFICATE", "\n").as_bytes());
        for (name, text) in [
            ("kubeconfig.txt", format!("certificate-authority-data: {certificate}\n")),
            ("cert.pem", key("CERTIFICATE", "\n").replace(body, "MIIBszCCAVmgAwIBAgIUQ2")),
            ("id.pub", key("PUBLIC KEY", "\n").replace(body, "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA")),
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
