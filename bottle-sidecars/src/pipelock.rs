//! Pipelock, the egress firewall: its configuration and its service. Its image is not built here.

use std::path::Path;

use bottle_compose::document::{Bind, Service, Variable};
use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service};
use bottle_compose::{AgentAccess, Sidecar, to_plain_yaml};
use bottle_plan::{BottlePlan, Names, ResolvedPlan, Service as Name};
use ipnet::Ipv4Net;
use serde::Serialize;

/// The port on which pipelock is a proxy.
pub const PORT: u16 = 8888;

const CONFIG: &str = "/etc/pipelock.yaml";
const CA_CERT: &str = "/etc/pipelock-ca.pem";
const CA_KEY: &str = "/etc/pipelock-ca-key.pem";
/// Go's certificate pool reads every file of `SSL_CERT_DIR` besides the image's own bundle, so that a company's authority
/// is trusted in addition.
const UPSTREAM_CA_DIR: &str = "/etc/pipelock-upstream-ca";

/// The egress firewall.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pipelock;

impl Sidecar for Pipelock {
    fn name(&self) -> &str {
        Name::Pipelock.as_str()
    }

    fn applies(&self, _: &BottlePlan) -> bool {
        true
    }

    fn service(&self, plan: &ResolvedPlan) -> Service {
        let bottle = plan.plan();
        let files = &plan.launch().pipelock;
        let alias = bottle.names.container(Name::Pipelock);
        let mut service =
            sidecar_service(plan, Name::Pipelock, Image::Pulled(&bottle.images.pipelock), Reach::Both, Some(alias));
        service.command =
            ["run", "--config", CONFIG, "--listen", &listen_address()].into_iter().map(ToOwned::to_owned).collect();
        service.volumes = vec![
            Bind::read_only(&files.config, CONFIG),
            Bind::read_only(&files.ca_cert, CA_CERT),
            Bind::read_only(&files.ca_key, CA_KEY),
        ];
        if let Some(bundle) = &plan.launch().upstream_ca {
            service.volumes.push(Bind::read_only(bundle, format!("{UPSTREAM_CA_DIR}/upstream-ca.pem")));
            service.environment.push(Variable::set("SSL_CERT_DIR", UPSTREAM_CA_DIR));
        }
        // The image's own check asks the default port.
        service.healthcheck =
            Some(health_check(plan, &["/pipelock", "healthcheck", "--addr", &format!("127.0.0.1:{PORT}")]));
        service
    }

    fn agent_access(&self, plan: &ResolvedPlan) -> AgentAccess {
        AgentAccess { proxy: Some(url(&plan.plan().names)), ports: vec![PORT], ..AgentAccess::default() }
    }
}

/// Pipelock's address as a proxy, from inside the bottle.
pub fn url(names: &Names) -> String {
    format!("http://{}:{PORT}", names.container(Name::Pipelock))
}

fn listen_address() -> String {
    format!("0.0.0.0:{PORT}")
}

/// Pipelock's configuration for a plan.
///
/// `internal_cidr` is the internal network's subnet where the launcher made the network; pipelock's SSRF guard then lets
/// it pass. Only keys that release 2.3.0 is known to have are written: it refuses a file with any other.
pub fn config(plan: &BottlePlan, internal_cidr: Option<Ipv4Net>) -> String {
    let injects = plan.egress.iter().flat_map(|egress| &egress.routes).any(|route| route.inject.is_some());
    let config = Config {
        version: 1,
        mode: "strict",
        enforce: true,
        explain_blocks: true,
        api_allowlist: allow_list(plan),
        trusted_domains: [],
        ssrf: Ssrf { ip_allowlist: internal_cidr.into_iter().map(|cidr| cidr.to_string()).collect() },
        fetch_proxy: FetchProxy {
            listen: listen_address(),
            timeout_seconds: 600,
            monitoring: Monitoring {
                max_url_length: 8192,
                entropy_threshold: 6.0,
                max_requests_per_minute: 6000,
                blocklist: [],
            },
        },
        forward_proxy: ForwardProxy {
            enabled: true,
            max_tunnel_seconds: 24 * 60 * 60,
            idle_timeout_seconds: 60 * 60,
            sni_verification: true,
        },
        tls_interception: TlsInterception {
            enabled: true,
            ca_cert: Path::new(CA_CERT),
            ca_key: Path::new(CA_KEY),
            max_response_bytes: 128 << 20,
            passthrough_domains: [],
        },
        request_body_scanning: RequestBodyScanning {
            enabled: true,
            action: "warn",
            max_body_bytes: 64 << 20,
            scan_headers: !injects,
            header_mode: "sensitive",
        },
        response_scanning: ResponseScanning {
            enabled: true,
            action: "warn",
            exempt_domains: plan.proxy.allow.iter().map(AsRef::as_ref).collect(),
            sse_streaming: SseStreaming { enabled: true, action: "warn", max_event_bytes: 10 << 20 },
        },
        dlp: Dlp { scan_env: false, include_defaults: true },
        websocket_proxy: Switch { enabled: false },
        logging: Logging { format: "json", output: "stdout", include_allowed: true, include_blocked: true },
        metrics_listen: "127.0.0.1:9090",
    };
    to_plain_yaml(&config, &[format!("What pipelock lets through for bottle {}.", plan.names.slug())])
}

/// The hosts that may be reached; where there are none, a name that nobody can have (RFC 2606), since pipelock does not
/// start with an empty list.
fn allow_list(plan: &BottlePlan) -> Vec<&str> {
    if plan.proxy.allow.is_empty() {
        return vec!["nothing.invalid"];
    }
    plan.proxy.allow.iter().map(AsRef::as_ref).collect()
}

/// The configuration file, each key with the reason for its value.
#[derive(Serialize)]
struct Config<'a> {
    version: u8,
    /// The only mode that enforces `api_allowlist`.
    mode: &'static str,
    /// Explicit, since `false` turns every refusal into a warning.
    enforce: bool,
    /// The agent may know what it would have to ask for; only a person can grant it.
    explain_blocks: bool,
    api_allowlist: Vec<&'a str>,
    /// Names here would pass the SSRF guard with any address.
    trusted_domains: [&'static str; 0],
    ssrf: Ssrf,
    fetch_proxy: FetchProxy,
    forward_proxy: ForwardProxy,
    tls_interception: TlsInterception<'a>,
    request_body_scanning: RequestBodyScanning,
    response_scanning: ResponseScanning<'a>,
    dlp: Dlp,
    /// Upgrades inside an intercepted tunnel are stripped anyway; this closes the other way.
    websocket_proxy: Switch,
    logging: Logging,
    /// Off the port that the agent sees.
    metrics_listen: &'static str,
}

#[derive(Serialize)]
struct Ssrf {
    ip_allowlist: Vec<String>,
}

#[derive(Serialize)]
struct FetchProxy {
    /// Must equal `--listen`.
    listen: String,
    /// Caps a whole plain HTTP exchange; a package mirror without TLS takes longer than the default of 30.
    timeout_seconds: u32,
    monitoring: Monitoring,
}

#[derive(Serialize)]
struct Monitoring {
    /// Signed download URLs are longer than the default of 2048.
    max_url_length: u32,
    /// Bits a character. Random identifiers in base64url have up to 5.8, which the default of 4.5 refuses; where data may
    /// go is fixed by the allowlist.
    entropy_threshold: f64,
    /// For one registrable domain, the CONNECT and every request in it counted: installing packages takes thousands.
    max_requests_per_minute: u32,
    blocklist: [&'static str; 0],
}

#[derive(Serialize)]
struct ForwardProxy {
    enabled: bool,
    /// An intercepted tunnel is cut in mid-stream when it ends: the default of 300 s would cut an agent's session.
    max_tunnel_seconds: u32,
    /// A model may think for many minutes without a byte.
    idle_timeout_seconds: u32,
    sni_verification: bool,
}

#[derive(Serialize)]
struct TlsInterception<'a> {
    enabled: bool,
    ca_cert: &'a Path,
    ca_key: &'a Path,
    /// A response that is no event stream is held back whole, up to this; what is larger is refused. Packages are larger
    /// than the default of 5 MiB.
    max_response_bytes: u32,
    passthrough_domains: [&'static str; 0],
}

#[derive(Serialize)]
struct RequestBodyScanning {
    enabled: bool,
    /// Source code often holds what looks like a key; refusing it would stop the agent's own work.
    action: &'static str,
    /// Larger bodies are refused even with `warn`; a request to a model may carry images.
    max_body_bytes: u32,
    /// Not when egress injects credentials: those are what it would find.
    scan_headers: bool,
    header_mode: &'static str,
}

#[derive(Serialize)]
struct ResponseScanning<'a> {
    /// Event streams are only streamed when this is on.
    enabled: bool,
    /// What is stricter rewrites or refuses pages that speak of prompt injection.
    action: &'static str,
    /// Looking through a response takes about a second for each megabyte; what may be reached is fixed by the allowlist.
    exempt_domains: Vec<&'a str>,
    sse_streaming: SseStreaming,
}

#[derive(Serialize)]
struct SseStreaming {
    enabled: bool,
    action: &'static str,
    /// A larger event ends the stream, and a model's tool call passes the default of 64 KiB.
    max_event_bytes: u32,
}

#[derive(Serialize)]
struct Dlp {
    /// Nothing secret is in pipelock's environment, and its own paths would be taken for secrets.
    scan_env: bool,
    include_defaults: bool,
}

#[derive(Serialize)]
struct Switch {
    enabled: bool,
}

#[derive(Serialize)]
struct Logging {
    format: &'static str,
    /// Where `docker compose logs` finds it.
    output: &'static str,
    include_allowed: bool,
    include_blocked: bool,
}
