//! Building a manifest in code. Each type's constructor takes the required values, and `with_*` methods add the
//! optional ones. All fields are public, for everything else.

use std::collections::BTreeMap;

use super::spec::https_port;
use super::{
    AgentSpec, AllowSpec, BottleSpec, EnvSpec, InjectScheme, InjectSpec, Inspect, Manifest, PromptMode, Provider,
    PushSpec, RouteSpec, SuperviseSpec, Toggle, UpstreamSpec,
};
use crate::name::{BottleName, NameError};
use crate::value::AllowedEndpoint;

impl Manifest {
    /// Adds a bottle. An existing bottle of this name is replaced.
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
    /// If `name` is not a valid bottle name.
    pub fn with_bottle(mut self, name: &str, bottle: BottleSpec) -> Result<Self, NameError> {
        self.bottles.insert(name.parse()?, bottle);
        Ok(self)
    }

    /// Adds an agent. An existing agent of this name is replaced.
    ///
    /// # Errors
    ///
    /// If `name` is not a valid agent name.
    pub fn with_agent(mut self, name: &str, agent: AgentSpec) -> Result<Self, NameError> {
        self.agents.insert(name.parse()?, agent);
        Ok(self)
    }
}

impl BottleSpec {
    /// Allows a host, such as `api.example.com`, or a domain: `*.example.com` stands for `example.com` and every name
    /// below it. Its ports are 80 and 443, or the one that is written: `api.example.com:8443`.
    ///
    /// # Errors
    ///
    /// If `host` is neither a host name nor a domain wildcard, or its port is not valid.
    pub fn with_allow(mut self, host: &str) -> Result<Self, NameError> {
        self.egress.allow.push(host.parse::<AllowedEndpoint>()?.into());
        Ok(self)
    }

    /// Allows a host or a domain, as [`with_allow`](Self::with_allow), and sets its inspection by pipelock.
    ///
    /// # Errors
    ///
    /// If `host` is neither a host name nor a domain wildcard, or its port is not valid.
    pub fn with_inspected(mut self, host: &str, inspect: Inspect) -> Result<Self, NameError> {
        self.egress.allow.push(AllowSpec::from(host.parse::<AllowedEndpoint>()?).with_inspect(inspect));
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
    /// If `name` is not a valid variable name.
    pub fn with_env(mut self, name: &str, value: EnvSpec) -> Result<Self, NameError> {
        self.env.insert(name.parse()?, value);
        Ok(self)
    }

    /// Allows the agent to ask a person for changes.
    #[must_use]
    pub fn with_supervise(mut self) -> Self {
        self.supervise = Toggle::On(SuperviseSpec::default());
        self
    }
}

impl RouteSpec {
    /// Creates a route to port 443 of `host`, without limits and without a credential. The label wildcard `*.example.com`
    /// stands for the names exactly one label below `example.com`.
    ///
    /// # Errors
    ///
    /// If `host` is neither a host name nor a label wildcard.
    pub fn new(host: &str) -> Result<Self, NameError> {
        Ok(Self {
            name: None,
            host: host.parse()?,
            port: https_port(),
            paths: Vec::new(),
            methods: Vec::new(),
            headers: Vec::new(),
            inject: None,
            inspect: None,
            dlp: None,
        })
    }

    /// Allows paths that start with `prefix`. Default: all paths.
    ///
    /// # Errors
    ///
    /// If `prefix` is not a valid path prefix.
    pub fn with_path(mut self, prefix: &str) -> Result<Self, NameError> {
        self.paths.push(prefix.parse()?);
        Ok(self)
    }

    /// Allows a method. Default: all methods.
    ///
    /// # Errors
    ///
    /// If `method` is not a method that a route may allow.
    pub fn with_method(mut self, method: &str) -> Result<Self, NameError> {
        self.methods.push(method.parse()?);
        Ok(self)
    }

    /// Lets a further request header pass to a host for which a credential is injected. Default: none.
    ///
    /// # Errors
    ///
    /// If `header` is not a valid header name.
    pub fn with_header(mut self, header: &str) -> Result<Self, NameError> {
        self.headers.push(header.parse()?);
        Ok(self)
    }

    /// Sets the host's inspection by pipelock.
    #[must_use]
    pub const fn with_inspect(mut self, inspect: Inspect) -> Self {
        self.inspect = Some(inspect);
        self
    }

    /// Injects a credential into the requests.
    #[must_use]
    pub fn with_inject(mut self, inject: InjectSpec) -> Self {
        self.inject = Some(inject);
        self
    }
}

impl InjectSpec {
    /// Creates an `authorization: Bearer` header with the token in the host's variable `token`.
    ///
    /// # Errors
    ///
    /// If `token` is not a valid variable name.
    pub fn bearer(token: &str) -> Result<Self, NameError> {
        let (header, template, username) = (None, None, None);
        Ok(Self { token: token.parse()?, scheme: InjectScheme::Bearer, header, template, username })
    }

    /// Creates a header of your choice with the token in the host's variable `token`.
    ///
    /// # Errors
    ///
    /// If `header` is not a valid header name or `token` is not a valid variable name.
    pub fn header(header: &str, token: &str) -> Result<Self, NameError> {
        Ok(Self { scheme: InjectScheme::Header, header: Some(header.parse()?), ..Self::bearer(token)? })
    }
}

impl UpstreamSpec {
    /// Creates a repository with the default push rules. An ssh upstream also needs `known_hosts`, and `identity_file`
    /// or `deploy_key`.
    ///
    /// # Errors
    ///
    /// If `name` or `url` is not valid.
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
    /// Creates an agent that runs the provider's own program.
    ///
    /// # Errors
    ///
    /// If `bottle` is not a valid bottle name.
    pub fn new(bottle: &str, provider: Provider) -> Result<Self, NameError> {
        let bottle: BottleName = bottle.parse()?;
        let (prompt, prompt_file, prompt_mode) = (None, None, None);
        Ok(Self { bottle, provider, command: Vec::new(), prompt, prompt_file, prompt_mode, skills: Vec::new() })
    }

    /// Sets the prompt at the start. Default: none.
    #[must_use]
    pub fn with_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// Sets the way in which the prompt is passed to the command. Default: that of the provider.
    #[must_use]
    pub const fn with_prompt_mode(mut self, mode: PromptMode) -> Self {
        self.prompt_mode = Some(mode);
        self
    }

    /// Creates an agent that runs any command.
    ///
    /// # Errors
    ///
    /// If `bottle` is not a valid bottle name.
    pub fn custom(bottle: &str, command: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, NameError> {
        let command = command.into_iter().map(Into::into).collect();
        Ok(Self { command, ..Self::new(bottle, Provider::Custom)? })
    }
}
