//! Git-gate on a cluster: fetch and push over ssh and https, refusals, and where the credentials are.

use std::sync::Arc;
use std::time::Duration;

use bottle::deploy_keys::{ForgeKeys, HttpForges};
use bottle_testing::forge::{REPOSITORY, TOKEN};
use bottle_testing::lab::Lab;
use bottle_testing::lab::OUTSIDE;
use bottle_testing::lab::cluster::Cluster;

use super::{close, launched, sh};
use crate::git::deploy_keys::{self, VARIABLE, lab_with_forge};
use crate::git::refusals::secret;
use crate::git::{HTTPS_TOKEN, HTTPS_VARIABLE, git_section, known_host, lab_with, refs, ssh_upstream};

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn the_agent_pushes_through_git_gate_on_a_cluster_and_holds_no_key() {
    let cluster = Cluster::find();
    let (lab, key) = lab_with("kubegit", "app,web");
    let upstreams = format!(
        "{}    - {{name: web, url: \"https://{OUTSIDE}/web.git\", token: {HTTPS_VARIABLE}}}\n",
        ssh_upstream(&lab, "app", &key, "")
    );
    let plan = lab.plan_on_cluster(&lab.slug, &format!("workspace: {{mode: none}}\n{}", git_section(&upstreams)), "");
    let inputs = Lab::inputs_on_cluster(&plan, &[(HTTPS_VARIABLE, HTTPS_TOKEN)]);
    let bottle = launched(cluster.bottles(&lab).launch(plan, &inputs));

    for (url, repository) in [(format!("git@{OUTSIDE}:app.git"), "app"), (format!("https://{OUTSIDE}/web.git"), "web")]
    {
        let commit = |name: &str, text: &str| {
            format!(
                "cd /tmp/{repository} && echo '{text}' >{name} && git add {name} && git commit -qm 'Add {name}' && git push -q origin HEAD:main"
            )
        };
        sh(&bottle, &format!("git clone -q {url} /tmp/{repository}")).ok();
        sh(&bottle, &commit("made", "by the agent")).ok();
        let log = lab.outside.as_git(&format!("git -C {repository}.git log --format='%an <%ae> %s' main"));
        assert!(log.starts_with("The Agent <agent@bottle.test> Add made\n"), "{log}");

        let before = refs(&lab, repository);
        let refused = sh(&bottle, &commit("leak", &secret()));
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(
            refused.stderr.contains("git-gate refused this push") && !refused.stderr.contains(&secret()),
            "{refused:?}"
        );
        assert_eq!(refs(&lab, repository), before, "the upstream received something");
    }
    // What is no upstream cannot be reached.
    assert_ne!(sh(&bottle, &format!("git clone -q git@{OUTSIDE}:demo.git /tmp/demo")).code, 0);

    let private = std::fs::read_to_string(&key).unwrap();
    let line = private.lines().nth(2).unwrap();
    let objects =
        cluster.run(&["get", "all,configmaps,secrets", "--namespace", bottle.namespace(), "--output", "yaml"]);
    assert!(!objects.ok().contains(line) && !objects.stdout.contains(HTTPS_TOKEN), "the API server has a credential");
    let search =
        "grep -rlsF --devices=skip -f - /etc /home /root /run /srv /tmp /var /proc/[0-9]*/environ 2>/dev/null; true";
    let exec = bottle::exec::engine::Exec::new(["sh", "-c", search])
        .with_stdin(bottle::exec::Stdin::Bytes(format!("{line}\n{HTTPS_TOKEN}\n").into_bytes()));
    assert_eq!(bottle.exec(exec).unwrap().stdout_text(), "", "the agent can read a credential");
    assert!(bottle.verify().unwrap().holds());
    close(&cluster, &lab.slug, bottle);
}

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
    let prefix = plan().names.prefix().to_string();
    let without = cluster.bottles(&lab).attach(&prefix, &lab.slug).unwrap().close().unwrap_err().to_string();
    assert!(without.contains("a deploy key is registered") && forge.keys().len() == 1, "{without}");
    close(&cluster, &lab.slug, bottles.attach(&prefix, &lab.slug).unwrap());
    assert_eq!((forge.made(), forge.keys()), (2, vec![]));
    assert_eq!(lab.outside.read("/data/authorized_keys").trim(), "");
}
