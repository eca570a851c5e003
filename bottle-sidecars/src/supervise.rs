//! Supervise, the MCP server through which the agent proposes changes. A person decides on them.

use bottle_compose::document::{Bind, Mount, Service, Variable};
use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service, tmpfs};
use bottle_compose::{AgentAccess, Sidecar};
use bottle_plan::{BottlePlan, ResolvedPlan, Service as Name};

use crate::BuildContext;
use crate::context::embedded;

/// The port of the MCP server.
pub const PORT: u16 = 9100;

/// The build context of its image.
pub const CONTEXT: BuildContext = BuildContext {
    name: "supervise",
    files: embedded!("supervise": [
        "Dockerfile",
        "requirements.txt",
        "supervise/__init__.py",
        "supervise/__main__.py",
        "supervise/audit.py",
        "supervise/changes.py",
        "supervise/http_server.py",
        "supervise/proposals.py",
        "supervise/settings.py",
        "supervise/tools.py",
    ], programs: ["healthcheck"], shared: ["sidecar/__init__.py", "sidecar/audit_line.py", "sidecar/grammar.json", "sidecar/grammar.py"]),
};

/// Path of the queue in the container of supervise.
pub const QUEUE: &str = "/queue";
const DECISIONS: &str = "/decisions";
const CONFIG: &str = "/config";
/// Path, in the agent's container, of the bottle's current configuration.
pub const CURRENT_CONFIG_IN_AGENT: &str = "/etc/bottle/current-config";

/// The sidecar through which the agent proposes changes to a person.
#[derive(Debug, Clone, Copy, Default)]
pub struct Supervise;

impl Sidecar for Supervise {
    fn name(&self) -> &str {
        Name::Supervise.as_str()
    }

    fn applies(&self, plan: &BottlePlan) -> bool {
        plan.supervise.is_some()
    }

    fn service(&self, plan: &ResolvedPlan) -> Service {
        let (Some(supervise), Some(facts)) = (&plan.plan().supervise, &plan.launch().supervise) else {
            return Service::default();
        };
        let alias = Some(Name::Supervise.as_str().to_owned());
        let mut service = sidecar_service(plan, Name::Supervise, Image::Local(&facts.image), Reach::Internal, alias);
        service.environment = vec![
            Variable::set("SUPERVISE_BOTTLE_SLUG", plan.plan().names.slug().as_str()),
            Variable::set("SUPERVISE_QUEUE_DIR", QUEUE),
            Variable::set("SUPERVISE_PORT", PORT.to_string()),
            Variable::set("SUPERVISE_WAIT_SECONDS", supervise.wait.duration().as_secs().to_string()),
        ];
        let volumes = [
            Bind::writable(&facts.queue, QUEUE),
            Bind::read_only(&facts.decisions, DECISIONS),
            Bind::read_only(&facts.current_config, CONFIG),
        ];
        service.volumes = volumes.map(Mount::Bind).into();
        service.tmpfs = vec![tmpfs("/tmp", 64)];
        service.healthcheck = Some(health_check(plan, &["/usr/local/bin/healthcheck"]));
        service
    }

    fn agent_access(&self, plan: &ResolvedPlan) -> AgentAccess {
        let current_config = plan.launch().supervise.as_ref().map(|facts| facts.current_config.as_path());
        AgentAccess {
            ports: vec![PORT],
            no_proxy: vec![Name::Supervise.as_str().to_owned()],
            volumes: current_config.map(|path| Bind::read_only(path, CURRENT_CONFIG_IN_AGENT)).into_iter().collect(),
            ..AgentAccess::default()
        }
    }
}

/// Returns the MCP server's address, from inside the bottle.
pub fn url() -> String {
    format!("http://{}:{PORT}/mcp", Name::Supervise)
}
