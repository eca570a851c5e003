//! Checks that run before anything is created.

use bottle_engine::{Capability, EngineInfo, ObjectKind};
use bottle_exec::Event;
use bottle_plan::manifest::Runtime;
use bottle_plan::resolved::{EngineFacts, HostGateway};
use bottle_plan::{BottlePlan, Service};

use super::context::Ready;
#[cfg(not(feature = "deploy-keys"))]
use super::deploy_keys;
use crate::Bottles;
use crate::inputs::Inputs;
use crate::launch_error::LaunchCause;

pub(super) fn check(plan: &BottlePlan, bottles: &Bottles) -> Result<Ready, LaunchCause> {
    #[cfg(not(feature = "deploy-keys"))]
    deploy_keys::refuse(plan)?;
    let engine = check_engine(plan, bottles)?;
    let (mut inputs, mut mistakes) = Inputs::read(plan, &bottles.host);
    mistakes.extend(inputs.ask_sources(plan, &bottles.host));
    if !bottles.engine.info().capabilities().local_files {
        mistakes.extend(bottle_compose::unstorable(plan));
    }
    if bottles.engine.is_podman() {
        mistakes.extend(bottle_compose::podman::unsupported(plan));
    }
    mistakes.extend(check_images(plan, bottles)?);
    if !mistakes.is_empty() {
        return Err(plan.error_at(mistakes).into());
    }
    for message in &inputs.warnings {
        bottles.observer.event(&Event::Warning { message: message.clone() });
    }
    Ok(Ready { engine, inputs })
}

/// Returns an error for a protection that the engine does not support. It is never dropped silently.
fn check_engine(plan: &BottlePlan, bottles: &Bottles) -> Result<EngineFacts, LaunchCause> {
    let engine = &bottles.engine;
    engine.require(&Capability::ComposeWait)?;
    engine.require(&Capability::Files)?;
    engine.require(&Capability::SealedResolver)?;
    if let Some(message) = engine.info().clock_warning() {
        bottles.observer.event(&Event::Warning { message });
    }
    if plan.agent.runtime == Runtime::Runsc {
        engine.require(&Capability::Runtime("runsc".into()))?;
        engine.require(&Capability::KernelNetwork("runsc".into()))?;
    }
    let capabilities = engine.info().capabilities();
    let host_gateway = if capabilities.no_name_server {
        HostGateway::NoNameServer
    } else if capabilities.gateway_mode_isolated {
        HostGateway::Isolated
    } else {
        engine.require(&Capability::InhibitIpv4)?;
        HostGateway::InhibitIpv4
    };
    let (start_interval, disk_quota) = (capabilities.start_interval, capabilities.disk_quota);
    let EngineInfo { memory, processors, .. } = *engine.info();
    Ok(EngineFacts { host_gateway, start_interval, memory, processors, disk_quota })
}

/// Checks each image that is named by a digest against the image that the engine has. One that it does not have is pulled
/// by its digest, which the engine checks itself.
fn check_images(plan: &BottlePlan, bottles: &Bottles) -> Result<Vec<(String, String)>, LaunchCause> {
    let mut mistakes = Vec::new();
    let images = &plan.images;
    let ready = images.ready.iter().map(|(service, image)| {
        let key = if *service == Service::GitGate { "git_gate" } else { service.as_str() };
        (key, image)
    });
    for (name, image) in [("base", &images.base), ("pipelock", &images.pipelock)].into_iter().chain(ready) {
        let Some((tag, digest)) = image.as_str().split_once('@') else { continue };
        // An engine without the digest may have the tag with other content.
        let inspect = |name: &str| bottles.engine.inspect(ObjectKind::Image, name);
        let Some(found) = inspect(image.as_str())?.map_or_else(|| inspect(tag), |found| Ok(Some(found)))? else {
            continue;
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let digests: Vec<String> = found["RepoDigests"].as_array().into_iter().flatten().map(text).collect();
        if digests.iter().any(|own| own.ends_with(&format!("@{digest}"))) {
            continue;
        }
        let found = match digests.as_slice() {
            [] => format!("`{tag}` is {} and has no digest, because it was built or loaded here", text(&found["Id"])),
            all => format!("`{tag}` is `{}`", all.join("`, `")),
        };
        let program = &bottles.engine.info().program;
        let problem = format!("the engine has another image than `{image}`: {found}");
        mistakes.push((
            plan.bottle_key(&format!("images.{name}")),
            format!("{problem}; accepted: the image that `{program} pull {image}` gives"),
        ));
    }
    Ok(mistakes)
}
