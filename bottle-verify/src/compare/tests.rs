//! `described.json` is what Docker 26.1.5 with Compose 2.26.1 says of the services of [`document`], and `described-podman.json` what
//! Podman 5.4.2 says of those of [`on_podman`].

use std::collections::BTreeMap;

use bottle_compose::ComposeFile;
use bottle_compose::document::{
    Attachment, Bind, HealthCheck, Ipam, IpamConfig, Logging, Network, Service, Variable, Volume, VolumeMount,
};
use serde_json::{Value, json};

use super::*;
use crate::expected::Expected;
use crate::report::Outcome;

/// Path of the agent's container in the description, the sidecar's and the seal's.
const AGENT: &str = "/0";
const EGRESS: &str = "/1";
const SEAL: &str = "/2";
const EGRESS_NETWORK: &str = "/3";
const INTERNAL_NETWORK: &str = "/4";
const VOLUME: &str = "/5";
const IMAGE: &str = "/6";

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Returns a document with a sidecar, the seal and an agent.
fn document() -> ComposeFile {
    let labels = pairs([("bottle.slug", "demo")]);
    let service = Service {
        image: "example/sidecar:1".into(),
        command: ["sleep", "infinity"].map(String::from).to_vec(),
        cap_drop: vec!["ALL".into()],
        security_opt: vec!["no-new-privileges:true".into()],
        logging: Some(Logging { driver: "json-file".into(), options: pairs([("max-file", "3"), ("max-size", "20m")]) }),
        labels: labels.clone(),
        ..Service::default()
    };
    let mount = |target: &str, read_only| {
        let source = "egress-credentials".to_owned();
        VolumeMount { source, subpath: None, target: target.to_owned(), read_only, of_image: false }
    };
    let attached = |aliases: &[&str], address: &str| Attachment {
        aliases: aliases.iter().map(ToString::to_string).collect(),
        ipv4_address: address.parse().ok(),
    };
    let egress = Service {
        container_name: "bottle-egress-demo".into(),
        user: Some("1000:1000".into()),
        init: true,
        networks: vec![
            ("internal".into(), attached(&["egress"], "198.51.100.242")),
            ("egress".into(), Attachment::default()),
        ],
        extra_hosts: vec!["git.example.com:192.0.2.1".into()],
        environment: vec![Variable::set("MODE", "strict"), Variable::Bare("TOKEN".into())],
        volumes: vec![
            Bind::read_only("/srv/bottle/routes.yaml".as_ref(), "/etc/routes.yaml").into(),
            bottle_compose::document::Mount::Volume(mount("/run/credentials", false)),
        ],
        tmpfs: vec!["/tmp:rw,noexec,nosuid,nodev,mode=1777,size=64m".into()],
        read_only: true,
        pids_limit: Some(128),
        mem_limit: Some(256 << 20),
        memswap_limit: Some(256 << 20),
        cpus: Some("1.999".into()),
        restart: Some("on-failure:5".into()),
        healthcheck: Some(HealthCheck {
            disable: false,
            test: ["CMD", "true"].map(String::from).to_vec(),
            interval: "30s".into(),
            timeout: "5s".into(),
            retries: 3,
            start_period: "60s".into(),
            start_interval: Some("100ms".into()),
        }),
        ..service.clone()
    };
    let seal = Service {
        container_name: "bottle-seal-demo".into(),
        user: Some("0:0".into()),
        networks: vec![("internal".into(), attached(&[], "198.51.100.243"))],
        dns: vec!["127.0.0.1".into()],
        dns_search: vec![".".into()],
        volumes: vec![bottle_compose::document::Mount::Volume(mount("/run/credentials/egress", true))],
        sysctls: pairs([("net.ipv6.conf.all.disable_ipv6", "1")]),
        read_only: true,
        cap_add: vec!["NET_ADMIN".into()],
        ..service.clone()
    };
    let agent = Service {
        container_name: "bottle-demo".into(),
        runtime: Some("runsc".into()),
        user: Some("0:0".into()),
        network_mode: Some("service:seal".into()),
        environment: vec![Variable::set("HTTP_PROXY", "http://egress:9099")],
        pids_limit: Some(4096),
        mem_limit: Some(1 << 30),
        ..service
    };
    let internal = Network {
        name: "bottle-net-demo".into(),
        internal: true,
        enable_ipv6: Some(false),
        driver_opts: pairs([("com.docker.network.bridge.inhibit_ipv4", "true")]),
        ipam: Some(Ipam { config: vec![IpamConfig { subnet: "198.51.100.240/28".into() }] }),
        labels: labels.clone(),
        ..Network::default()
    };
    let outside = Network { name: "bottle-egress-net-demo".into(), labels: labels.clone(), ..Network::default() };
    let volume = Volume {
        name: "bottle-demo_egress-credentials".into(),
        driver: "local".into(),
        driver_opts: pairs([("type", "tmpfs"), ("device", "tmpfs"), ("o", "nosuid,nodev,size=4m")]),
        labels,
    };
    ComposeFile {
        name: "bottle-demo".into(),
        services: vec![("egress".into(), egress), ("seal".into(), seal), ("agent".into(), agent)],
        networks: vec![("internal".into(), internal), ("egress".into(), outside)],
        volumes: vec![("egress-credentials".into(), volume)],
        credentials: Vec::new(),
        stored: Vec::new(),
        header: Vec::new(),
    }
}

fn described() -> Value {
    serde_json::from_str(include_str!("described.json")).unwrap()
}

/// Returns the problems that the probes find in a description.
fn problems(described: &Value, document: &ComposeFile, secrets: &[&str]) -> Vec<(&'static str, String)> {
    let expected = Expected::of(document, "agent").unwrap();
    let facts = Facts::sorted(described.as_array().unwrap().clone(), &expected);
    let probes = crate::engine::probes(&facts, &expected, secrets).into_iter();
    let failed = probes.filter(|probe| probe.outcome == Outcome::Failed);
    failed.map(|probe| (probe.protection, probe.detail)).collect()
}

/// Replaces or adds a value of a description, or removes it if the new one is null.
fn changed(mut described: Value, path: &str, value: Value) -> Value {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = described.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"));
    match (parent, key.parse::<usize>()) {
        (Value::Array(items), Ok(index)) if index == items.len() => items.push(value),
        (parent, Ok(index)) => parent[index] = value,
        (parent, Err(_)) => parent[key.replace("~1", "/")] = value,
    }
    described
}

#[test]
fn what_a_real_engine_says_of_a_document_is_as_planned() {
    assert_eq!(problems(&described(), &document(), &["no-such-secret"]), []);
}

/// A path of the description, its weakened value, and the protection and a part of the message that are expected.
type Weakened = (String, Value, &'static str, &'static str);

fn host(container: &str, key: &str) -> String {
    format!("{container}/HostConfig/{key}")
}

fn config(container: &str, key: &str) -> String {
    format!("{container}/Config/{key}")
}

fn attached(container: &str, below: &str) -> String {
    format!("{container}/NetworkSettings/Networks{below}")
}

fn each_is_named(weakened: impl IntoIterator<Item = Weakened>) {
    for (path, value, protection, told) in weakened {
        // An index past the end means the end.
        let path = match path.strip_suffix("/9") {
            Some(list) => format!("{list}/{}", described().pointer(list).unwrap().as_array().unwrap().len()),
            None => path,
        };
        let problems = problems(&changed(described(), &path, value), &document(), &[]);
        let is_told = |(of, problem): &(&str, String)| *of == protection && problem.contains(told);
        assert!(problems.iter().any(is_told), "{path}: {problems:#?}");
    }
}

#[test]
fn weaker_rights_mounts_and_limits_are_found_and_named() {
    let seccomp = json!(["no-new-privileges:true", "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]);
    each_is_named([
        (host(EGRESS, "Privileged"), json!(true), CAPABILITIES, "Privileged is true"),
        (host(EGRESS, "CapAdd"), json!(["CAP_SYS_ADMIN"]), CAPABILITIES, "CapAdd is [\"SYS_ADMIN\"]"),
        (host(SEAL, "CapAdd"), json!(["NET_ADMIN", "SYS_ADMIN"]), CAPABILITIES, "planned: [\"NET_ADMIN\"]"),
        (host(AGENT, "CapDrop"), json!(null), CAPABILITIES, "CapDrop is not set"),
        (host(EGRESS, "SecurityOpt"), json!(null), CAPABILITIES, "SecurityOpt is not set"),
        (host(EGRESS, "SecurityOpt"), seccomp, CAPABILITIES, "seccomp:"),
        (host(EGRESS, "MaskedPaths"), json!([]), CAPABILITIES, "MaskedPaths is not set"),
        (host(AGENT, "ReadonlyPaths"), json!(["/proc/sys"]), CAPABILITIES, "ReadonlyPaths"),
        (host(EGRESS, "GroupAdd"), json!(["999"]), CAPABILITIES, "GroupAdd"),
        (host(AGENT, "PidMode"), json!("host"), NAMESPACES, "PidMode is \"host\""),
        (host(EGRESS, "IpcMode"), json!("host"), NAMESPACES, "IpcMode is \"host\""),
        (host(EGRESS, "UTSMode"), json!("host"), NAMESPACES, "UTSMode"),
        (host(EGRESS, "UsernsMode"), json!("host"), NAMESPACES, "UsernsMode"),
        (host(EGRESS, "CgroupnsMode"), json!("private"), NAMESPACES, "CgroupnsMode"),
        (host(EGRESS, "Devices"), json!([{"PathOnHost": "/dev/kvm"}]), NAMESPACES, "/dev/kvm"),
        (host(EGRESS, "DeviceRequests"), json!([{"Count": -1}]), NAMESPACES, "DeviceRequests"),
        (host(EGRESS, "ReadonlyRootfs"), json!(false), MOUNTS, "ReadonlyRootfs is not set"),
        (host(EGRESS, "Tmpfs"), json!({"/tmp": "rw,exec"}), MOUNTS, "Tmpfs"),
        (host(EGRESS, "Binds"), json!(["/:/host"]), MOUNTS, "Binds is [\"/:/host\"]"),
        (host(EGRESS, "VolumesFrom"), json!(["other"]), MOUNTS, "VolumesFrom"),
        (
            host(EGRESS, "Mounts/0/Source"),
            json!("/tmp/other.yaml"),
            MOUNTS,
            "planned: the bind `/srv/bottle/routes.yaml`",
        ),
        (host(EGRESS, "Mounts/0/ReadOnly"), json!(false), MOUNTS, "read-only"),
        (host(EGRESS, "Mounts/0/BindOptions"), json!({"Propagation": "shared"}), MOUNTS, "BindOptions.Propagation"),
        (
            host(EGRESS, "Mounts/1/VolumeOptions/DriverConfig"),
            json!({"Name": "local", "Options": {"device": "/"}}),
            MOUNTS,
            "VolumeOptions.DriverConfig",
        ),
        (host(EGRESS, "Mounts/1/VolumeOptions/Subpath"), json!("below"), MOUNTS, "planned: the volume"),
        (
            host(EGRESS, "Mounts/1/Source"),
            json!("other"),
            MOUNTS,
            "planned: the volume `bottle-demo_egress-credentials`",
        ),
        (host(EGRESS, "Mounts/2"), json!({"Type": "bind", "Source": "/", "Target": "/host"}), MOUNTS, "`/host`"),
        (host(EGRESS, "Mounts"), json!([]), MOUNTS, "`/etc/routes.yaml` is not mounted"),
        (format!("{EGRESS}/Mounts/0/RW"), json!(true), MOUNTS, "`/etc/routes.yaml` can be written"),
        (
            format!("{AGENT}/Mounts/1"),
            json!({"Type": "volume", "Driver": "local", "Destination": "/x", "RW": false}),
            MOUNTS,
            "`/x` is mounted",
        ),
        (host(EGRESS, "PidsLimit"), json!(null), LIMITS, "PidsLimit is not set; planned: 128"),
        (host(EGRESS, "Memory"), json!(0), LIMITS, "Memory is not set"),
        (host(AGENT, "MemorySwap"), json!(-1), LIMITS, "MemorySwap is -1"),
        (host(EGRESS, "NanoCpus"), json!(0), LIMITS, "NanoCpus is not set"),
        (host(EGRESS, "Ulimits"), json!([{"Name": "nofile"}]), LIMITS, "Ulimits"),
        (host(EGRESS, "OomKillDisable"), json!(true), LIMITS, "OomKillDisable is true"),
    ]);
}

#[test]
fn other_programs_and_networks_are_found_and_named() {
    let stranger = json!({"Name": "stranger", "IPv4Address": "198.51.100.250/28"});
    each_is_named([
        (host(AGENT, "Runtime"), json!("runc"), PROGRAMS, "Runtime is \"runc\"; planned: \"runsc\""),
        (host(EGRESS, "Runtime"), json!("other"), PROGRAMS, "Runtime is \"other\"; planned: \"runc\""),
        (host(AGENT, "RestartPolicy/Name"), json!("always"), PROGRAMS, "RestartPolicy is \"always\""),
        (format!("{EGRESS}/Image"), json!("sha256:00"), PROGRAMS, "the id of its image is `sha256:00`"),
        (config(EGRESS, "Image"), json!("example/other:1"), PROGRAMS, "its image is `example/other:1`"),
        (config(EGRESS, "User"), json!("0:0"), PROGRAMS, "User is \"0:0\"; planned: \"1000:1000\""),
        (config(EGRESS, "Cmd"), json!(["sh"]), PROGRAMS, "Cmd is not as planned"),
        (config(EGRESS, "Entrypoint"), json!(["sh"]), PROGRAMS, "Entrypoint is not as planned"),
        (config(EGRESS, "WorkingDir"), json!("/"), PROGRAMS, "WorkingDir"),
        (config(EGRESS, "Healthcheck/Test"), json!(["NONE"]), PROGRAMS, "Healthcheck is not as planned"),
        (config(EGRESS, "Env/9"), json!("LD_PRELOAD=/x.so"), PROGRAMS, "the variable `LD_PRELOAD` is not planned"),
        (config(EGRESS, "Env/9"), json!("HTTP_PROXY=http://192.0.2.1"), PROGRAMS, "`HTTP_PROXY` is not planned"),
        (config(EGRESS, "Env/9"), json!("MODE=lax"), PROGRAMS, "`MODE` has another value than planned"),
        (config(EGRESS, "Env"), json!(["MODE=strict", "LANG=C"]), PROGRAMS, "the variable `PATH` is not set"),
        (host(SEAL, "NetworkMode"), json!("host"), ATTACHMENTS, "NetworkMode is `host`"),
        (host(EGRESS, "PortBindings"), json!({"80/tcp": [{"HostPort": "80"}]}), ATTACHMENTS, "PortBindings"),
        (host(EGRESS, "PublishAllPorts"), json!(true), ATTACHMENTS, "PublishAllPorts"),
        (host(EGRESS, "ExtraHosts"), json!(["git.example.com:192.0.2.2"]), ATTACHMENTS, "ExtraHosts"),
        (host(SEAL, "Dns"), json!(null), ATTACHMENTS, "Dns is not set"),
        (host(SEAL, "Sysctls"), json!({}), ATTACHMENTS, "Sysctls is not set"),
        (attached(SEAL, "/bridge"), json!({}), ATTACHMENTS, "`bottle-seal-demo`: it is attached to"),
        (attached(AGENT, "/bridge"), json!({}), ATTACHMENTS, "`bottle-demo`: it is attached to"),
        (attached(EGRESS, ""), json!({}), ATTACHMENTS, "it is attached to {}"),
        (
            attached(EGRESS, "/bottle-net-demo/Aliases/9"),
            json!("pipelock"),
            ATTACHMENTS,
            "it answers to the name `pipelock`",
        ),
        (attached(EGRESS, "/bottle-net-demo/Aliases"), json!([]), ATTACHMENTS, "does not answer to the name `egress`"),
        (
            attached(EGRESS, "/bottle-net-demo"),
            json!({"IPAddress": "198.51.100.250", "Aliases": ["egress"]}),
            ATTACHMENTS,
            "its address is `198.51.100.250`",
        ),
        (format!("{INTERNAL_NETWORK}/Internal"), json!(false), ATTACHMENTS, "has Internal false; planned: true"),
        (format!("{EGRESS_NETWORK}/Driver"), json!("macvlan"), ATTACHMENTS, "has the driver `macvlan`"),
        (format!("{INTERNAL_NETWORK}/EnableIPv6"), json!(true), ATTACHMENTS, "EnableIPv6"),
        (format!("{INTERNAL_NETWORK}/Options"), json!({}), ATTACHMENTS, "inhibit_ipv4"),
        (
            format!("{INTERNAL_NETWORK}/IPAM/Config/0/Subnet"),
            json!("198.51.100.0/24"),
            ATTACHMENTS,
            "has the subnets [\"198.51.100.0/24\"]",
        ),
        (format!("{INTERNAL_NETWORK}/Containers/feed"), stranger, ATTACHMENTS, "has the container `stranger`"),
        (format!("{VOLUME}/Options/device"), json!("/"), VOLUMES, "bottle-demo_egress-credentials` has the options"),
        (format!("{VOLUME}/Driver"), json!("other"), VOLUMES, "has the driver `other`"),
        (host(EGRESS, "LogConfig/Type"), json!("syslog"), SETTINGS, "LogConfig"),
        (host(EGRESS, "Annotations"), json!({"a": "b"}), SETTINGS, "Annotations is {\"a\":\"b\"}"),
        (host(EGRESS, "NewInALaterEngine"), json!("on"), SETTINGS, "NewInALaterEngine is \"on\"; planned: not set"),
        (config(EGRESS, "Labels"), json!({}), SETTINGS, "the label `bottle.slug` is not as planned"),
    ]);
}

#[test]
fn other_engines_say_the_same_in_other_words() {
    let others = [
        (format!("{SEAL}/HostConfig/CapAdd"), json!(["CAP_NET_ADMIN"])),
        (format!("{EGRESS}/HostConfig/SecurityOpt"), json!(["no-new-privileges"])),
        (format!("{EGRESS}/HostConfig/OomKillDisable"), json!(null)),
        (format!("{EGRESS}/HostConfig/ExtraHosts"), json!(["git.example.com=192.0.2.1"])),
        (format!("{EGRESS}/HostConfig/Isolation"), json!("default")),
        (format!("{EGRESS}/HostConfig/RestartPolicy/MaximumRetryCount"), json!(0)),
        (format!("{EGRESS}/HostConfig/NanoCpus"), json!(1_999_000_000_u64)),
        (
            format!("{EGRESS}/HostConfig/Mounts/0/BindOptions"),
            json!({"Propagation": "rprivate", "NonRecursive": false}),
        ),
        (format!("{EGRESS}/HostConfig/NewInALaterEngine"), json!([])),
        (format!("{SEAL}/NetworkSettings/Networks/bottle-net-demo/Aliases"), json!([])),
        (format!("{EGRESS}/AppArmorProfile"), json!("docker-default")),
        (format!("{INTERNAL_NETWORK}/Options/com.docker.network.driver.mtu"), json!("1400")),
        (format!("{IMAGE}/Id"), json!("sha256:index")),
    ];
    for (path, value) in others {
        let mut described = changed(described(), &path, value);
        // With containerd's images, a container has the digest of one platform's manifest.
        if path == format!("{IMAGE}/Id") {
            described[6]["Descriptor"] = json!({"digest": described[0]["Image"]});
        }
        assert_eq!(problems(&described, &document(), &[]), [], "{path}");
    }
    // What every container has is the engine's default.
    let mut described = described();
    for container in 0..3 {
        let host = &mut described[container]["HostConfig"];
        (host["CgroupnsMode"], host["ShmSize"]) = (json!("private"), json!(1 << 20));
        let variables = described[container]["Config"]["Env"].as_array_mut().unwrap();
        variables.push(json!("no_proxy=intranet.example.com"));
    }
    assert_eq!(problems(&described, &document(), &[]), []);
}

#[test]
fn an_object_that_is_not_there_is_named() {
    for (index, told) in ["bottle-demo", "bottle-egress-demo", "bottle-seal-demo"].into_iter().enumerate() {
        let mut described = described();
        described.as_array_mut().unwrap().remove(index);
        let problems = problems(&described, &document(), &[]);
        let is_told =
            |(of, problem): &(&str, String)| *of == SETTINGS && *problem == format!("`{told}` does not exist");
        assert!(problems.iter().any(is_told), "{problems:?}");
    }
    let nothing = problems(&json!([]), &document(), &[]);
    let missing: Vec<_> = nothing.iter().map(|(protection, _)| *protection).collect();
    for protection in ["network namespace", "credentials", ATTACHMENTS, VOLUMES, SETTINGS] {
        assert!(missing.contains(&protection), "{missing:?}");
    }
}

#[test]
fn a_bottle_of_which_nothing_is_known_does_not_hold() {
    let mut unknown = Expected::of(&document(), "agent").unwrap();
    unknown.planned = Planned::default();
    let facts = Facts::sorted(Vec::new(), &unknown);
    let probes = probes(&unknown.planned, &facts, &[]);
    let failed: Vec<_> = probes.iter().filter(|probe| probe.outcome == Outcome::Failed).collect();
    assert!(failed.len() == 1 && failed[0].detail.contains("launch the bottle again"), "{failed:?}");
}

#[test]
fn no_message_shows_a_secret_or_the_value_of_a_variable() {
    let secret = "hunter2hunter2";
    for path in [
        "/HostConfig/SecurityOpt",
        "/HostConfig/Annotations",
        "/HostConfig/Mounts",
        "/Config/Cmd",
        "/Config/Env",
        "/Config/Entrypoint",
        "/Config/Healthcheck/Test",
    ] {
        let values = match path {
            "/HostConfig/Mounts" => json!([{"Type": "bind", "Target": "/etc/routes.yaml", "Source": secret}]),
            _ => json!([format!("A={secret}")]),
        };
        let problems = problems(&changed(described(), &format!("{EGRESS}{path}"), values), &document(), &[secret]);
        assert!(!problems.is_empty(), "{path}");
        assert!(problems.iter().all(|(_, problem)| !problem.contains(secret)), "{path}: {problems:?}");
    }
}

#[test]
fn an_image_keeps_its_id_when_its_reference_moves() {
    let id = described()[1]["Image"].as_str().unwrap().to_owned();
    let services = [("egress", &*id), ("seal", &*id), ("agent", &*id)];
    let expected = Expected::of(&document(), "agent").unwrap().with_image_ids(services);
    assert!(expected.planned.containers.iter().all(|container| container.image() == id));
    let read: Expected = serde_json::from_str(&serde_json::to_string(&expected).unwrap()).unwrap();
    assert_eq!(read, expected);
}

/// Compose attaches a container to a network that it did not create by the network's id.
#[test]
fn an_external_network_is_known_by_its_id() {
    let id = described().pointer(&format!("{INTERNAL_NETWORK}/Id")).unwrap().clone();
    let by_id = changed(described(), &format!("{SEAL}/HostConfig/NetworkMode"), id);
    assert_eq!(problems(&by_id, &document(), &[]), []);
}

/// Returns the document as for Podman.
fn on_podman() -> ComposeFile {
    let mut document = document();
    document.services[2].1.runtime = None;
    document.networks[0].1.driver_opts.clear();
    document.networks[1].1.driver_opts = pairs([("isolate", "strict")]);
    document
}

#[test]
fn what_podman_says_of_a_document_is_as_planned_and_each_weakness_is_named() {
    let described: Value = serde_json::from_str(include_str!("described-podman.json")).unwrap();
    let problems = |described: &Value| -> Vec<(&'static str, String)> {
        let document = on_podman();
        let expected = Expected::of(&document, "agent").unwrap().with_podman(&document);
        let objects = described.as_array().unwrap().iter().cloned().map(podman::in_docker_form);
        let probes =
            crate::engine::probes(&Facts::sorted(objects.collect(), &expected), &expected, &["no-such-secret"]);
        let failed = probes.into_iter().filter(|probe| probe.outcome == Outcome::Failed);
        failed.map(|probe| (probe.protection, probe.detail)).collect()
    };
    assert_eq!(problems(&described), []);
    let command = |container: &str, word: usize| format!("{container}/Config/CreateCommand/{word}");
    for (path, value, protection, told) in [
        (format!("{SEAL}/BoundingCaps"), json!(["CAP_NET_ADMIN", "CAP_NET_RAW"]), CAPABILITIES, "NET_RAW"),
        (host(EGRESS, "Privileged"), json!(true), CAPABILITIES, "Privileged is true"),
        (host(EGRESS, "SecurityOpt"), json!(["no-new-privileges", "seccomp=unconfined"]), CAPABILITIES, "unconfined"),
        (host(AGENT, "PidMode"), json!("host"), NAMESPACES, "PidMode is \"host\""),
        (host(AGENT, "UTSMode"), json!("host"), NAMESPACES, "UTSMode"),
        (host(AGENT, "CgroupMode"), json!("private"), NAMESPACES, "CgroupnsMode"),
        (host(AGENT, "Devices"), json!([{"PathOnHost": "/dev/kvm"}]), NAMESPACES, "/dev/kvm"),
        (host(EGRESS, "ReadonlyRootfs"), json!(false), MOUNTS, "ReadonlyRootfs is not set"),
        (host(EGRESS, "Tmpfs"), json!({"/tmp": "rw", "/run": "rw"}), MOUNTS, "Tmpfs"),
        (format!("{EGRESS}/Mounts/1/RW"), json!(true), MOUNTS, "can be written"),
        (format!("{EGRESS}/Mounts/1/Source"), json!("/etc/passwd"), MOUNTS, "planned: the "),
        (format!("{EGRESS}/Mounts/1/Propagation"), json!("shared"), MOUNTS, "Propagation"),
        (format!("{AGENT}/Mounts/0"), json!({"Type": "bind", "Source": "/", "Destination": "/h"}), MOUNTS, "`/h`"),
        (host(AGENT, "PidsLimit"), json!(0), LIMITS, "PidsLimit"),
        (host(AGENT, "Memory"), json!(0), LIMITS, "Memory is not set"),
        (host(EGRESS, "NanoCpus"), json!(0), LIMITS, "NanoCpus"),
        (format!("{AGENT}/OCIRuntime"), json!("krun"), PROGRAMS, "Runtime is"),
        (config(EGRESS, "User"), json!("0:0"), PROGRAMS, "User is"),
        (config(EGRESS, "Env/0"), json!("LD_PRELOAD=/x.so"), PROGRAMS, "`LD_PRELOAD` is not planned"),
        (format!("{EGRESS}/ImageName"), json!("other"), "", ""),
        (config(EGRESS, "Image"), json!("docker.io/example/other:1"), PROGRAMS, "its image is `example/other:1`"),
        (host(AGENT, "NetworkMode"), json!("host"), "network namespace", "is `host`"),
        (format!("{SEAL}/NetworkSettings/Networks/podman"), json!({}), ATTACHMENTS, "it is attached to"),
        (format!("{INTERNAL_NETWORK}/dns_enabled"), json!(true), ATTACHMENTS, "an address of the host"),
        (
            format!("{INTERNAL_NETWORK}/subnets/0/gateway"),
            json!("198.51.100.241"),
            ATTACHMENTS,
            "an address of the host",
        ),
        (format!("{INTERNAL_NETWORK}/routes"), json!([{"destination": "0.0.0.0/0"}]), ATTACHMENTS, "a route"),
        (format!("{INTERNAL_NETWORK}/internal"), json!(false), ATTACHMENTS, "Internal false"),
        (format!("{EGRESS_NETWORK}/options"), json!({}), ATTACHMENTS, "isolate"),
        (format!("{INTERNAL_NETWORK}/containers/feed"), json!({"name": "stranger"}), ATTACHMENTS, "`stranger`"),
        (format!("{VOLUME}/Options/type"), json!("none"), VOLUMES, "has the options"),
        (command(SEAL, 5), json!("--sysctl=net.ipv4.ip_forward=1"), SETTINGS, "net.ipv4.ip_forward"),
        (command(AGENT, 2), json!("--name=other"), SETTINGS, "--name=other"),
    ] {
        let problems = problems(&changed(described.clone(), &path, value));
        let is_told = |(of, problem): &(&str, String)| *of == protection && problem.contains(told);
        assert!(problems.iter().any(is_told) || told.is_empty() && problems.is_empty(), "{path}: {problems:#?}");
    }
}
