//! Properties of the document of every plan.

use std::collections::{BTreeMap, BTreeSet};

use bottle_compose::document::{Bind, Mount, Service, Variable};
use bottle_compose::{ComposeFile, Sidecar, render};
use bottle_plan::manifest::{SecretsMode, WorkspaceMode};
use bottle_plan::value::AllowedHost;
use bottle_plan::{Manifest, ResolvedPlan};
use bottle_posture::Posture;
use bottle_sidecars::{egress, git_gate, pipelock};
use proptest::prelude::*;
use serde_yaml::Value;

fn document(plan: &ResolvedPlan) -> ComposeFile {
    let sidecars = bottle_sidecars::all();
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    render(plan, &sidecars).expect("the built-in sidecars fit each other")
}

/// Returns the value as Compose reads it, with `$$` as `$`. A single `$` is an error.
fn interpolated(value: Value) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => {
            let halved = text.replace("$$", "\0");
            if halved.contains('$') {
                return Err(format!("Compose would interpolate {text:?}"));
            }
            Value::String(halved.replace('\0', "$"))
        }
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(interpolated).collect::<Result<_, _>>()?),
        Value::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .map(|(key, value)| interpolated(value).map(|value| (key, value)))
                .collect::<Result<_, _>>()?,
        ),
        other => other,
    })
}

fn depends_on(document: &ComposeFile) -> BTreeMap<&str, Vec<&str>> {
    let names =
        |service: &'_ Service| -> Vec<String> { service.depends_on.iter().map(|(name, _)| name.clone()).collect() };
    let find = |name: &str| document.services.iter().find(|(known, _)| known == name).map(|(known, _)| known.as_str());
    let edges = document.services.iter().map(|(name, service)| {
        (name.as_str(), names(service).iter().map(|other| find(other).expect("it is a service")).collect())
    });
    edges.collect()
}

/// Repeatedly removes services whose dependencies are all removed. Returns true if none is left.
fn is_acyclic(mut edges: BTreeMap<&str, Vec<&str>>) -> bool {
    while !edges.is_empty() {
        let free: BTreeSet<&str> =
            edges.iter().filter(|(_, others)| others.is_empty()).map(|(name, _)| *name).collect();
        if free.is_empty() {
            return false;
        }
        edges.retain(|name, _| !free.contains(name));
        for others in edges.values_mut() {
            others.retain(|other| !free.contains(other));
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_plan_gives_the_same_bytes(plan in bottle_testing::random::resolved_plan()) {
        prop_assert_eq!(document(&plan).to_yaml(), document(&plan.clone()).to_yaml());
    }

    #[test]
    fn the_yaml_reads_back_as_the_document(plan in bottle_testing::random::resolved_plan()) {
        let document = document(&plan);
        let read: Value = serde_yaml::from_str(&document.to_yaml()).unwrap();
        let read = interpolated(read).map_err(TestCaseError::fail)?;
        prop_assert_eq!(read, serde_yaml::to_value(&document).unwrap());
    }

    #[test]
    fn every_name_leads_somewhere_and_nothing_waits_for_itself(plan in bottle_testing::random::resolved_plan()) {
        let document = document(&plan);
        let networks: Vec<_> = document.networks.iter().map(|(name, _)| name.as_str()).collect();
        for (name, service) in &document.services {
            for (network, _) in &service.networks {
                prop_assert!(networks.contains(&network.as_str()), "{} is on {}", name, network);
            }
            prop_assert!(service.container_name.len() <= 63);
        }
        prop_assert!(is_acyclic(depends_on(&document)));
        let containers: BTreeSet<_> = document.services.iter().map(|(_, service)| &service.container_name).collect();
        prop_assert_eq!(containers.len(), document.services.len());
    }

    #[test]
    fn only_three_sidecars_are_on_the_egress_network_and_agent_and_pipelock_join_an_owners(plan in bottle_testing::random::resolved_plan()) {
        let document = document(&plan);
        for (name, service) in &document.services {
            let on = |network: &str| service.networks.iter().any(|(known, _)| known == network);
            let has_egress = ["outlet", "egress", "git-gate"].contains(&name.as_str());
            let joined = match name.as_str() {
                "agent" => Some("service:seal"),
                "pipelock" => Some("service:outlet"),
                _ => None,
            };
            prop_assert_eq!(on("internal"), joined.is_none(), "{}", name);
            prop_assert_eq!(on("egress"), has_egress, "{}", name);
            prop_assert_eq!(service.network_mode.as_deref(), joined);
            let owns = matches!(name.as_str(), "seal" | "outlet");
            prop_assert_eq!(&service.cap_add, if owns { &["NET_ADMIN"][..] } else { &[] }, "{}", name);
            prop_assert_eq!(&service.cap_drop, &["ALL"]);
            prop_assert_eq!(&service.security_opt, &["no-new-privileges:true"]);
            prop_assert!(service.pids_limit.is_some());
            if name != "agent" {
                prop_assert!(service.read_only && service.mem_limit.is_some() && service.healthcheck.is_some());
            }
        }
        for (name, network) in &document.networks {
            prop_assert!(network.internal || network.external || name == "egress");
        }
    }

    #[test]
    fn only_the_queue_and_a_workspace_on_request_can_be_written(plan in bottle_testing::random::resolved_plan()) {
        let document = document(&plan);
        for (name, service) in &document.services {
            let found = service.volumes.iter().filter_map(|mount| match mount {
                Mount::Bind(Bind { target, read_only: false, .. }) => Some(target.as_str()),
                Mount::Bind(_) | Mount::Volume(_) => None,
            });
            let found: Vec<_> = found.collect();
            let target = plan.plan().workspace.target.as_str();
            let expected = match name.as_str() {
                "supervise" => vec!["/queue"],
                "agent" if plan.plan().workspace.mode == WorkspaceMode::BindRw => vec![target],
                _ => vec![],
            };
            prop_assert_eq!(found, expected, "{}", name);
        }
    }

    #[test]
    fn credentials_are_in_the_environment_on_request_alone(plan in bottle_testing::random::resolved_plan()) {
        let document = document(&plan);
        let bottle = plan.plan();
        let memory = bottle.secrets == SecretsMode::Memory;
        let mut volumes = Vec::new();
        for sidecar in bottle_sidecars::all() {
            let slots: Vec<String> = sidecar.credentials(bottle).iter().map(ToString::to_string).collect();
            for (name, service) in &document.services {
                let bare = |slot: &String| service.environment.contains(&Variable::Bare(slot.clone()));
                let own = name == sidecar.name() && !memory;
                prop_assert!(slots.iter().all(|slot| bare(slot) == own), "{}: {:?}", name, service.environment);
            }
            if memory && !slots.is_empty() {
                volumes.push(format!("{}-credentials", sidecar.name()));
            }
            if sidecar.keeps_data(bottle) {
                volumes.push(format!("{}-data", sidecar.name()));
            }
        }
        prop_assert_eq!(document.volumes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), volumes);
        for (volume, options) in &document.volumes {
            let on_disk = volume.strip_suffix("-data");
            prop_assert_eq!(options.driver_opts.get("type").map_or("", String::as_str), if on_disk.is_some() { "" } else { "tmpfs" });
            let mounted = document.services.iter().flat_map(|(name, service)| {
                service.volumes.iter().filter_map(move |mount| match mount {
                    Mount::Volume(mount) if mount.source == *volume => Some((name.as_str(), mount.read_only)),
                    Mount::Volume(_) | Mount::Bind(_) => None,
                })
            });
            let owner = volume.trim_end_matches("-credentials");
            let mounts = on_disk.map_or_else(|| vec![(owner, false), ("seal", true)], |owner| vec![(owner, false)]);
            prop_assert_eq!(mounted.collect::<Vec<_>>(), mounts);
        }
    }

    #[test]
    fn what_is_secret_is_in_no_file(plan in bottle_testing::random::resolved_plan()) {
        let bottle = plan.plan();
        let mut files = vec![document(&plan).to_yaml(), pipelock::config(bottle, plan.launch().networks.internal_cidr)];
        files.push(egress::routes(bottle));
        files.extend(bottle.git_gate.as_ref().map(git_gate::upstreams));
        files.extend(bottle.git_gate.as_ref().map(git_gate::known_hosts));
        let posture = Posture::of(bottle);
        files.push(posture.to_string());
        files.push(serde_json::to_string(&posture).unwrap());
        for file in files {
            prop_assert!(!file.contains(bottle_testing::random::MARKER), "{}", file);
        }
    }

    #[test]
    fn every_bare_name_and_every_slot_has_a_source(plan in bottle_testing::random::resolved_plan()) {
        let bottle = plan.plan();
        let wanted = bottle.wanted_variables();
        let mut sources: BTreeSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        sources.extend(bottle.agent.placeholders.keys().map(AsRef::<str>::as_ref));
        let document = document(&plan);
        let mut used: BTreeSet<String> = document.credentials.iter().flat_map(|(_, slots)| slots).map(ToString::to_string).collect();
        prop_assert!(used.iter().all(|slot| sources.contains(slot.as_str())), "{:?}", used);
        for (name, service) in &document.services {
            let mut seen = BTreeSet::new();
            for variable in &service.environment {
                prop_assert!(seen.insert(variable.name().to_owned()), "{} sets {} twice", name, variable.name());
                if let Variable::Bare(bare) = variable {
                    prop_assert!(sources.contains(bare.as_str()), "{} of {} has no source", bare, name);
                    prop_assert!(used.insert(bare.clone()), "{} is used twice", bare);
                }
            }
        }
        let unused: Vec<_> = sources.iter().filter(|source| !used.contains(**source)).collect();
        prop_assert!(unused.is_empty(), "nothing takes {:?}", unused);
    }

    #[test]
    fn the_sidecars_files_read_back(plan in bottle_testing::random::resolved_plan()) {
        let bottle = plan.plan();
        let config: Value = serde_yaml::from_str(&pipelock::config(bottle, None)).unwrap();
        let allowed = config["api_allowlist"].as_sequence().map(Vec::len);
        // Pipelock refuses an empty list, so a bottle without allowed hosts names a reserved host.
        prop_assert_eq!(allowed, Some(bottle.proxy.allow.len().max(1)));
        // Every passthrough domain is allowed, and no host with `inspect: content` is a passthrough domain.
        for passed in config["tls_interception"]["passthrough_domains"].as_sequence().unwrap() {
            let passed: AllowedHost = passed.as_str().unwrap().parse().unwrap();
            prop_assert!(bottle.proxy.allow.iter().any(|allowed| allowed.covers(&passed)));
            for content in &bottle.proxy.content {
                prop_assert!(!passed.covers(content), "{} is passed as {}", content, passed);
            }
        }
        if let Some(plan) = &bottle.egress {
            let routes: Value = serde_yaml::from_str(&egress::routes(bottle)).unwrap();
            for (route, read) in plan.routes.iter().zip(routes["routes"].as_sequence().unwrap()) {
                prop_assert_eq!(read["host"].as_str(), Some(route.host.as_str()));
                let paths: Vec<_> = route.paths.iter().map(|path| Value::from(path.as_str())).collect();
                prop_assert_eq!(read.get("paths").map_or(Vec::new(), |paths| paths.as_sequence().unwrap().clone()), paths);
            }
        }
        if let Some(plan) = &bottle.git_gate {
            let read: serde_json::Value = serde_json::from_str(&git_gate::upstreams(plan)).unwrap();
            prop_assert_eq!(read["upstreams"].as_array().map(Vec::len), Some(plan.upstreams.len()));
        }
    }

    #[test]
    fn a_reload_changes_nothing_but_the_allowlist(
        launched in bottle_testing::random::resolved_plan(),
        next in bottle_testing::random::resolved_plan(),
    ) {
        let read = |text: String| -> Value { serde_yaml::from_str(&text).unwrap() };
        let (launched, next) = (launched.plan(), next.plan());
        let mut reloaded = read(pipelock::live_config(launched, next, None));
        prop_assert_eq!(&reloaded["api_allowlist"], &read(pipelock::config(next, None))["api_allowlist"]);
        let before = read(pipelock::config(launched, None));
        reloaded["api_allowlist"] = before["api_allowlist"].clone();
        prop_assert_eq!(reloaded, before);
    }

    #[test]
    fn a_manifest_and_a_plan_survive_being_written(manifest in bottle_testing::random::manifest()) {
        // Not `serde_yaml`: it writes YAML 1.1, in which U+2028 is a line break.
        let written = bottle_compose::to_plain_yaml(&manifest, &[]);
        let read = Manifest::parse(&written).map_err(|error| TestCaseError::fail(format!("{error}\n{written}")))?;
        prop_assert_eq!(&read, &manifest);
        let plan = bottle_testing::plans::plan(&manifest);
        let written = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<bottle_plan::BottlePlan>(&written).unwrap(), plan);
    }

    #[test]
    fn postures_of_one_plan_do_not_differ(one in bottle_testing::random::manifest(), other in bottle_testing::random::manifest()) {
        let (one, other) = (Posture::of(&bottle_testing::plans::plan(&one)), Posture::of(&bottle_testing::plans::plan(&other)));
        prop_assert!(one.diff(&one).changes.is_empty());
        prop_assert_eq!(one.diff(&other).changes.is_empty(), other.diff(&one).changes.is_empty());
        prop_assert_eq!(one.to_string().matches('\u{1b}').count(), 0);
    }
}
