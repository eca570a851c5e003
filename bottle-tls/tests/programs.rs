//! Tests of an authority with openssl, Python, Node and Go. A test is skipped with a message if its program is not
//! installed.
#![expect(clippy::unwrap_used, reason = "a helper of the tests fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bottle_tls::{CaFiles, CaRole, CertificateAuthority, trust_bundle};
use common::HOST;

mod common;

/// An authority on disk with one of its leaves, and an unrelated authority.
struct Stage {
    root: tempfile::TempDir,
    authority: CertificateAuthority,
    files: CaFiles,
    leaf: PathBuf,
    leaf_key: PathBuf,
    bundle: PathBuf,
    foreign_bundle: PathBuf,
}

impl Stage {
    /// Returns `None` if `program` is not installed.
    fn for_program(program: &str, version: &str) -> Option<Self> {
        if Command::new(program).arg(version).output().is_ok_and(|output| output.status.success()) {
            return Some(Self::new());
        }
        println!("skipped: there is no working `{program}` here");
        None
    }

    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let [authority, foreign, stranger] = [CaRole::Pipelock, CaRole::Pipelock, CaRole::Egress].map(common::mint);
        let leaf = common::leaf(&authority);
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        // The unrelated authority stands for the system's roots.
        let bundle =
            |of: &CertificateAuthority| trust_bundle(stranger.certificate_pem(), of.certificate_pem()).unwrap();
        Self {
            files: authority.write_to(&root.path().join("pipelock")).unwrap(),
            leaf: write("leaf.pem", &leaf.certificate.pem()),
            leaf_key: write("leaf-key.pem", &leaf.key.serialize_pem()),
            bundle: write("bundle.pem", &bundle(&authority)),
            foreign_bundle: write("foreign.pem", &bundle(&foreign)),
            authority,
            root,
        }
    }

    fn openssl_verify(&self, leaf: &Path, untrusted: Option<&Path>) -> Output {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-purpose", "sslserver"]);
        command.args(["-verify_hostname", HOST, "-no-CApath", "-no-CAstore", "-CAfile"]);
        command.arg(&self.files.certificate);
        if let Some(chain) = untrusted {
            command.arg("-untrusted").arg(chain);
        }
        command.arg(leaf).output().unwrap()
    }
}

/// Returns the output of a program that must succeed.
fn succeed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the error output of a program that must fail.
fn fail(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn openssl_verifies_a_leaf_strictly() {
    let Some(stage) = Stage::for_program("openssl", "version") else {
        return;
    };
    assert!(succeed(&stage.openssl_verify(&stage.leaf, None)).ends_with(": OK"));
}

#[test]
fn openssl_refuses_an_intermediate_authority() {
    let Some(stage) = Stage::for_program("openssl", "version") else {
        return;
    };
    let middle = common::intermediate(&stage.authority);
    let leaf = common::issue_below(&middle);
    let chain = stage.root.path().join("middle.pem");
    let path = stage.root.path().join("below.pem");
    fs::write(&chain, middle.certificate.pem()).unwrap();
    fs::write(&path, leaf.certificate.pem()).unwrap();
    let complaint = fail(&stage.openssl_verify(&path, Some(&chain)));
    assert!(complaint.contains("path length constraint exceeded"), "{complaint}");
}

#[test]
fn openssl_accepts_the_key() {
    let Some(stage) = Stage::for_program("openssl", "version") else {
        return;
    };
    let run = |arguments: &[&str], file: &Path| {
        Command::new("openssl").args(arguments).arg("-in").arg(file).output().unwrap()
    };
    succeed(&run(&["ec", "-check", "-noout"], &stage.files.key));
    succeed(&run(&["pkey", "-check", "-noout"], &stage.files.combined));
    let public = succeed(&run(&["x509", "-noout", "-pubkey"], &stage.files.certificate));
    for key in [&stage.files.key, &stage.files.combined] {
        assert_eq!(succeed(&run(&["pkey", "-pubout"], key)), public);
    }
    let shown = succeed(&run(&["x509", "-noout", "-fingerprint", "-sha256"], &stage.files.combined));
    assert_eq!(shown.rsplit('=').next().unwrap(), stage.authority.fingerprint().to_string());
}

#[test]
fn python_completes_a_strict_handshake() {
    let Some(stage) = Stage::for_program("python3", "--version") else {
        return;
    };
    let run = |bundle: &Path| {
        Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/handshake.py"))
            .args([&stage.leaf, &stage.leaf_key, Path::new(HOST), &stage.files.combined])
            .env("SSL_CERT_FILE", bundle)
            .env("SSL_CERT_DIR", stage.root.path().join("none"))
            .output()
            .unwrap()
    };
    assert_eq!(succeed(&run(&stage.bundle)), "hello");
    let complaint = fail(&run(&stage.foreign_bundle));
    assert!(complaint.contains("CERTIFICATE_VERIFY_FAILED"), "{complaint}");
}

#[test]
fn node_completes_a_handshake() {
    let Some(stage) = Stage::for_program("node", "--version") else {
        return;
    };
    let run = |bundle: &Path| {
        Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/handshake.js"))
            .args([&stage.leaf, &stage.leaf_key, Path::new(HOST)])
            .env("NODE_EXTRA_CA_CERTS", bundle)
            .output()
            .unwrap()
    };
    assert_eq!(succeed(&run(&stage.bundle)), "hello");
    let complaint = fail(&run(&stage.foreign_bundle));
    assert!(complaint.contains("UNABLE_TO_VERIFY_LEAF_SIGNATURE"), "{complaint}");
}

#[test]
fn go_signs_and_serves_with_the_authority() {
    let Some(stage) = Stage::for_program("go", "version") else {
        return;
    };
    let run = |key: &Path| {
        Command::new("go")
            .arg("run")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/handshake.go"))
            .args([&stage.files.certificate, key, Path::new(HOST)])
            .current_dir(stage.root.path())
            .env("GO111MODULE", "off")
            .env("GOTOOLCHAIN", "local")
            .output()
            .unwrap()
    };
    let leaf = stage.root.path().join("go-leaf.pem");
    fs::write(&leaf, succeed(&run(&stage.files.key))).unwrap();
    if Command::new("openssl").arg("version").output().is_ok() {
        assert!(succeed(&stage.openssl_verify(&leaf, None)).ends_with(": OK"));
    }
    // This program refuses PKCS#8, so swapping the two files would be detected.
    let complaint = fail(&run(&stage.files.combined));
    assert!(complaint.contains("not so: the key's file"), "{complaint}");
}
