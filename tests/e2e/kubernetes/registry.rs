//! Images that are pushed to a registry and named by their digests.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::BottlePlan;
use bottle::plan::value::ImageRef;
use bottle_kube::{BuiltImages, ImageSource as _, PushedImages};
use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::{Lab, OUTSIDE, docker, engine, figure, not_run, run};
use serde_json::Value;

use super::{ROUTE, close, launched, sh};

/// Debian's package of the same name.
const PROGRAM: &str = "/usr/bin/docker-registry";

/// A registry on the loopback interface, where engine and runtime speak plain HTTP. It ends with this value.
struct Registry {
    process: Child,
    address: String,
    _files: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        if !Path::new(PROGRAM).exists() {
            not_run(&format!("needs {PROGRAM}"));
        }
        let files = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = files.path().join("config.yml");
        let data = files.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\nhttp: {{addr: '{address}'}}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { process: command.spawn().unwrap(), address, _files: files };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < until, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The images of a plan under other names and ids, which end with this value. A kubelet that has pulled an image no longer takes
/// the same one as loaded, so that other tests would have to pull it as well.
struct Own(Vec<String>);

impl Own {
    fn of(plan: &mut BottlePlan) -> Self {
        let built = BuiltImages::new(engine(), Vec::<String>::new()).provide(plan).unwrap();
        let mut own = Self(Vec::new());
        for (service, image) in &built.images {
            plan.images.ready.insert(*service, own.copy(image.as_str(), plan));
        }
        plan.images.base = own.copy(plan.images.base.as_str(), plan);
        plan.images.pipelock = own.copy(plan.images.pipelock.as_str(), plan);
        own
    }

    fn copy(&mut self, image: &str, plan: &BottlePlan) -> ImageRef {
        let name = format!("bottle-e2e/own{}:{}", self.0.len(), plan.names.slug());
        let script = format!("echo 'FROM {image}' | docker build --quiet --label own={name} --tag {name} -");
        run(Command::new("sh").args(["-c", &script])).ok();
        self.0.push(name.clone());
        name.parse().unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for name in &self.0 {
            docker(["rmi", name]);
        }
    }
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn nodes_pull_what_was_pushed_by_digest() {
    let cluster = Cluster::find();
    let registry = Registry::start();
    let lab = Lab::new("kubereg");
    let mut plan = lab.plan_on_cluster(&lab.slug, &format!("workspace: {{mode: none}}\n{ROUTE}"), "");
    let own = Own::of(&mut plan);
    let inputs = Lab::inputs_on_cluster(&plan, &[("E2E_API_KEY", "sk-REAL-registry")]);
    let images = PushedImages::new(engine(), format!("{}/agents", registry.address));
    let started = Instant::now();
    let bottles = cluster.bottles(&lab).with_images(Arc::new(images));
    let bottle = launched(bottles.launch(plan, &inputs));
    figure(format_args!("launch with a push of every image and a pull: {:.1} s", started.elapsed().as_secs_f64()));
    let pods = cluster.run(&["get", "pods", "--namespace", bottle.namespace(), "--output", "json"]);
    let pods: Value = serde_json::from_str(pods.ok()).unwrap();
    let prefix = format!("{}/agents/", registry.address);
    let mut seen = 0;
    for pod in pods["items"].as_array().unwrap() {
        for kind in ["initContainers", "containers"] {
            for container in pod["spec"][kind].as_array().unwrap() {
                let image = container["image"].as_str().unwrap();
                let digest =
                    image.strip_prefix(&prefix).and_then(|rest| rest.split_once("@sha256:")).map(|(_, hex)| hex);
                assert!(digest.is_some_and(|hex| hex.len() == 64), "{image}");
                seen += 1;
            }
        }
        // What runs is what the digest names.
        for status in pod["status"]["containerStatuses"].as_array().unwrap() {
            assert!(status["imageID"].as_str().unwrap().contains("@sha256:"), "{status}");
        }
    }
    assert!(seen >= 8, "{seen} containers");
    sh(&bottle, &format!("curl -fsS 'https://{OUTSIDE}/echo'")).ok();
    close(&cluster, &lab.slug, bottle);
    drop(own);
    for line in docker(["images", "--format", "{{.Repository}}"]).stdout.lines() {
        assert!(!line.starts_with(&prefix), "the engine keeps {line}");
    }
}
