//! The host that stands for the outside, in a container of its own; see `tests/images/outside`.

use std::sync::Mutex;

use serde_json::Value;

use super::{FORBIDDEN, OUTSIDE, Subnet, docker, run, variable};

/// Names in its certificate, under which a bottle finds it.
const NAMES: [&str; 4] = [OUTSIDE, FORBIDDEN, "api.anthropic.com", "api.openai.com"];

/// A running outside host. It is removed with this value.
pub struct Outside {
    container: String,
    network: String,
    /// Networks of bottles that it is or was connected to.
    visited: Mutex<Vec<String>>,
    _subnet: Subnet,
    /// Certificate (PEM) of the authority that signed its certificate.
    pub ca: String,
}

impl Outside {
    /// Starts it, with additional arguments of `docker run`.
    pub fn start_with(slug: &str, subnet: Subnet, arguments: &[&str]) -> Self {
        let image = variable("BOTTLE_E2E_OUTSIDE");
        let (container, network) = (format!("bottle-e2e-outside-{slug}"), format!("bottle-e2e-{slug}"));
        docker(["network", "create", "--subnet", &subnet.net().to_string(), &network]);
        let names = format!("OUTSIDE_NAMES={},localhost", NAMES.join(","));
        let mut command = vec!["run", "--detach", "--name", &container, "--network", &network, "--env", &names];
        // For a sniffer. Docker gives it by itself.
        command.push("--cap-add=NET_RAW");
        command.extend(arguments);
        command.push(&image);
        docker(command);
        let mut outside = Self { container, network, visited: Mutex::default(), _subnet: subnet, ca: String::new() };
        outside.wait();
        outside.ca = outside.read("/data/ca.crt");
        outside
    }

    fn wait(&self) {
        for _ in 0..200 {
            // Its health check. Podman may not run it by itself.
            let check = ["exec", &self.container, "test", "-e", "/data/ready"];
            if run(std::process::Command::new("docker").args(check)).code == 0 {
                return;
            }
            match docker(["inspect", "--format", "{{.State.Status}}", &self.container]).stdout.trim() {
                "exited" => break,
                _ => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
        panic!("the outside host did not start: {:?}", docker(["logs", &self.container]));
    }

    /// Returns the content of a file in its container.
    pub fn read(&self, path: &str) -> String {
        docker(["exec", &self.container, "cat", path]).stdout
    }

    /// Runs a shell script in its container as the user that owns the repositories.
    #[track_caller]
    pub fn as_git(&self, script: &str) -> String {
        docker(["exec", "--user", "git", "--workdir", "/srv/git", &self.container, "sh", "-euc", script]).stdout
    }

    /// Sets the public keys that may log in by ssh.
    pub fn authorize(&self, public_keys: &[String]) {
        let script = "printf '%s\\n' \"$@\" > /data/authorized_keys";
        let keys = public_keys.iter().map(String::as_str);
        docker(["exec", &self.container, "sh", "-euc", script, "sh"].into_iter().chain(keys));
    }

    /// Returns the network that it was started on.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Returns the container's name.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Returns every event that it has logged.
    pub fn events(&self) -> Vec<Value> {
        self.read("/data/events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Connects it to another network under its names.
    pub fn connect(&self, network: &str) {
        self.visited.lock().unwrap().push(network.to_owned());
        let aliases = NAMES.into_iter().flat_map(|name| ["--alias", name]);
        docker(["network", "connect"].into_iter().chain(aliases).chain([network, &self.container]));
    }

    pub fn disconnect(&self, network: &str) {
        docker(["network", "disconnect", "--force", network, &self.container]);
    }

    /// Returns its address in a network.
    pub fn address(&self, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        docker(["inspect", "--format", &format, &self.container]).stdout.trim().to_owned()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        run(std::process::Command::new("docker").args(["rm", "--force", "--volumes", &self.container]));
        run(std::process::Command::new("docker").args(["network", "rm", &self.network]));
        // A failed test has closed its bottle by now, but could not remove a network that this host was connected to.
        for network in self.visited.get_mut().into_iter().flatten() {
            run(std::process::Command::new("docker").args(["network", "rm", network]));
        }
    }
}
