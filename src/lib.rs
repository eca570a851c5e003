//! Launches an AI coding agent inside a sealed Docker Compose project.
//!
//! A [`Manifest`] says what a bottle may do. [`Bottles`] launches it on this machine's container engine and returns a
//! [`Bottle`]: a handle that runs commands, copies files, and removes everything when it is closed or dropped.
//!
//! This page grows one program, from a command in a bottle to an agent that never holds its key. Each section compiles
//! as a test and continues with the `bottles`, `dev` and `bottle` of the ones before it.
//!
//! # How do I run a command in a bottle?
//!
//! Describe a bottle and an agent, launch, and run the command.
//!
//! ```no_run
//! use bottle::prelude::*;
//!
//! let bottles = Bottles::local()?;
//! let dev = BottleSpec::default();
//! let coder = AgentSpec::custom("dev", ["sh"])?;
//! let manifest = Manifest::default().with_bottle("dev", dev)?.with_agent("coder", coder)?;
//! let bottle = bottles.launch(manifest.plan(&bottles)?)?;
//! let output = bottle.exec(["id", "-un"])?;
//! assert_eq!(output.stdout_text(), "agent\n");
//! bottle.close()?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! An empty [`BottleSpec`](prelude::BottleSpec) reaches no host. The launch copies the working directory into the
//! bottle, as `/workspace`, without the files that `.gitignore` excludes. [`Bottles::local`] finds the engine and the
//! state directory. All other options have a default and a `with_*` method. [`Manifest::read`] reads the same from a
//! YAML file.
//!
//! # How do I talk to a command while it runs?
//!
//! [`Bottle::spawn`] returns it with its standard streams, or with a terminal. Dropping it ends it, with everything that it
//! started. The crate `bottle-tokio` has the same for async programs, and [`Bottle::command`] gives a command of the standard
//! library for programs that start their agents with one.
//!
//! ```no_run
//! use std::io::Write;
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! # let bottle = bottles.attach(&"coder-4x7qa".parse()?)?;
//! let mut child = bottle.spawn(["tr", "a-z", "A-Z"], None)?;
//! child.stdin.take().expect("it was not taken").write_all(b"hello")?;
//! std::io::copy(child.stdout.as_mut().expect("it was not taken"), &mut std::io::stdout())?;
//! assert!(child.wait()?.is_success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How do I limit how long and how much?
//!
//! With `limits: {time: 2h, idle: 15m, requests: 5000, bytes: 2GiB}` in the bottle's manifest. `idle` is the time without a request,
//! after which the agent is paused. An observer is told before a limit is reached, and when it is.
//!
//! # How do I let the agent reach a host?
//!
//! Add it to the allowlist: `egress.allow` in a manifest. There, `*.example.org` is a *domain wildcard*: it allows
//! `example.org` and every name below it, at any depth.
//!
//! ```
//! # use bottle::prelude::*;
//! let dev = BottleSpec::default().with_allow("example.com")?.with_allow("*.example.org")?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! `egress: {mode: learn}` allows every host and records each request. [`Bottles::suggest`] then prints the smallest allowlist
//! that covers what the agent used.
//!
//! # How do I limit what the agent may ask of a host?
//!
//! Add a route instead, with paths, methods, or both. As the host of a route, `*.example.net` is a *label wildcard*: it
//! covers the names exactly one label below `example.net`.
//!
//! ```
//! # use bottle::prelude::*;
//! let read = RouteSpec::new("*.example.net")?.with_path("/v1/")?.with_method("GET")?;
//! assert!(read.host.matches("api.example.net"));
//! assert!(!read.host.matches("example.net") && !read.host.matches("a.b.example.net"));
//! let dev = BottleSpec::default().with_route(read);
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I run Claude Code with a key that it never holds?
//!
//! Add a route. The `egress` sidecar reads the real key from the environment of this process, and puts it into each
//! request that the route allows. The agent gets a placeholder in the variable that Claude Code requires.
//!
//! ```no_run
//! use bottle::prelude::*;
//!
//! let manifest = Manifest::parse(r#"
//! bottles:
//!   dev:
//!     env:
//!       ANTHROPIC_API_KEY: {placeholder: true}
//!     egress:
//!       allow: [example.com, "*.example.org"]
//!       routes:
//!         - host: api.anthropic.com
//!           paths: [/v1/, /api/claude_code/]
//!           methods: [GET, POST]
//!           inject: {token: ANTHROPIC_API_KEY, scheme: header, header: x-api-key}
//! agents:
//!   coder: {bottle: dev, provider: claude}
//! "#)?;
//! let bottles = Bottles::local()?;
//! let bottle = bottles.launch(manifest.plan(&bottles)?)?;
//! let answer = bottle.exec(["claude", "-p", "What does this repository do?"])?;
//! println!("{}", answer.stdout_text());
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! If the key is not set, the launch fails before it creates anything. `examples/claude.yaml` and `examples/codex.yaml`
//! are complete manifests. [`Bottle::exec_agent`] runs the agent on this process's own terminal.
//!
//! # How do I use a subscription, or a token that expires?
//!
//! Give the host a *source* for the credential, in place of the variable. It is asked at the launch, and again before each
//! value expires. Egress and git-gate get the new value while they run. [`token_sources`] has the subscriptions of Claude
//! and Codex, and the installation tokens of a GitHub App. [`lifecycle`] has files, commands and closures.
//!
//! ```no_run
//! # #[cfg(feature = "token-sources")]
//! # fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use bottle::prelude::*;
//! use bottle::token_sources::{GithubApp, OAuthSource};
//!
//! let manifest = Manifest::parse(r#"
//! bottles:
//!   dev:
//!     env:
//!       CLAUDE_CODE_OAUTH_TOKEN: {placeholder: true}
//!     egress:
//!       routes:
//!         - {host: api.anthropic.com, inject: {token: CLAUDE_TOKEN, scheme: bearer}}
//!     git:
//!       upstreams:
//!         - {name: api, url: "https://github.com/example/api.git", token: GITHUB_TOKEN}
//! agents:
//!   coder: {bottle: dev, provider: claude}
//! "#)?;
//! let bottles = Bottles::local()?;
//! let plan = manifest.plan(&bottles)?;
//! let claude = OAuthSource::claude("/home/me/.claude/.credentials.json");
//! let github = "GITHUB_TOKEN".parse()?;
//! let app = GithubApp::new("123456", 7890, "/home/me/app.private-key.pem").for_plan(&plan, &github);
//! let host = bottles.host().clone().with_secret(&"CLAUDE_TOKEN".parse()?, Arc::new(claude));
//! let bottle = bottles.with_host(host.with_secret(&github, Arc::new(app))).launch(plan)?;
//! # Ok(())
//! # }
//! ```
//!
//! # How do I see the logs?
//!
//! [`Bottles::logs`] passes the output of all services to a sink. It also works from another process, and for a bottle
//! that was removed. [`Bottles::list`] returns the state of every service, including one that was killed, and
//! [`Bottle::watch_health`] tells an observer when one goes down.
//!
//! ```no_run
//! use std::io::Write;
//! use std::sync::Arc;
//! use bottle::exec::Stream;
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! # let bottle = bottles.attach(&"coder-4x7qa".parse()?)?;
//!
//! let print = |_: Stream, bytes: &[u8]| { let _ = std::io::stdout().write_all(bytes); };
//! bottles.logs(bottle.slug(), false, Arc::new(print))?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I see everything that happens?
//!
//! [`Bottles::events`] passes on what the sidecars and the launcher report, as one stream of [`BottleEvent`]s: requests, pushes,
//! proposals, decisions, limits, health and steps, with a type for each kind. A decision says who made it and when it ends. It
//! also works from another process, and for a bottle that was removed.
//! [`exec::Spans`] shows the steps as spans of `tracing`.
//!
//! # Why was my request refused?
//!
//! The answer names the rule that refused the request, and the log has a line for each refusal.
//!
//! | answer | from | what to change |
//! | --- | --- | --- |
//! | 403 with `not-allowed` or `expired` in `X-Egress-Refused` | egress | add the host to `egress.allow`, or let the agent propose it |
//! | 403 with `X-Egress-Refused: upstream-refused` | pipelock, behind egress | add the host to `egress.allow`, or let the agent propose it |
//! | 403 with another rule in `X-Egress-Refused` | egress | the route's `paths` or `methods` |
//! | 403 without that header | pipelock | add the host to `egress.allow` |
//! | 421 or 400 with `X-Egress-Refused` | egress | the client: CONNECT, TLS server name and `Host` name different hosts |
//! | connection refused, or no answer | the seal | the client: it ignores the proxy variables |
//! | `git push` fails with a reason | git-gate | the upstream's `push` rules, or the secret that was found |
//!
//! # How does the agent ask a person for more?
//!
//! With `supervise: true` in the bottle's manifest, the agent has a tool that proposes changes. A [`Review`] shows a
//! person the proposal, the effect of an approval, and when it takes effect.
//!
//! ```no_run
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! # let bottle = bottles.attach(&"coder-4x7qa".parse()?)?;
//! let supervisor = bottles.supervise(bottle.slug())?;
//! for review in supervisor.pending()? {
//!     println!("{review}");
//!     supervisor.approve(&review, "needed for the tests")?;
//! }
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! With `egress: {on_denied: propose}`, each refused host becomes such a proposal by itself. An
//! [`Approver`](supervise::Approver) decides while the bottle runs: a closure, a person at the terminal, or this one, which
//! allows hosts within bounds for half an hour and asks a person about the rest.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use bottle::supervise::{AutoApprover, Scope, Terminal};
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! # let bottle = bottles.attach(&"coder-4x7qa".parse()?)?;
//! let auto = AutoApprover::new(["*.example.com".parse()?])
//!     .with_scope(Scope::For(Duration::from_secs(1800)))
//!     .or(Terminal::default());
//! println!("{auto}");
//! let _deciding = bottles.supervise(bottle.slug())?.start(Arc::new(auto), |outcome| println!("{outcome:?}"));
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! [`Review`]: supervise::Review
//!
//! # How do I get the work back?
//!
//! Take it out before the bottle is closed, as a patch or as branches below `refs/bottle/`, or let the agent push through
//! git-gate. [`Bottle::changes`] and [`Bottle::export`] return files. Nothing of it runs here until you run it.
//!
//! ```no_run
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! # let bottle = bottles.attach(&"coder-4x7qa".parse()?)?;
//! bottle.write_patch("work.patch".as_ref())?;
//! bottle.fetch_into(".".as_ref(), "refs/bottle/coder")?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I see a server that the agent runs?
//!
//! Forward its port with [`Bottle::forward`]. The [`Forward`] listens on 127.0.0.1, at its `local_addr()`, until it is dropped, and
//! gives the agent no way to this host.
//!
//! # How do I add a sidecar?
//!
//! Implement [`Sidecar`](compose::Sidecar) and pass it to [`Bottles::with_sidecar`]. The seal opens the ports that
//! [`agent_access`](compose::Sidecar::agent_access) returns, and no others. This sidecar tells the agent the time:
//!
//! ```no_run
//! use std::sync::Arc;
//! use bottle::compose::document::Service;
//! use bottle::compose::sidecar::{Image, Reach, health_check, sidecar_service};
//! use bottle::compose::{AgentAccess, Sidecar};
//! use bottle::plan::ResolvedPlan;
//! use bottle::plan::value::ImageRef;
//! use bottle::prelude::*;
//!
//! #[derive(Debug)]
//! struct Clock {
//!     image: ImageRef,
//! }
//!
//! const SERVER: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5); \
//!                       while (my $c = $s->accept) { print $c scalar(gmtime).qq(\\n); close $c }";
//!
//! impl Sidecar for Clock {
//!     fn name(&self) -> &str {
//!         "clock"
//!     }
//!
//!     fn applies(&self, _: &BottlePlan) -> bool {
//!         true
//!     }
//!
//!     fn service(&self, plan: &ResolvedPlan) -> Service {
//!         let alias = Some(self.name().to_owned());
//!         let mut service = sidecar_service(plan, self.name(), Image::Pulled(&self.image), Reach::Internal, alias);
//!         service.command = ["perl", "-e", SERVER].map(String::from).to_vec();
//!         service.healthcheck = Some(health_check(plan, &["grep", "-q", ":1F90 ", "/proc/net/tcp"]));
//!         service
//!     }
//!
//!     fn agent_access(&self, _: &ResolvedPlan) -> AgentAccess {
//!         AgentAccess { no_proxy: vec![self.name().to_owned()], ports: vec![8080], ..AgentAccess::default() }
//!     }
//! }
//!
//! # let manifest = Manifest::parse("{bottles: {dev: {}}, agents: {coder: {bottle: dev, command: [sh]}}}")?;
//! let clock = Clock { image: "debian:trixie-slim".parse()? };
//! let bottles = Bottles::local()?.with_sidecar(Arc::new(clock));
//! let bottle = bottles.launch(manifest.plan(&bottles)?)?;
//! let time = bottle.exec(["bash", "-c", "cat < /dev/tcp/clock/8080"])?;
//! println!("{}", time.stdout_text());
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I put my own files into the agent's container?
//!
//! Implement [`Provisioner`], and pass [`Builtin.then(yours)`](Provisioner::then) to [`Bottles::with_provisioner`]. The
//! launch runs it after the agent's container has started, and before it returns the bottle. If it returns an error, the
//! launch fails and removes the bottle. This one writes a file to the agent's home directory:
//!
//! ```no_run
//! use std::sync::Arc;
//! use bottle::exec::Stdin;
//! use bottle::prelude::*;
//!
//! #[derive(Debug)]
//! struct Notes {
//!     text: &'static str,
//! }
//!
//! impl Provisioner for Notes {
//!     fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError> {
//!         let write = Exec::new(["sh", "-c", "cat > /home/agent/notes.md"]);
//!         agent.run("write the notes", write.with_stdin(Stdin::Bytes(self.text.into())))?;
//!         Ok(())
//!     }
//! }
//!
//! # let manifest = Manifest::parse("{bottles: {dev: {}}, agents: {coder: {bottle: dev, command: [sh]}}}")?;
//! let notes = Notes { text: "Run the tests before you push.\n" };
//! let bottles = Bottles::local()?.with_provisioner(Arc::new(Builtin.then(notes)));
//! let bottle = bottles.launch(manifest.plan(&bottles)?)?;
//! print!("{}", bottle.exec(["cat", "/home/agent/notes.md"])?.stdout_text());
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I swap the backend?
//!
//! Every command goes through a [`Backend`](exec::Backend). Pass one to [`Engine::detect`], here one that logs each
//! command with `tracing`. [`conformance`] tests an implementation of your own.
//!
//! ```no_run
//! use std::sync::Arc;
//! use bottle::exec::{Control, Logging, Subprocess};
//! use bottle::prelude::*;
//! use bottle::{Engine, EngineChoice};
//!
//! let host = Host::current().map_err(bottle::Error::Host)?;
//! let backend = Arc::new(Logging::new(Subprocess::new(host.environment())));
//! let engine = Engine::detect(backend, &EngineChoice::Auto, Control::default())?;
//! let bottles = Bottles::new(engine, host);
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! `examples/swap_backend.rs` runs every command over ssh, or in a container.
//!
//! # How do I stop a bottle and go on later?
//!
//! A stopped bottle takes no memory and keeps its files. It starts again sealed, also from another process and after the
//! machine was restarted.
//!
//! ```no_run
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! # let slug = "coder-4x7qa".parse()?;
//! bottles.stop(&slug)?;
//! let bottle = bottles.start(&slug)?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I start agents faster?
//!
//! The crate `bottle-pool` keeps bottles of one plan launched and sealed. A task takes one in a fraction of a second, with
//! its own workspace and prompt.
//!
//! # What if my program is killed?
//!
//! Everything is recorded on disk before it is created. [`Bottles::recover`] removes what dead processes left behind.

mod agent;
mod bottles;
#[cfg(feature = "deploy-keys")]
pub mod deploy_keys;
mod error;
mod event_stream;
mod host;
mod inputs;
pub mod launch;
mod launch_error;
mod power;
mod prune;
mod report;
#[cfg(feature = "token-sources")]
pub mod token_sources;

pub use agent::agent_command;
pub use bottle_compose as compose;
pub use bottle_conformance as conformance;
pub use bottle_engine::{Engine, EngineChoice, EngineError};
pub use bottle_events::{
    self as events, BottleEvent, EventData, EventKind, EventLog, EventRecord, EventSource, Suggestion,
};
pub use bottle_lifecycle as lifecycle;
pub use bottle_plan as plan;
pub use bottle_plan::{BottlePlan, Manifest};
pub use bottle_posture as posture;
pub use bottle_provision::{AgentContainer, Builtin, ProvisionError, Provisioner, Then};
pub use bottle_sidecars as sidecars;
pub use bottle_store as store;
pub use bottle_supervise as supervise;
pub use bottle_tls as tls;
pub use bottle_verify::{self as verify, Verification, Verify};
pub use bottle_workspace as workspace;
pub use bottles::Bottles;
pub use error::{Error, Result};
pub use host::Host;
pub use launch::LaunchError;
pub use lifecycle::{Bottle, BottleError, Forward, ForwardSpec, ServiceHealth};
pub use prune::{PruneReport, Pruned};
pub use report::{Report, report};

/// Commands as data, the backends that run them, and the typed client of the container engine in [`engine`](exec::engine).
pub mod exec {
    pub use bottle_engine::{self as engine, Engine, EngineChoice, EngineError, rehearsal};
    pub use bottle_exec::*;
}

/// The names that most programs need: `use bottle::prelude::*;`.
pub mod prelude {
    pub use bottle_engine::Exec;
    pub use bottle_plan::manifest::{
        AgentSpec, BottleSpec, EnvSpec, InjectSpec, Inspect, PromptMode, RouteSpec, UpstreamSpec,
    };
    pub use bottle_plan::{BottlePlan, Manifest, PlanRequest, Slug};

    pub use crate::report::report;
    pub use crate::{AgentContainer, Bottle, Bottles, Builtin, Error, Host, ProvisionError, Provisioner, Result};
}

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

#[cfg(test)]
mod tests {
    use super::Manifest;

    /// The README's Rust code is compiled by the doc tests.
    #[test]
    fn every_manifest_in_the_readme_is_valid() {
        let readme = include_str!("../README.md");
        let manifests: Vec<&str> =
            readme.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").expect("the block ends").0).collect();
        assert!(!manifests.is_empty(), "the README shows a manifest");
        for text in manifests {
            let manifest = Manifest::parse(text).unwrap_or_else(|error| panic!("{}", crate::report(&error)));
            assert_eq!(manifest.agents.len(), 1, "`plan(&bottles)` needs exactly one agent:\n{text}");
        }
    }
}
