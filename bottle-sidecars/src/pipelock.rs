//! Pipelock, the egress firewall: its configuration and its service. Its image is pulled, not built.
//!
//! # Over plain HTTP
//!
//! Pipelock reads every request and response over plain HTTP, whatever `inspect` says. It scans URLs. It buffers and
//! scans a response as for a host with `inspect: content`. A response above [`MAX_RESPONSE_BYTES`] is truncated there,
//! and the client sees it as complete. Release 2.3.0 has no option to prevent this. Use HTTPS for large files.
//!
//! It also removes the upgrade of a WebSocket from such a request. Without egress, a WebSocket works over `ws:` if the
//! client opens a tunnel for it, as most do.
//!
//! # Emergency stop
//!
//! `docker kill --signal USR1 <pipelock's container>` makes pipelock refuse every request and close open connections. A
//! second signal resumes normal operation. It costs nothing and needs no configuration.
//!
//! # Features of pipelock that a bottle does not use
//!
//! Measured with small answers on a kept-alive connection to a host with `inspect: content`, where a request takes 3.9
//! ms without any of these features. With `inspect: connection`, only the recorder adds time: 0.3 ms instead of 0.2 ms.
//!
//! | feature | adds | why not |
//! | --- | --- | --- |
//! | canary tokens | under 0.1 ms | pipelock sees them only in what it decrypts, and the default decrypts nothing |
//! | flight recorder with signed receipts | 1.5 ms, 0.8 KB a request | it has no bound in size, so the agent could fill the host's disk; it needs a writable mount; the log has the same facts |
//! | cross-request detection | 7 to 24 ms, growing with what it has kept | it costs more than the scan itself |
//! | metrics | nothing | they are on, but at the loopback: on the proxy's port the agent would read them, and the image has no client |

use std::collections::BTreeSet;
use std::path::Path;

use bottle_compose::document::{Bind, Condition, Dependency, Mount, Service, Variable};
use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service};
use bottle_compose::{AgentAccess, Sidecar, to_plain_yaml};
use bottle_plan::manifest::RequestScan;
use bottle_plan::value::Subnet;
use bottle_plan::{BottlePlan, Names, ResolvedPlan, Service as Name};
use serde::Serialize;

/// The port of the pipelock proxy.
pub const PORT: u16 = 8888;

/// Path of the configuration in the container of pipelock.
pub const CONFIG: &str = "/etc/pipelock.yaml";
const CA_CERT: &str = "/etc/pipelock-ca.pem";
const CA_KEY: &str = "/etc/pipelock-ca-key.pem";
/// Directory for `SSL_CERT_DIR`. Go reads every file there in addition to the image's own bundle, so that a company's
/// authority is trusted too.
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
        let image = Image::Pulled(&bottle.images.pipelock);
        let mut service = sidecar_service(plan, Name::Pipelock, image, Reach::Both, None);
        // Its network namespace is the outlet's, which limits the ports that it connects to.
        service.networks = Vec::new();
        service.network_mode = Some(format!("service:{}", Name::Outlet));
        // The outlet closes the namespace before it opens anything, and the agent waits until it is healthy.
        let started = Dependency { condition: Condition::ServiceStarted };
        service.depends_on = vec![(Name::Outlet.as_str().to_owned(), started)];
        service.command =
            ["run", "--config", CONFIG, "--listen", &listen_address()].into_iter().map(ToOwned::to_owned).collect();
        let volumes = [
            Bind::read_only(&files.config, CONFIG),
            Bind::read_only(&files.ca_cert, CA_CERT),
            Bind::read_only(&files.ca_key, CA_KEY),
        ];
        service.volumes = volumes.map(Mount::Bind).into();
        if let Some(bundle) = &plan.launch().upstream_ca {
            service.volumes.push(Bind::read_only(bundle, format!("{UPSTREAM_CA_DIR}/upstream-ca.pem")).into());
            service.environment.push(Variable::set("SSL_CERT_DIR", UPSTREAM_CA_DIR));
        }
        service.environment.push(Variable::set("GOMAXPROCS", go_threads(bottle).to_string()));
        service.environment.push(Variable::set("GOMEMLIMIT", format!("{}B", memory_goal(bottle))));
        // The image's own health check probes the default port.
        service.healthcheck =
            Some(health_check(plan, &["/pipelock", "healthcheck", "--addr", &format!("127.0.0.1:{PORT}")]));
        service
    }

    fn agent_access(&self, plan: &ResolvedPlan) -> AgentAccess {
        AgentAccess {
            proxy: Some(url(&plan.plan().names)),
            ports: vec![PORT],
            // Over plain HTTP a connection has one answer at a time. Over HTTP/2, which pipelock 2.3.0 offers where it
            // decrypts and has no option to limit, it has up to 250, and some 2,000 answers at once exhaust its memory.
            // (`GODEBUG=http2server=0` does not help: pipelock still offers HTTP/2 and then fails every request.) The
            // agent therefore never reaches a pipelock that decrypts: with `inspect: content` egress is in between. It
            // uses HTTP/1.1 and limits the number of requests; see `max_inspected`.
            max_connections: Some(plan.plan().max_connections()),
            ..AgentAccess::default()
        }
    }
}

/// Returns pipelock's address as a proxy, from inside the bottle.
pub fn url(names: &Names) -> String {
    format!("http://{}:{PORT}", names.container(Name::Pipelock))
}

fn listen_address() -> String {
    format!("0.0.0.0:{PORT}")
}

/// Returns pipelock's configuration for a launch.
///
/// `internal_cidr` is the internal network's subnet, if the launcher created the network. Pipelock's SSRF guard then
/// allows that subnet. The file has only keys that release 2.3.0 knows, because pipelock refuses a file with any other.
pub fn config(plan: &BottlePlan, internal_cidr: Option<Subnet>) -> String {
    live_config(plan, plan, internal_cidr)
}

/// Returns pipelock's configuration for a running bottle: the allowlist of the plan in effect, and everything else as
/// at the launch.
///
/// In strict mode pipelock rejects a reload that adds a passthrough domain, an exempt domain, a trusted domain or an
/// SSRF range. A live approval therefore changes only `api_allowlist`. If the plan of the launch has a host with
/// `inspect: content`, a host that was not in it is inspected by content until the next launch: its answers are buffered,
/// scanned (about 2 s per MiB) and limited to [`MAX_RESPONSE_BYTES`]. The agent reaches the host at once, but large
/// downloads need a new launch. A host that is no longer allowed stays a passthrough domain. That has no effect, because
/// pipelock checks the allowlist first.
///
/// If the plan of the launch has no host with `inspect: content`, pipelock decrypts nothing, and a host that is approved
/// later is inspected by connection.
pub fn live_config(launched: &BottlePlan, plan: &BottlePlan, internal_cidr: Option<Subnet>) -> String {
    let scan = launched.proxy.scan_requests;
    let injected = injected_where_pipelock_reads(launched);
    let sensitive_headers: Vec<_> = SENSITIVE_HEADERS.into_iter().filter(|name| !injected.contains(name)).collect();
    let config = Config {
        version: 1,
        // Without the allowlist, and with every other check. Egress is in front and records each host.
        mode: if launched.learns() { "balanced" } else { "strict" },
        enforce: true,
        explain_blocks: true,
        api_allowlist: allow_list(plan),
        trusted_domains: [],
        // Where every name is allowed, those of the bottle itself are refused by their addresses.
        ssrf: Ssrf {
            ip_allowlist: internal_cidr
                .filter(|_| !launched.learns())
                .into_iter()
                .map(|cidr| cidr.to_string())
                .collect(),
        },
        fetch_proxy: FetchProxy {
            listen: listen_address(),
            max_response_mb: MAX_RESPONSE_BYTES >> 20,
            monitoring: Monitoring { max_requests_per_minute: 6000 },
        },
        forward_proxy: ForwardProxy {
            enabled: true,
            max_tunnel_seconds: 24 * 60 * 60,
            idle_timeout_seconds: 60 * 60,
            sni_verification: true,
        },
        tls_interception: TlsInterception {
            enabled: launched.proxy.decrypts(),
            ca_cert: Path::new(CA_CERT),
            ca_key: Path::new(CA_KEY),
            max_response_bytes: MAX_RESPONSE_BYTES,
            passthrough_domains: passthrough(launched),
        },
        request_body_scanning: RequestBodyScanning {
            enabled: scan != RequestScan::Off,
            action: if scan == RequestScan::Block { "block" } else { "warn" },
            max_body_bytes: MAX_REQUEST_BYTES,
            // An empty list would stand for the default one.
            scan_headers: !sensitive_headers.is_empty(),
            sensitive_headers,
        },
        response_scanning: ResponseScanning {
            enabled: true,
            action: "warn",
            sse_streaming: SseStreaming { action: "warn", max_event_bytes: 1 << 20 },
        },
        logging: Logging { format: "json", output: "stdout" },
        metrics_listen: "127.0.0.1:9090",
    };
    to_plain_yaml(&config, &[format!("What pipelock lets through for bottle {}.", plan.names.slug())])
}

/// Maximum size of an answer that pipelock buffers and scans, in bytes. From a host with `inspect: content`, a larger
/// answer is refused. Over plain HTTP, pipelock silently truncates a larger answer.
pub const MAX_RESPONSE_BYTES: u32 = 1 << 20;

/// Maximum size of a request body that pipelock buffers and scans, in bytes. A larger one is refused with 403. It has no
/// effect with `scan_requests: off`: the body is then passed on as it arrives.
pub const MAX_REQUEST_BYTES: u32 = 1 << 20;

/// Returns the maximum number of simultaneous requests from egress that pipelock buffers and scans: those over plain
/// HTTP and those to hosts with `inspect: content`. It is 32 with the default limit of 1 GiB, each with a body of 1 MiB
/// and an answer of 1 MiB. With 48, such a flood peaked at 870 MiB.
///
/// Egress itself is a single client of pipelock, whose connections the seal does not count.
pub(crate) fn max_inspected(plan: &BottlePlan) -> u32 {
    plan.sidecar_memory_shares(32).max(4)
}

/// Returns the number of threads that run Go code at once: 64 with the default memory limit, more than there are scans.
///
/// A scan keeps its thread busy for seconds. With a thread for each processor, a request to another host waited its turn
/// behind 48 scans at every step, 18 s in all. A free thread lets the kernel run it at once: 0.5 s.
fn go_threads(plan: &BottlePlan) -> u32 {
    plan.sidecar_memory_shares(16).max(4)
}

/// Returns the soft memory limit of Go's garbage collector in bytes: three quarters of the container's limit.
///
/// Without it, 20 simultaneous responses of 5 MiB exceeded 1 GiB. With it, 250 stayed below 800 MiB.
fn memory_goal(plan: &BottlePlan) -> u64 {
    plan.sidecar_memory().bytes() / 4 * 3
}

/// Returns the hosts that may be reached. If there are none, returns a reserved name (RFC 2606), because pipelock does
/// not start with an empty list.
fn allow_list(plan: &BottlePlan) -> Vec<&str> {
    if plan.proxy.allow.is_empty() {
        return vec!["nothing.invalid"];
    }
    plan.proxy.allow.iter().map(AsRef::as_ref).collect()
}

/// Returns the hosts that pipelock does not decrypt. In `api_allowlist`, `*.x` also matches `x`; in this list it does
/// not.
fn passthrough(plan: &BottlePlan) -> Vec<&str> {
    let mut names = BTreeSet::new();
    for host in plan.proxy.passed() {
        names.insert(host.as_str());
        names.extend(host.domain());
    }
    names.into_iter().collect()
}

/// The request headers that pipelock scans by default, in lower case.
const SENSITIVE_HEADERS: [&str; 6] =
    ["authorization", "cookie", "x-api-key", "x-token", "proxy-authorization", "x-goog-api-key"];

/// Returns the headers that egress injects into requests that pipelock then decrypts.
///
/// A scan of such a header would find the credential. Pipelock has one list for all hosts. What the agent itself sends in
/// these headers is searched by egress, unless `egress.dlp` is off.
fn injected_where_pipelock_reads(plan: &BottlePlan) -> BTreeSet<&str> {
    let passed: BTreeSet<_> = plan.proxy.passed().collect();
    let routes = plan.egress.iter().flat_map(|egress| &egress.routes);
    let read = routes.filter(|route| !passed.contains(&route.host.to_allowed()));
    read.filter_map(|route| Some(route.inject.as_ref()?.header.as_str())).collect()
}

/// The configuration file. A key that is not listed here keeps pipelock's default.
///
/// | key | default | here | why |
/// | --- | --- | --- | --- |
/// | `mode` | `balanced` | `strict`, or `balanced` with `egress.mode: learn` | only `strict` enforces `api_allowlist`; no pattern there matches every host |
/// | `explain_blocks` | `false` | `true` | the agent may know what it would have to ask for; only a person can grant it |
/// | `max_requests_per_minute` | 60 | 6000 | it counts every connection and request to a registrable domain: `pip install` and `npm install` make hundreds |
/// | `max_tunnel_seconds` | 300 | a day | a connection is cut when it ends, in the middle of an agent's stream |
/// | `idle_timeout_seconds` | 120 | an hour | a model may think for many minutes without a byte |
/// | `tls_interception.enabled` | `false` | only with a host with `inspect: content` | without one nothing is to be decrypted, nor a host that is approved later |
/// | `passthrough_domains` | none | every host with `inspect: connection` | see [`Inspect`](bottle_plan::manifest::Inspect) |
/// | `request_body_scanning` | on, `warn` | off, unless the manifest asks for it | 2.4 s per MB with every request |
/// | `sensitive_headers` | six headers | without those that egress injects | the scan would find the injected credential |
/// | `sse_streaming.action` | `block` | `warn`, as for other answers | a model's answer that quotes an instruction would be cut |
/// | `sse_streaming.max_event_bytes` | 64 KiB | 1 MiB | a model's tool call or final event is larger, and the stream would end |
/// | `max_body_bytes` | 5 MiB | 1 MiB | 120 bodies of 5 MiB at once made a request to another host wait for 7 s |
/// | `max_response_bytes`, `max_response_mb` | 5 MiB, 10 MiB | 1 MiB | 20 answers of 5 MiB at once ended pipelock at 1 GiB of memory |
/// | `metrics_listen` | the port that the agent sees | loopback | the agent must not read them |
///
/// For each value that is weaker than the default, `tests/e2e/pipelock.rs` has a row that fails with the default. Among
/// the values at their default are: entropy thresholds, `max_url_length`, `timeout_seconds`, `exempt_domains` (none),
/// `response_scanning.action` (`warn`), `dlp` and `websocket_proxy` (off).
#[derive(Serialize)]
struct Config<'a> {
    version: u8,
    mode: &'static str,
    /// Explicit, because `false` turns every refusal into a warning.
    enforce: bool,
    explain_blocks: bool,
    api_allowlist: Vec<&'a str>,
    /// Names here would pass the SSRF guard with any address.
    trusted_domains: [&'static str; 0],
    ssrf: Ssrf,
    fetch_proxy: FetchProxy,
    forward_proxy: ForwardProxy,
    tls_interception: TlsInterception<'a>,
    request_body_scanning: RequestBodyScanning,
    response_scanning: ResponseScanning,
    logging: Logging,
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
    max_response_mb: u32,
    monitoring: Monitoring,
}

#[derive(Serialize)]
struct Monitoring {
    max_requests_per_minute: u32,
}

#[derive(Serialize)]
struct ForwardProxy {
    enabled: bool,
    max_tunnel_seconds: u32,
    idle_timeout_seconds: u32,
    sni_verification: bool,
}

#[derive(Serialize)]
struct TlsInterception<'a> {
    enabled: bool,
    ca_cert: &'a Path,
    ca_key: &'a Path,
    max_response_bytes: u32,
    passthrough_domains: Vec<&'a str>,
}

#[derive(Serialize)]
struct RequestBodyScanning {
    enabled: bool,
    action: &'static str,
    max_body_bytes: u32,
    scan_headers: bool,
    sensitive_headers: Vec<&'static str>,
}

#[derive(Serialize)]
struct ResponseScanning {
    /// Event streams are only streamed when this is on.
    enabled: bool,
    /// Action on a match. Stricter actions rewrite or refuse pages that mention prompt injection.
    action: &'static str,
    sse_streaming: SseStreaming,
}

#[derive(Serialize)]
struct SseStreaming {
    action: &'static str,
    max_event_bytes: u32,
}

#[derive(Serialize)]
struct Logging {
    format: &'static str,
    /// Output stream. `docker compose logs` shows it.
    output: &'static str,
}
