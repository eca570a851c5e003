//! Git-gate on a cluster: fetch and push over ssh and https, refusals, and where the credentials are.

use bottle_testing::lab::Lab;
use bottle_testing::lab::OUTSIDE;
use bottle_testing::lab::cluster::Cluster;

use super::{close, launched, sh};
use crate::git::refusals::secret;
use crate::git::{HTTPS_TOKEN, HTTPS_VARIABLE, git_section, lab_with, refs, ssh_upstream};

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
