//! The crate without its feature `deploy-keys`, on a rehearsed engine: no process is started.
#![cfg(not(feature = "deploy-keys"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;

use bottle::exec::{Control, rehearsal};
use bottle::launch::LaunchCause;
use bottle::plan::{HostFacts, PlanRequest, Prefix, StateRoot, UserIds};
use bottle::{Bottles, Engine, EngineChoice, Host, Manifest};

const MANIFEST: &str = "
bottles:
  dev:
    git:
      upstreams:
        - name: app
          url: ssh://git@git.example.com/team/app.git
          known_hosts: ['git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3V7mn3yRTDYSSOdLtRW3XMEbhVNLJyyKmRo8Ccb2Rk']
          deploy_key: {forge: gitea, api_url: 'https://git.example.com/api/v1', token: FORGE_TOKEN}
agents:
  demo: {bottle: dev, command: [sh]}
";

#[test]
fn a_plan_with_a_deploy_key_is_refused_before_anything_is_created() {
    let root = tempfile::tempdir().unwrap();
    let facts = HostFacts { home: root.path().into(), cwd: root.path().into(), user: UserIds { uid: 1000, gid: 1000 } };
    let request = PlanRequest {
        agent: None,
        slug: Some("keyless".parse().unwrap()),
        prefix: Prefix::default(),
        manifest_dir: None,
        host: &facts,
        random: [0; 5],
    };
    let plan = Manifest::parse(MANIFEST).unwrap().plan(request).unwrap();
    let backend = Arc::new(rehearsal());
    let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
    let before = backend.lines();
    let state = root.path().join("state");
    let host = Host::new(facts, [("FORGE_TOKEN".into(), "t0ken".into())]);
    let options = Bottles::new(engine, host).with_state_root(StateRoot::at(&state));

    let error = options.launch(plan).unwrap_err();

    assert!(matches!(&*error.cause, LaunchCause::NoDeployKeys { upstream, .. } if upstream == "app"), "{error}");
    assert!(bottle::report(&error).to_string().contains("feature `deploy-keys`"), "{error}");
    assert_eq!(backend.lines(), before);
    assert!(!state.exists());
}
