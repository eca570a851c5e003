//! The bottles that are attacked.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bottle::deploy_keys::KeyPair;
use bottle::plan::{PlanRequest, Prefix};
use bottle::{Bottle, Bottles, Host, Manifest, Verify};
use bottle_testing::lab::{self, Lab, OUTSIDE, Subnet, run};

use crate::secrets::Secrets;
use crate::site::{API, MEMORY, OTHER, PIDS, Site};
use crate::table::Topology;
use crate::workspace::PLANTED;

/// A bottle with every sidecar, and one with pipelock alone.
pub(crate) struct Launched {
    pub(crate) full: Site,
    pub(crate) plain: Site,
}

impl Launched {
    pub(crate) fn both(runtime: &str) -> Self {
        let ground = Ground::new(&format!("attacks-{runtime}"));
        let text = ground.manifest(runtime);
        let full = ground.options().launch(ground.plan(&text, ""));
        let full = full.unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
        let text = ground.plain_manifest(runtime);
        let plain = ground.options().launch(ground.plan(&text, "-p"));
        let plain = plain.unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
        let plain = Site::around(&ground.lab, plain, ground.secrets(), Topology::Plain, &[]);
        let full = Site::around(&ground.lab, full, ground.secrets(), Topology::Full, &plain.sidecars());
        Self { full, plain }
    }

    pub(crate) fn close(self) {
        self.plain.close();
        self.full.close();
    }
}

/// An outside host, a workspace with planted files, and secrets, for one or more bottles.
pub(crate) struct Ground {
    pub(crate) lab: Arc<Lab>,
    secrets: Secrets,
    key: PathBuf,
    workspace: PathBuf,
    /// The egress network of the bottle with pipelock alone. The lab has one for a single bottle.
    plain: Subnet,
}

impl Ground {
    pub(crate) fn new(name: &str) -> Self {
        // No reader of the events makes do with a web token alone: git over HTTP wants it.
        let slug = format!("{:06x}", std::process::id());
        let mut secrets = Secrets::of(&slug);
        let token = format!("OUTSIDE_GIT_TOKEN={}", secrets.web);
        let lab = Lab::with_outside(name, &["--env", "OUTSIDE_REPOS=app,web,demo", "--env", &token]);
        lab.outside.as_git("git -C app.git branch agent/kept main; git -C web.git config http.receivepack true");
        let hidden = lab.root.path().join("hidden");
        fs::create_dir_all(hidden.join("objects")).unwrap();
        for (name, canary) in [("key", "key"), ("gitconfig", "config")] {
            fs::write(hidden.join(name), format!("# CANARY-{canary}-0123456789\n")).unwrap();
        }
        for name in ["key", "config", "env-file", "netrc", "npmrc", "id", "credentials", "header", "url"] {
            secrets.add(&format!("the canary `{name}`"), &format!("CANARY-{name}-0123456789"));
        }
        let workspace = lab.root.path().join("work");
        planted(&workspace, &hidden);
        let key = identity(&lab);
        secrets.add_keys(lab.root.path());
        Self { lab: Arc::new(lab), secrets, key, workspace, plain: Subnet::take() }
    }

    /// Returns the secrets, with the keys of every bottle that runs.
    pub(crate) fn secrets(&self) -> Secrets {
        let mut secrets = self.secrets.clone();
        secrets.add_keys(self.lab.state_root().path());
        secrets
    }

    /// Returns the options of a launch, on a host that has the tokens. The bottle is not verified: that is the other suite's
    /// task, and some bottles here are weakened.
    pub(crate) fn options(&self) -> Bottles {
        self.options_of(lab::engine())
    }

    /// Like [`options`](Self::options), on an engine whose commands are changed.
    pub(crate) fn options_of(&self, engine: bottle::Engine) -> Bottles {
        let host = lab::host();
        let tokens = self.tokens().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let host = Host::new(host.facts.clone(), host.environment().chain(tokens).collect::<Vec<_>>());
        self.lab.options_of(engine).with_host(host).with_verification(Verify::Off)
    }

    fn tokens(&self) -> [(&'static str, &str); 4] {
        let secrets = &self.secrets;
        [
            ("ATTACK_API", &secrets.api),
            ("ATTACK_OTHER", &secrets.other),
            ("ATTACK_BASIC", &secrets.basic),
            ("ATTACK_WEB", &secrets.web),
        ]
    }

    /// Returns the value of a variable of the host.
    pub(crate) fn token(&self, name: &str) -> Option<String> {
        self.tokens().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    }

    /// Returns the manifest of a bottle with every sidecar.
    pub(crate) fn manifest(&self, runtime: &str) -> String {
        let known = self.lab.outside.read("/data/known_hosts");
        let known = known.lines().find(|line| line.starts_with(&format!("{OUTSIDE} "))).unwrap();
        let (key, workspace) = (self.key.display(), self.workspace.display());
        self.lab.manifest(
            &format!(
                "runtime: {runtime}
supervise: {{wait: 1s}}
workspace: {{path: \"{workspace}\"}}
limits: {{agent: {{memory: {MEMORY}B, pids: {PIDS}}}}}
egress:
  allow: [{OUTSIDE}]
  routes:
    - {{name: api, host: {API}, paths: [/v1/, /echo, /reflect, /redirect], methods: [GET, POST], inject: {{token: ATTACK_API, scheme: header}}}}
    - {{name: basic, host: {API}, paths: [/demo.git], inject: {{token: ATTACK_BASIC, scheme: basic}}}}
    - {{name: other, host: {OTHER}, paths: [/v1/], inject: {{token: ATTACK_OTHER}}}}
git:
  user: {{name: The Agent, email: agent@bottle.test}}
  upstreams:
    - {{name: app, url: \"git@{OUTSIDE}:app.git\", identity_file: \"{key}\", known_hosts: [\"{known}\"], push: {{branches: [\"agent/**\"], max_size: 2MiB}}}}
    - {{name: web, url: \"https://{OUTSIDE}/web.git\", token: ATTACK_WEB, push: {{enabled: false}}}}"
            ),
            "",
        )
    }

    /// Returns the manifest of a bottle with pipelock alone.
    pub(crate) fn plain_manifest(&self, runtime: &str) -> String {
        let limits = format!("limits: {{agent: {{memory: {MEMORY}B, pids: {PIDS}}}}}");
        let text = self.lab.manifest(&format!("runtime: {runtime}\n{limits}\negress: {{allow: [{OUTSIDE}]}}"), "");
        let line = text.lines().find(|line| line.contains("egress_subnet")).unwrap().to_owned();
        text.replace(&line, &format!("    networks: {{egress_subnet: {}}}", self.plain.net()))
    }

    pub(crate) fn plan(&self, manifest: &str, suffix: &str) -> bottle::BottlePlan {
        let host = lab::host();
        let request = PlanRequest {
            agent: None,
            slug: Some(format!("{}{suffix}", self.lab.slug).parse().unwrap()),
            prefix: Prefix::default(),
            manifest_dir: Some(self.lab.root.path()),
            host: &host.facts,
            random: [0; 5],
        };
        Manifest::parse(manifest).unwrap_or_else(|error| panic!("{}", bottle::report(&error))).plan(request).unwrap()
    }

    /// Launches a bottle of a manifest.
    pub(crate) fn launch(&self, options: &Bottles, manifest: &str) -> Bottle {
        options.launch(self.plan(manifest, "")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)))
    }
}

/// Makes a workspace with everything that could lead a launch astray.
fn planted(workspace: &Path, hidden: &Path) {
    fs::create_dir_all(workspace).unwrap();
    let script = ["git init -q -b main .; echo text >file", &PLANTED.join("\n")].join("\n");
    let mut shell = Command::new("sh");
    let planted = run(shell.args(["-c", &script]).current_dir(workspace).env("SECRET_DIR", hidden));
    assert_eq!(planted.code, 0, "{planted:?}");
}

/// Creates a key of the host's user that the outside host accepts.
fn identity(lab: &Lab) -> PathBuf {
    let pair = KeyPair::generate(|seed| bottle::tls::RandomSource::fill(&mut bottle::tls::SystemRandom, seed)).unwrap();
    let path = lab.root.path().join("identity");
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, pair.private().as_bytes()).unwrap();
    lab.outside.authorize(&[pair.public().to_owned()]);
    path
}
