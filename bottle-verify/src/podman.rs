//! Podman's descriptions in the form of Docker's, which the rest of this crate reads.
//!
//! Podman does not tell all that Docker tells, such as kernel parameters and log options. Of a container it has the arguments that
//! it was created with, and they are compared as a whole.

use bottle_engine::familiar;
use serde_json::{Map, Value, json};

use crate::value::{keys, list, text};

/// Settings of a container that are only in the arguments that it was created with.
pub(crate) const IN_COMMAND: [&str; 4] = ["ExtraHosts", "LogConfig", "StorageOpt", "Sysctls"];

/// Variables that Podman adds to every container whose image does not have them.
pub(crate) const VARIABLES: [&str; 4] = ["container", "HOME", "HOSTNAME", "PATH"];

/// Settings of the host configuration that Podman derives from others, or that are compared elsewhere.
const DERIVED: [&str; 6] = ["Annotations", "Binds", "CgroupManager", "CpuPeriod", "CpuQuota", "HostsFile"];

/// Settings of the container that Docker tells as well.
const OF_CONTAINER: [&str; 11] =
    ["Cmd", "Entrypoint", "Env", "Healthcheck", "Hostname", "Image", "Labels", "OpenStdin", "StdinOnce", "Tty", "User"];

/// Returns true for a description of a container that Podman wrote.
pub(crate) fn is_podman(container: &Value) -> bool {
    container.get("OCIRuntime").is_some()
}

/// Returns a description of an object in Docker's form.
pub(crate) fn in_docker_form(mut value: Value) -> Value {
    if is_podman(&value) {
        container(&mut value);
    } else if value.get("dns_enabled").is_some() {
        value = network(&value);
    } else if value.get("Mountpoint").is_some() {
        // Podman adds what it read from the options.
        if let Some(options) = value["Options"].as_object_mut() {
            options.retain(|key, _| key.chars().any(char::is_lowercase));
        }
    } else if value.get("RootFS").is_some() {
        let check = value.get("HealthCheck").or(value.get("Healthcheck")).cloned().unwrap_or_default();
        value["Config"]["Healthcheck"] = check;
        without_root(&mut value["Config"]["WorkingDir"]);
    }
    value
}

fn container(value: &mut Value) {
    let joins = text(&value["HostConfig"]["NetworkMode"]).starts_with("container:");
    if joins {
        // Those of the container whose namespace it joined.
        value["NetworkSettings"]["Networks"] = json!({});
    }
    let requested: Vec<Value> = list(&value["Mounts"]).filter(|mount| !is_of_image(mount)).map(requested).collect();
    let network = keys(&value["NetworkSettings"]["Networks"]).next().map(ToOwned::to_owned);
    let (runtime, bounding) = (value["OCIRuntime"].clone(), value["BoundingCaps"].clone());
    if let Some(host) = value["HostConfig"].as_object_mut() {
        host.retain(|key, _| !DERIVED.contains(&key.as_str()) && !IN_COMMAND.contains(&key.as_str()));
        for (key, usual) in [("PidMode", "private"), ("UTSMode", "private"), ("Cgroups", "default")] {
            if host.get(key).is_some_and(|mode| mode == usual) {
                host.remove(key);
            }
        }
        if host.get("MemorySwappiness").is_some_and(|is| is == -1) {
            host.remove("MemorySwappiness");
        }
        let cgroup = host.remove("CgroupMode").unwrap_or_default();
        host.insert("CgroupnsMode".into(), cgroup);
        // All that it may ever have: the set of what was dropped depends on Podman's own default.
        host.insert("CapAdd".into(), bounding);
        host.insert("CapDrop".into(), json!(["ALL"]));
        host.insert("Runtime".into(), runtime);
        host.insert("Mounts".into(), requested.into());
        // Those of Podman's own process.
        let inherited = |limit: &Value| matches!(text(&limit["Name"]), "RLIMIT_NOFILE" | "RLIMIT_NPROC");
        let limits: Vec<Value> =
            list(host.get("Ulimits").unwrap_or(&Value::Null)).filter(|limit| !inherited(limit)).cloned().collect();
        host.insert("Ulimits".into(), limits.into());
        if let Some(network) = network.filter(|_| host.get("NetworkMode").is_some_and(|mode| mode == "bridge")) {
            host.insert("NetworkMode".into(), network.into());
        }
    }
    value["CreateCommand"] = value["Config"]["CreateCommand"].clone();
    let mut workdir = value["Config"]["WorkingDir"].clone();
    without_root(&mut workdir);
    if let Some(config) = value["Config"].as_object_mut() {
        config.retain(|key, _| OF_CONTAINER.contains(&key.as_str()));
        config.insert("WorkingDir".into(), workdir);
    }
    let image = familiar(text(&value["Config"]["Image"])).to_owned();
    value["Config"]["Image"] = image.into();
}

/// Returns true for a volume that Podman made for a `VOLUME` of the image. Its name is a number.
fn is_of_image(mount: &Value) -> bool {
    let name = text(&mount["Name"]);
    mount["Type"] == "volume" && name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit())
}

/// Returns a mount as Docker tells what was asked for.
fn requested(mount: &Value) -> Value {
    let is_volume = mount["Type"] == "volume";
    let source = if is_volume { &mount["Name"] } else { &mount["Source"] };
    let propagation = json!({"Propagation": mount["Propagation"]});
    let mut requested = json!({
        "Type": mount["Type"], "Source": source, "Target": mount["Destination"], "ReadOnly": mount["RW"] == false,
    });
    if is_volume {
        requested["VolumeOptions"] = json!({"Subpath": mount["SubPath"]});
    } else {
        requested["BindOptions"] = propagation;
    }
    requested
}

fn network(value: &Value) -> Value {
    let address = |container: &Value| {
        let interfaces = container["interfaces"].as_object().into_iter().flatten();
        let address = interfaces.flat_map(|(_, interface)| list(&interface["subnets"])).next();
        address.map(|subnet| subnet["ipnet"].clone()).unwrap_or_default()
    };
    let containers = value["containers"].as_object().into_iter().flatten();
    let containers: Map<String, Value> = containers
        .map(|(id, container)| (id.clone(), json!({"Name": container["name"], "IPv4Address": address(container)})))
        .collect();
    let subnets: Vec<Value> = list(&value["subnets"]).map(|subnet| json!({"Subnet": subnet["subnet"]})).collect();
    let has_gateway = list(&value["subnets"]).any(|subnet| !text(&subnet["gateway"]).is_empty());
    json!({
        "Name": value["name"], "Id": value["id"], "Driver": value["driver"], "Internal": value["internal"],
        "EnableIPv6": value["ipv6_enabled"], "Options": value["options"], "Labels": value["labels"],
        "IPAM": {"Config": subnets}, "Containers": containers,
        "HostAddress": value["dns_enabled"] != false || has_gateway || list(&value["routes"]).next().is_some(),
    })
}

/// Replaces the root directory by nothing, which means the same.
fn without_root(directory: &mut Value) {
    if *directory == "/" {
        *directory = "".into();
    }
}
