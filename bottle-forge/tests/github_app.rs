//! Installation tokens of a GitHub App.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bottle_forge::GithubApp;
use bottle_lifecycle::SecretSource;
use bottle_plan::{HostFacts, Manifest, PlanRequest, UserIds};
use bottle_testing::tokens::{FakeTokens, Fault, INSTALLATION};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

struct Bench {
    dir: tempfile::TempDir,
    server: FakeTokens,
}

impl Bench {
    /// Returns a server and a new key, or `None` if this host has no `openssl`.
    #[expect(clippy::print_stderr, reason = "a test that is not run says so")]
    fn new() -> Option<Self> {
        let bench = Self { dir: tempfile::tempdir().unwrap(), server: FakeTokens::start("") };
        let mut openssl = Command::new("openssl");
        openssl.args(["genrsa", "-traditional", "-out"]).arg(bench.dir.path().join("key.pem")).arg("2048");
        let made = openssl.output().is_ok_and(|output| output.status.success());
        if !made {
            eprintln!("not run: this host has no openssl");
            return None;
        }
        bench.set_mode(0o600);
        Some(bench)
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.dir.path().join("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn app(&self) -> GithubApp {
        let app = GithubApp::new("123456", 7890, self.dir.path().join("key.pem")).with_api_url(self.server.url() + "/");
        app.with_timeout(Duration::from_secs(2))
    }

    fn error(&self, app: &GithubApp) -> String {
        let error = bottle_exec::chain(&*app.value().unwrap_err());
        let key = fs::read_to_string(self.dir.path().join("key.pem")).unwrap_or_default();
        let tokens = self
            .server
            .requests()
            .iter()
            .map(|request| request.header("authorization")[7..].to_owned())
            .collect::<Vec<_>>();
        for secret in tokens.iter().map(String::as_str).chain(key.lines()) {
            assert!(!error.contains(secret), "{error}");
        }
        let error = error.replace(&self.server.url(), "<server>");
        error.replace(&*self.dir.path().to_string_lossy(), "<directory>")
    }
}

#[test]
fn the_app_proves_itself_and_asks_for_the_plans_repositories_alone() {
    let Some(bench) = Bench::new() else { return };
    let text = "bottles:
  dev:
    git:
      upstreams:
        - {name: api, url: 'https://github.com/team/api.git', token: APP_TOKEN}
        - {name: web, url: 'https://github.com/team/web', token: APP_TOKEN, push: {enabled: false}}
        - {name: other, url: 'https://github.com/team/other', token: OTHER_TOKEN}
        - {name: public, url: 'https://github.com/team/public'}
agents: {coder: {bottle: dev, command: [id]}}
";
    let facts = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 7, gid: 7 } };
    let plan = Manifest::parse(text).unwrap().plan(PlanRequest::new(&facts, [0; 5])).unwrap();
    let secret = bench.app().for_plan(&plan, &"APP_TOKEN".parse().unwrap()).value().unwrap();
    assert_eq!(secret.value.expose(), INSTALLATION);
    let expires = secret.expires.unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(expires, 4_071_006_245, "2099-01-02T03:04:05Z");

    let request = &bench.server.requests()[0];
    assert_eq!((&*request.method, &*request.target), ("POST", "/app/installations/7890/access_tokens"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({"repositories": ["api", "web"], "permissions": {"contents": "write"}}));
    let token = request.header("authorization").strip_prefix("Bearer ").unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = |at: usize| URL_SAFE_NO_PAD.decode(parts[at]).unwrap();
    let claims: Value = serde_json::from_slice(&decoded(1)).unwrap();
    let header: Value = serde_json::from_slice(&decoded(0)).unwrap();
    assert_eq!((header, &claims["iss"]), (json!({"alg": "RS256", "typ": "JWT"}), &json!("123456")));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(issued < now && now < expires && expires - issued <= 600, "GitHub accepts ten minutes: {claims}");
    let pem = pem::parse(fs::read(bench.dir.path().join("key.pem")).unwrap()).unwrap();
    let key = RsaKeyPair::from_der(pem.contents()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &decoded(2)).unwrap();
}

#[test]
fn a_plan_that_only_reads_gets_a_token_that_only_reads() {
    let Some(bench) = Bench::new() else { return };
    let text = "{bottles: {dev: {git: {upstreams: [{name: web, url: 'https://github.com/team/web', token: APP_TOKEN, push: \
                {enabled: false}}]}}}, agents: {coder: {bottle: dev, command: [id]}}}";
    let facts = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 7, gid: 7 } };
    let plan = Manifest::parse(text).unwrap().plan(PlanRequest::new(&facts, [0; 5])).unwrap();
    bench.app().for_plan(&plan, &"APP_TOKEN".parse().unwrap()).value().unwrap();
    let body: Value = serde_json::from_slice(&bench.server.requests()[0].body).unwrap();
    assert_eq!(body, json!({"repositories": ["web"], "permissions": {"contents": "read"}}));
}

#[test]
fn every_problem_is_reported_without_the_key_or_a_token() {
    let Some(bench) = Bench::new() else { return };
    let mut shown = format!("{}\n", bench.error(&bench.app()));
    let app = bench.app().with_repository("api");
    for fault in [
        Fault::Status(401),
        Fault::Status(422),
        Fault::Text("no JSON".into()),
        Fault::Text(json!({"token": INSTALLATION, "expires_at": "soon"}).to_string()),
        Fault::Silent,
    ] {
        bench.server.set_fault(Some(fault));
        writeln!(shown, "{}", bench.error(&app)).unwrap();
    }
    bench.set_mode(0o644);
    writeln!(shown, "{}", bench.error(&app)).unwrap();
    bench.set_mode(0o600);
    let pem = pem::Pem::new("RSA PRIVATE KEY", [1, 2, 3]);
    for content in [pem::encode(&pem), "no key".to_owned()] {
        fs::write(bench.dir.path().join("key.pem"), content).unwrap();
        writeln!(shown, "{}", bench.error(&app)).unwrap();
    }
    fs::remove_file(bench.dir.path().join("key.pem")).unwrap();
    writeln!(shown, "{}", bench.error(&app)).unwrap();
    insta::assert_snapshot!(shown);
}
