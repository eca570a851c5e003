//! Launches an AI coding agent inside a sealed Docker Compose project.
//!
//! A [`Manifest`] says what a bottle may do. [`Bottles`] launches it, on this machine's container engine, and returns a
//! [`Bottle`]: a handle that runs commands, copies files, and removes everything when it is closed or dropped. This page
//! grows one program from "run a command" to an agent that never holds its key. Every section compiles as a test.
//!
//! # How do I run a command in a bottle?
//!
//! ```no_run
//! use bottle::prelude::*;
//!
//! let bottles = Bottles::local()?;
//! let manifest = Manifest::parse("{bottles: {dev: {}}, agents: {worker: {bottle: dev, command: [sh]}}}")?;
//! let bottle = bottles.launch(manifest.plan(&bottles)?)?;
//! let output = bottle.exec(["id", "-un"])?;
//! assert_eq!(output.stdout_text(), "agent\n");
//! bottle.close()?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! A bottle with nothing in it reaches nothing. The working directory is copied into it, without what `.gitignore` names.
//! [`Bottles::local`] finds the engine and the state directory. Every other option has a default and a `with_*` method.
//!
//! # How do I let the agent reach a host?
//!
//! List it under `egress.allow`. `*.example.com` allows `example.com` and everything below it.
//!
//! ```
//! # use bottle::prelude::*;
//! let dev = BottleSpec::default().with_allow("example.com")?.with_allow("*.example.org")?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I run Claude Code with a key that it never holds?
//!
//! A route injects the key. The agent has a placeholder in the variable that it insists on; the `egress` sidecar puts the
//! real key, from this process's environment, into each request that the route allows.
//!
//! ```no_run
//! use bottle::prelude::*;
//!
//! let manifest = Manifest::parse(r#"
//! bottles:
//!   claude:
//!     env:
//!       ANTHROPIC_API_KEY: {placeholder: true}
//!     egress:
//!       routes:
//!         - host: api.anthropic.com
//!           paths: [/v1/, /api/claude_code/]
//!           methods: [GET, POST]
//!           inject: {token: ANTHROPIC_API_KEY, scheme: header, header: x-api-key}
//! agents:
//!   coder: {bottle: claude, provider: claude}
//! "#)?;
//! let bottles = Bottles::local()?;
//! let bottle = bottles.launch(manifest.plan(&bottles)?)?;
//! let answer = bottle.exec(["claude", "-p", "What does this repository do?"])?;
//! println!("{}", answer.stdout_text());
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! `examples/claude.yaml` and `examples/codex.yaml` are complete manifests. [`Bottle::exec_agent`] runs the agent on this
//! process's own terminal.
//!
//! # How do I see the logs?
//!
//! [`Bottles::logs`] writes what the services print to a sink, also for a bottle that is already gone. [`Bottles::list`]
//! returns the state of every service, including one that was killed.
//!
//! ```no_run
//! use std::io::Write;
//! use std::sync::Arc;
//! use bottle::exec::Stream;
//! use bottle::prelude::*;
//!
//! let bottles = Bottles::local()?;
//! let print = |_: Stream, bytes: &[u8]| { let _ = std::io::stdout().write_all(bytes); };
//! bottles.logs(&"coder-4x7qa".parse()?, false, Arc::new(print))?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # Why was my request refused?
//!
//! The answer says which rule refused it, and each refusal is a line in the log.
//!
//! | answer | from | what to change |
//! | --- | --- | --- |
//! | 403 with `X-Egress-Refused: upstream-refused` | pipelock, behind egress | add the host to `egress.allow`, or let the agent propose it |
//! | 403 with another rule in `X-Egress-Refused` | egress | the route's `paths` or `methods` |
//! | 403 without that header | pipelock | add the host to `egress.allow` |
//! | 421 or 400 with `X-Egress-Refused` | egress | the client: CONNECT, TLS server name and `Host` name different hosts |
//! | connection refused, or no answer | the seal | the client: it ignores the proxy variables |
//! | `git push` fails with a reason | git-gate | the upstream's `push` rules, or the secret that was found |
//!
//! # How does the agent ask a person for more?
//!
//! With `supervise: true` the agent has a tool that proposes changes. A person looks at each proposal, at what approving
//! it would change, and at when it would take effect.
//!
//! ```no_run
//! use bottle::prelude::*;
//!
//! let bottles = Bottles::local()?;
//! let supervisor = bottles.supervise(&"coder-4x7qa".parse()?)?;
//! for review in supervisor.pending()? {
//!     println!("{review}");
//!     supervisor.approve(&review, "needed for the tests")?;
//! }
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I get the work back?
//!
//! Copy it out before the bottle is closed, or let the agent push a branch through git-gate. What the agent wrote is not
//! to be trusted: links are kept as links and must not be followed.
//!
//! ```no_run
//! # use bottle::prelude::*;
//! # let bottles = Bottles::local()?;
//! let bottle = bottles.attach(&"coder-4x7qa".parse()?)?;
//! bottle.cp_out("/workspace/report.md", "results".as_ref())?;
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # How do I add a sidecar?
//!
//! Implement [`Sidecar`](compose::Sidecar) (the page of [`compose`] has a complete example) and pass it to
//! [`Bottles::with_sidecar`]. The seal opens the ports that it names, and no others.
//!
//! # How do I put my own files into the agent's container?
//!
//! Implement [`Provisioner`], and pass [`Builtin.then(yours)`](Provisioner::then) to [`Bottles::with_provisioner`].
//!
//! # How do I run the commands elsewhere?
//!
//! Every command goes through a [`Backend`](exec::Backend). [`conformance`] tests an implementation of your own.
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
//! `examples/swap_backend.rs` runs everything over ssh, or in a container.
//!
//! # What if my program is killed?
//!
//! Everything is recorded on disk before it is created. [`Bottles::recover`] removes what dead processes left behind.

mod agent;
mod bottles;
#[cfg(feature = "deploy-keys")]
pub mod deploy_keys;
mod env_file;
mod error;
mod event_log;
mod host;
mod inputs;
pub mod launch;
mod provision;
mod report;
pub mod workspace;

pub use agent::agent_command;
pub use bottle_compose as compose;
pub use bottle_conformance as conformance;
pub use bottle_engine::{Engine, EngineChoice, EngineError};
pub use bottle_lifecycle as lifecycle;
pub use bottle_plan as plan;
pub use bottle_plan::{BottlePlan, Manifest};
pub use bottle_posture as posture;
pub use bottle_sidecars as sidecars;
pub use bottle_supervise as supervise;
pub use bottle_tls as tls;
pub use bottles::Bottles;
pub use error::{Error, Result};
pub use event_log::{EventLog, EventRecord};
pub use host::Host;
pub use launch::LaunchError;
pub use lifecycle::{Bottle, BottleError, ServiceHealth};
pub use provision::{AgentContainer, Builtin, ProvisionError, Provisioner, Then};
pub use report::{Report, report};

/// Commands as data, the backends that run them, and the typed client of the container engine in [`engine`](exec::engine).
pub mod exec {
    pub use bottle_engine::{self as engine, Engine, EngineChoice, EngineError, rehearsal};
    pub use bottle_exec::*;
}

/// The names that most programs need: `use bottle::prelude::*;`.
pub mod prelude {
    pub use bottle_engine::Exec;
    pub use bottle_plan::manifest::{AgentSpec, BottleSpec, InjectSpec, RouteSpec, UpstreamSpec};
    pub use bottle_plan::{BottlePlan, Manifest, PlanRequest, Slug};

    pub use crate::{Bottle, Bottles, Error, Host};
}

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
