//! A Kubernetes cluster for end-to-end tests, which `cargo xtask e2e --kubernetes` has started.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use bottle::exec::{Backend, Subprocess};
use bottle::plan::{PlanRequest, Prefix};
use bottle::{BottlePlan, Host, Manifest};
use bottle_kube::{BuiltImages, KubeBottles, KubeInputs, KubeOptions, Kubectl};

use super::run::{Finished, run, variable};
use super::{Lab, OUTSIDE, engine, host, not_run, pipelock_image};

/// A cluster. Its images are loaded once for all tests.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub kubectl: Kubectl,
    program: String,
    kubeconfig: String,
    testbed: String,
}

impl Cluster {
    /// Returns the cluster. Without one, the test counts as not run.
    #[track_caller]
    pub fn find() -> Self {
        let testbed = variable("BOTTLE_E2E_CLUSTER");
        if testbed.is_empty() {
            not_run("needs a Kubernetes cluster (`cargo xtask e2e --kubernetes`)");
        }
        let (program, kubeconfig) = (variable("BOTTLE_E2E_KUBECTL"), variable("BOTTLE_E2E_KUBECONFIG"));
        let backend = Arc::new(Subprocess::new(Host::current().unwrap().environment()));
        let kubectl = Kubectl::new(backend).with_program(&program).with_kubeconfig(&kubeconfig);
        Self { kubectl, program, kubeconfig, testbed }
    }

    /// Sets what runs the library's commands of `kubectl`.
    #[must_use]
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.kubectl = Kubectl::new(backend).with_program(&self.program).with_kubeconfig(&self.kubeconfig);
        self
    }

    /// Returns bottles on the cluster whose sidecars reach the lab's outside host.
    pub fn bottles(&self, lab: &Lab) -> KubeBottles {
        self.bottles_with(lab, [OUTSIDE])
    }

    /// Like [`bottles`](Self::bottles), with these names of the outside host.
    pub fn bottles_with<const N: usize>(&self, lab: &Lab, names: [&str; N]) -> KubeBottles {
        static IMAGES: OnceLock<Arc<BuiltImages>> = OnceLock::new();
        let images = IMAGES.get_or_init(|| Arc::new(BuiltImages::new(engine(), [self.testbed.as_str(), "load"])));
        let options = KubeOptions {
            hosts: names.map(|name| (name.parse().unwrap(), lab.link())).into(),
            ..KubeOptions::default()
        };
        KubeBottles::new(self.kubectl.clone(), Arc::clone(images) as Arc<_>).with_options(options)
    }

    /// Runs `kubectl` directly, for what the library does not offer.
    pub fn run(&self, args: &[&str]) -> Finished {
        run(&mut self.command(args))
    }

    /// Returns a command of `kubectl` that has not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command
    }

    /// Asks the test bed for something that only it can do. `None` if it cannot.
    pub fn ask(&self, args: &[&str]) -> Option<()> {
        (run(Command::new(&self.testbed).args(args)).code == 0).then_some(())
    }

    /// Returns the names of all namespaces with this slug.
    pub fn namespaces(&self, slug: &str) -> String {
        let label = format!("claude-bottle.slug={slug}");
        self.run(&["get", "namespaces", "--selector", &label, "--output", "name"]).ok().to_owned()
    }
}

impl Lab {
    /// Returns a plan for a cluster, with a small agent's image. `bottle` and `agent` are additional lines of each.
    pub fn plan_on_cluster(&self, slug: &str, bottle: &str, agent: &str) -> BottlePlan {
        let indented = |text: &str| text.lines().flat_map(|line| ["    ", line, "\n"]).collect::<String>();
        let ca = self.root.path().join("outside-ca.pem");
        std::fs::write(&ca, &self.outside.ca).unwrap();
        let manifest = format!(
            "bottles:\n  lab:\n    tls: {{upstream_ca: {}}}\n    images: {{pipelock: {}}}\n{}agents:\n  tester:\n    bottle: lab\n    \
             command: [sh, -c, id]\n{}",
            ca.display(),
            pipelock_image(),
            indented(bottle),
            indented(agent),
        );
        let host = host();
        let request = PlanRequest {
            agent: None,
            slug: Some(slug.parse().unwrap()),
            prefix: Prefix::default(),
            manifest_dir: Some(self.root.path()),
            host: &host.facts,
            random: [0; 5],
        };
        Manifest::parse(&manifest).unwrap().plan(request).unwrap()
    }

    /// Returns the inputs of a plan, with these values of variables.
    pub fn inputs_on_cluster(plan: &BottlePlan, variables: &[(&str, &str)]) -> KubeInputs {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        KubeInputs::read(plan, value).unwrap()
    }

    /// Connects the outside host to this host by a cable of its own and returns its address there. Pods reach it by way of
    /// this host. The cable ends with the outside host.
    pub fn link(&self) -> IpAddr {
        let mut addresses = self.egress_subnet.net().hosts();
        let (ours, theirs): (Ipv4Addr, Ipv4Addr) = (addresses.next().unwrap(), addresses.next().unwrap());
        let format = "{{.State.Pid}}";
        let pid = super::docker(["inspect", "--format", format, self.outside.container()]).ok().to_owned();
        let (outer, inner) = (format!("e2e{pid}"), "cable0");
        let ip = |args: &[&str]| run(Command::new("ip").args(args));
        if ip(&["link", "show", &outer]).code == 0 {
            return theirs.into();
        }
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", &pid]).ok();
        ip(&["addr", "add", &format!("{ours}/30"), "dev", &outer]).ok();
        ip(&["link", "set", &outer, "up"]).ok();
        let inside = |args: &[&str]| run(Command::new("nsenter").args(["--target", &pid, "--net", "ip"]).args(args));
        inside(&["addr", "add", &format!("{theirs}/30"), "dev", inner]).ok();
        inside(&["link", "set", inner, "up"]).ok();
        theirs.into()
    }
}
