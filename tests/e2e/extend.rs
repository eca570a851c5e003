//! A bottle with a sidecar, a provisioner and a prompt of the embedding program.

use std::sync::Arc;

use bottle::compose::document::Service;
use bottle::compose::sidecar::{Image, Reach, health_check, sidecar_service};
use bottle::compose::{AgentAccess, Sidecar};
use bottle::exec::Stdin;
use bottle::plan::ResolvedPlan;
use bottle::plan::value::ImageRef;
use bottle::prelude::*;

use bottle_testing::lab::{Lab, sh};

/// A server on the ports 8080 and 8081, of which the agent may reach the first.
#[derive(Debug)]
struct Clock {
    image: ImageRef,
}

const SERVER: &str = "use IO::Socket::INET; for my $port (8080, 8081) { next if $port == 8080 && fork; \
                      my $s = IO::Socket::INET->new(LocalPort => $port, Listen => 5); \
                      while (my $c = $s->accept) { print $c \"tick\\n\"; close $c } }";

impl Sidecar for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn applies(&self, _: &BottlePlan) -> bool {
        true
    }

    fn service(&self, plan: &ResolvedPlan) -> Service {
        let alias = Some(self.name().to_owned());
        let mut service = sidecar_service(plan, self.name(), Image::Pulled(&self.image), Reach::Internal, alias);
        service.command = ["perl", "-e", SERVER].map(String::from).to_vec();
        let listens = "grep -q ':1F90 ' /proc/net/tcp && grep -q ':1F91 ' /proc/net/tcp";
        service.healthcheck = Some(health_check(plan, &["sh", "-c", listens]));
        service
    }

    fn agent_access(&self, _: &ResolvedPlan) -> AgentAccess {
        AgentAccess { no_proxy: vec![self.name().to_owned()], ports: vec![8080], ..AgentAccess::default() }
    }
}

/// Writes a file to the agent's home directory, next to the prompt that the built-in provisioner wrote.
#[derive(Debug)]
struct Notes;

impl Provisioner for Notes {
    fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError> {
        let write = Exec::new(["sh", "-c", "test -s /home/agent/.bottle/prompt.md && cat > /home/agent/notes.md"]);
        agent.run("write the notes", write.with_stdin(Stdin::Bytes(b"run the tests\n".to_vec())))?;
        Ok(())
    }
}

/// Fails after the built-in provisioner.
#[derive(Debug)]
struct Failing;

impl Provisioner for Failing {
    fn provision(&self, _: &AgentContainer<'_>) -> Result<(), ProvisionError> {
        Err(ProvisionError::Custom("the notes are locked".into()))
    }
}

#[test]
#[ignore = "needs a container engine"]
fn an_embedder_adds_a_sidecar_a_provisioner_and_a_prompt() {
    let lab = Lab::new("extend");
    let agent = AgentSpec::custom("lab", ["printf", "<%s>"]).unwrap();
    let agent = agent.with_prompt("Be brief.").with_prompt_mode(PromptMode::LastArgument);
    let manifest = Manifest::parse(&lab.manifest("", "")).unwrap().with_agent("tester", agent).unwrap();
    let clock = Clock { image: "debian:trixie-slim".parse().unwrap() };
    let bottles = lab.options().with_sidecar(Arc::new(clock)).with_provisioner(Arc::new(Builtin.then(Notes)));
    let bottle = bottles.launch(lab.plan_from(&manifest)).unwrap();
    lab.outside.connect(&bottle.names().egress_network());

    assert_eq!(sh(&bottle, "bash -c 'cat < /dev/tcp/clock/8080'").ok(), "tick");
    let closed = sh(&bottle, "timeout 5 bash -c 'cat < /dev/tcp/clock/8081'");
    assert!(closed.code != 0 && closed.stdout.is_empty(), "{closed:?}");
    assert_eq!(
        sh(&bottle, "cat /home/agent/notes.md; stat -c %U /home/agent/notes.md").stdout,
        "run the tests\nagent\n"
    );
    let answer = bottle.exec(bottle.agent().unwrap()).unwrap();
    assert_eq!(answer.stdout_text(), "<Be brief.>");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_provisioner_that_fails_ends_the_launch_and_leaves_nothing() {
    let lab = Lab::new("extend-fail");
    let bottles = lab.options().with_provisioner(Arc::new(Builtin.then(Failing)));
    let error = bottles.launch(lab.plan("", "")).map(drop).unwrap_err();
    let text = report(&error).to_string();
    assert_eq!(text, "failed to provision the agent: run the caller's provisioner: the notes are locked");
    lab.assert_nothing_left();
}
