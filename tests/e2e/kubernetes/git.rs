//! Deploy keys on a cluster. What git-gate does everywhere is in `platform.rs`.

use std::sync::Arc;
use std::time::Duration;

use bottle::deploy_keys::{ForgeKeys, HttpForges};
use bottle_testing::forge::{REPOSITORY, TOKEN};
use bottle_testing::lab::Lab;
use bottle_testing::lab::OUTSIDE;
use bottle_testing::lab::cluster::Cluster;

use super::{close, launched, sh};
use crate::git::deploy_keys::{self, VARIABLE, lab_with_forge};
use crate::git::{git_section, known_host};

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_deploy_key_opens_the_repository_for_the_life_of_a_bottle_on_a_cluster() {
    let cluster = Cluster::find();
    let (lab, forge) = lab_with_forge("kubekey");
    let upstream = deploy_keys::upstream(&known_host(&lab, OUTSIDE), &forge.api_url("gitea"), "gitea", true);
    let plan = || lab.plan_on_cluster(&lab.slug, &format!("workspace: {{mode: none}}\n{}", git_section(&upstream)), "");
    let inputs = Lab::inputs_on_cluster(&plan(), &[]);
    let refused = cluster.bottles(&lab).launch(plan(), &inputs).unwrap_err().to_string();
    assert!(refused.contains("git.upstreams[0].deploy_key): nothing registers deploy keys"), "{refused}");

    let forges = HttpForges::default().with_timeout(Duration::from_secs(5)).with_settle(Duration::from_secs(3));
    let token = |name: &str| (name == VARIABLE).then(|| TOKEN.to_owned());
    let bottles = cluster.bottles(&lab).with_deploy_keys(Arc::new(ForgeKeys::new(Arc::new(forges), token)));
    // A launch that fails after the key was registered.
    bottles.clone().with_time_limit(Duration::ZERO).launch(plan(), &inputs).unwrap_err();
    assert_eq!((forge.made(), forge.keys()), (1, vec![]));

    let bottle = launched(bottles.launch(plan(), &inputs));
    let keys = forge.keys();
    assert_eq!((keys.len(), keys[0].read_only), (1, false));
    assert_eq!(keys[0].title, format!("{}-app", bottle.namespace()));
    sh(&bottle, &format!("git clone -q git@{OUTSIDE}:{REPOSITORY}.git /tmp/app")).ok();
    let push = "cd /tmp/app && echo x >made && git add made && git commit -qm Made && git push -q origin HEAD:main";
    sh(&bottle, push).ok();
    assert!(lab.outside.as_git(&format!("git -C {REPOSITORY}.git log --format=%s main")).starts_with("Made\n"));

    // Another process finds the key in the journal on the cluster, but revokes it only with the token.
    bottle.detach();
    let slug = lab.slug.parse().unwrap();
    let without = cluster.bottles(&lab).attach(&slug).unwrap().close().unwrap_err().to_string();
    assert!(without.contains("a deploy key is registered") && forge.keys().len() == 1, "{without}");
    close(&cluster, &lab.slug, bottles.attach(&slug).unwrap());
    assert_eq!((forge.made(), forge.keys()), (2, vec![]));
    assert_eq!(lab.outside.read("/data/authorized_keys").trim(), "");
}
