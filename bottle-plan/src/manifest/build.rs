//! A manifest without YAML: each type's constructor takes what it cannot do without, and `with_*` adds to it. Fields are
//! public, for everything else.

use std::collections::BTreeMap;

use super::spec::https_port;
use super::{
    AgentSpec, AllowSpec, BottleSpec, EnvSpec, InjectScheme, InjectSpec, Inspect, Manifest, Provider, PushSpec,
    RouteSpec, SuperviseSpec, Toggle, UpstreamSpec,
};
use crate::name::{BottleName, NameError};

impl Manifest {
    /// Adds a bottle; one of this name that is there already is replaced.
    ///
    /// ```
    /// use bottle_plan::Manifest;
    /// use bottle_plan::manifest::{AgentSpec, BottleSpec, EnvSpec, InjectSpec, Inspect, RouteSpec};
    ///
    /// let route = RouteSpec::new("api.example.com")?.with_path("/v1")?.with_inject(InjectSpec::bearer("API_TOKEN")?);
    /// let bottle = BottleSpec::default()
    ///     .with_allow("packages.example.com")?
    ///     .with_inspected("api.example.org", Inspect::Content)?
    ///     .with_route(route)
    ///     .with_env("EDITOR", EnvSpec::Literal("vi".into()))?
    ///     .with_supervise();
    /// let manifest = Manifest::default()
    ///     .with_bottle("dev", bottle)?
    ///     .with_agent("demo", AgentSpec::custom("dev", ["make", "test"])?)?;
    /// manifest.check()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When `name` is not a bottle's name.
    pub fn with_bottle(mut self, name: &str, bottle: BottleSpec) -> Result<Self, NameError> {
        self.bottles.insert(name.parse()?, bottle);
        Ok(self)
    }

    /// Adds an agent; one of this name that is there already is replaced.
    ///
    /// # Errors
    ///
    /// When `name` is not an agent's name.
    pub fn with_agent(mut self, name: &str, agent: AgentSpec) -> Result<Self, NameError> {
        self.agents.insert(name.parse()?, agent);
        Ok(self)
    }
}

impl BottleSpec {
    /// Lets the agent reach a host: `api.example.com`, or `*.example.com`.
    ///
    /// # Errors
    ///
    /// When `host` is neither.
    pub fn with_allow(mut self, host: &str) -> Result<Self, NameError> {
        self.egress.allow.push(AllowSpec { host: host.parse()?, inspect: None });
        Ok(self)
    }

    /// Lets the agent reach a host and says how pipelock inspects it.
    ///
    /// # Errors
    ///
    /// When `host` is neither a host nor a wildcard.
    pub fn with_inspected(mut self, host: &str, inspect: Inspect) -> Result<Self, NameError> {
        self.egress.allow.push(AllowSpec { host: host.parse()?, inspect: Some(inspect) });
        Ok(self)
    }

    /// Adds a route.
    #[must_use]
    pub fn with_route(mut self, route: RouteSpec) -> Self {
        self.egress.routes.push(route);
        self
    }

    /// Adds a git repository.
    #[must_use]
    pub fn with_upstream(mut self, upstream: UpstreamSpec) -> Self {
        self.git.upstreams.push(upstream);
        self
    }

    /// Sets a variable of the agent's environment.
    ///
    /// # Errors
    ///
    /// When `name` is not a variable's name.
    pub fn with_env(mut self, name: &str, value: EnvSpec) -> Result<Self, NameError> {
        self.env.insert(name.parse()?, value);
        Ok(self)
    }

    /// Lets the agent ask a person for changes.
    #[must_use]
    pub fn with_supervise(mut self) -> Self {
        self.supervise = Toggle::On(SuperviseSpec::default());
        self
    }
}

impl RouteSpec {
    /// A route to port 443 of `host`, without limits or credential.
    ///
    /// # Errors
    ///
    /// When `host` is neither a host nor a wildcard.
    pub fn new(host: &str) -> Result<Self, NameError> {
        let (paths, methods) = (Vec::new(), Vec::new());
        Ok(Self { name: None, host: host.parse()?, port: https_port(), paths, methods, inject: None, inspect: None })
    }

    /// Lets paths that begin with `prefix` pass; without any, all do.
    ///
    /// # Errors
    ///
    /// When `prefix` is not a path's beginning.
    pub fn with_path(mut self, prefix: &str) -> Result<Self, NameError> {
        self.paths.push(prefix.parse()?);
        Ok(self)
    }

    /// Lets a method pass; without any, all do.
    ///
    /// # Errors
    ///
    /// When `method` is not a method that a route may have.
    pub fn with_method(mut self, method: &str) -> Result<Self, NameError> {
        self.methods.push(method.parse()?);
        Ok(self)
    }

    /// Says how pipelock inspects the host.
    #[must_use]
    pub const fn with_inspect(mut self, inspect: Inspect) -> Self {
        self.inspect = Some(inspect);
        self
    }

    /// Gives the requests a credential.
    #[must_use]
    pub fn with_inject(mut self, inject: InjectSpec) -> Self {
        self.inject = Some(inject);
        self
    }
}

impl InjectSpec {
    /// `authorization: Bearer` with the token of the host's variable `token`.
    ///
    /// # Errors
    ///
    /// When `token` is not a variable's name.
    pub fn bearer(token: &str) -> Result<Self, NameError> {
        let (header, template, username) = (None, None, None);
        Ok(Self { token: token.parse()?, scheme: InjectScheme::Bearer, header, template, username })
    }

    /// A header of your choice with the token of the host's variable `token`.
    ///
    /// # Errors
    ///
    /// When `header` is not a header's name or `token` not a variable's.
    pub fn header(header: &str, token: &str) -> Result<Self, NameError> {
        Ok(Self { scheme: InjectScheme::Header, header: Some(header.parse()?), ..Self::bearer(token)? })
    }
}

impl UpstreamSpec {
    /// A repository with the usual rules for pushes. One that is reached over ssh also needs `known_hosts`, and
    /// `identity_file` or `deploy_key`.
    ///
    /// # Errors
    ///
    /// When `name` or `url` is not one.
    pub fn new(name: &str, url: &str) -> Result<Self, NameError> {
        Ok(Self {
            name: name.parse()?,
            url: url.parse()?,
            identity_file: None,
            known_hosts: Vec::new(),
            extra_hosts: BTreeMap::new(),
            token: None,
            username: None,
            deploy_key: None,
            push: PushSpec::default(),
        })
    }
}

impl AgentSpec {
    /// An agent of a known kind, started by the provider's own program.
    ///
    /// # Errors
    ///
    /// When `bottle` is not a bottle's name.
    pub fn new(bottle: &str, provider: Provider) -> Result<Self, NameError> {
        let bottle: BottleName = bottle.parse()?;
        Ok(Self { bottle, provider, command: Vec::new(), prompt: None, prompt_file: None, skills: Vec::new() })
    }

    /// Any command as an agent.
    ///
    /// # Errors
    ///
    /// When `bottle` is not a bottle's name.
    pub fn custom(bottle: &str, command: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, NameError> {
        let command = command.into_iter().map(Into::into).collect();
        Ok(Self { command, ..Self::new(bottle, Provider::Custom)? })
    }
}
