//! Checks that run before anything is created.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bottle_engine::{Capability, ObjectKind};
use bottle_plan::manifest::Runtime;
use bottle_plan::plan::GitAuth;
use bottle_plan::resolved::{EngineFacts, HostGateway};
use bottle_plan::{BottlePlan, SecretValue, Secrets, Service};

use super::context::Ready;
use super::deploy_keys;
use super::error::LaunchCause;
use crate::Bottles;
use crate::{env_file, manifest_files};

pub(super) fn check(plan: &BottlePlan, bottles: &Bottles) -> Result<Ready, LaunchCause> {
    #[cfg(not(feature = "deploy-keys"))]
    deploy_keys::refuse(plan)?;
    let engine = check_engine(plan, bottles)?;
    let compose_environment = read_variables(plan, bottles)?;
    check_files(plan)?;
    check_images(plan, bottles)?;
    plan.tls.upstream_ca.as_deref().map(super::files::read_upstream_ca).transpose()?;
    let env_file = match &plan.agent.env_file {
        Some(path) if env_file::check(path)? => Some(path.clone()),
        _ => None,
    };
    Ok(Ready { engine, env_file, compose_environment })
}

/// Returns an error for a protection that the engine does not support. It is never dropped silently.
fn check_engine(plan: &BottlePlan, bottles: &Bottles) -> Result<EngineFacts, LaunchCause> {
    let engine = &bottles.engine;
    engine.require(&Capability::ComposeWait)?;
    engine.require(&Capability::LocalFiles)?;
    engine.require(&Capability::SealedResolver)?;
    if let Some(message) = engine.info().clock_warning() {
        bottles.observer.event(&bottle_exec::Event::Warning { message });
    }
    if plan.agent.runtime == Runtime::Runsc {
        engine.require(&Capability::Runtime("runsc".into()))?;
    }
    let capabilities = engine.info().capabilities();
    let host_gateway = if capabilities.gateway_mode_isolated {
        HostGateway::Isolated
    } else {
        engine.require(&Capability::InhibitIpv4)?;
        HostGateway::InhibitIpv4
    };
    Ok(EngineFacts { host_gateway, start_interval: capabilities.start_interval })
}

fn read_variables(plan: &BottlePlan, bottles: &Bottles) -> Result<Secrets, LaunchCause> {
    let mut secrets = Secrets::default();
    for wanted in plan.wanted_variables() {
        let (variable, purpose) = (wanted.source.to_string(), wanted.purpose);
        let value = bottles.host.variable(&variable);
        match value {
            Some(value) if wanted.may_be_empty || !value.as_bytes().trim_ascii().is_empty() => {
                let Some(value) = value.to_str() else {
                    return Err(LaunchCause::VariableNotText { variable, purpose });
                };
                // Only a token must not be empty. It goes into a header, and a copied token may have a newline at its
                // end.
                if !wanted.may_be_empty && !is_header_text(value) {
                    return Err(LaunchCause::VariableNotToken { variable, purpose });
                }
                secrets.insert(wanted.name, SecretValue::new(value));
            }
            other => return Err(LaunchCause::Variable { variable, empty: other.is_some(), purpose }),
        }
    }
    // The launcher itself sends the requests to the forge, so Compose does not need its token.
    for (upstream, key) in deploy_keys::wanted(plan) {
        let purpose = format!(
            "git upstream `{}` registers its deploy key with it ({}.deploy_key.token)",
            upstream.name, upstream.key
        );
        let value = bottles.host.variable(key.token.as_str());
        if value.is_none_or(|value| value.as_bytes().trim_ascii().is_empty()) {
            return Err(LaunchCause::Variable { variable: key.token.to_string(), empty: value.is_some(), purpose });
        }
        if value.is_some_and(|value| value.to_str().is_none()) {
            return Err(LaunchCause::VariableNotText { variable: key.token.to_string(), purpose });
        }
    }
    // A placeholder is not a secret, but it enters the container the same way, as a bare name.
    for (name, dummy) in &plan.agent.placeholders {
        secrets.insert(name.clone(), SecretValue::new(dummy));
    }
    Ok(secrets)
}

/// Returns true if the text is a valid header value: visible ASCII, with spaces only inside.
fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && text == text.trim_matches(' ')
}

fn check_files(plan: &BottlePlan) -> Result<(), LaunchCause> {
    let problems = manifest_files::problems(plan, "");
    if !problems.is_empty() {
        return Err(LaunchCause::Files { problems });
    }
    for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
        if let GitAuth::IdentityFile(path) = &upstream.auth {
            check_identity(&format!("the identity file of git upstream `{}`", upstream.name), path, plan.user.uid)?;
        }
    }
    Ok(())
}

/// Checks each image that is named by a digest against the image on the engine. A missing image is pulled by its
/// digest, which the engine verifies itself.
fn check_images(plan: &BottlePlan, bottles: &Bottles) -> Result<(), LaunchCause> {
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
        return Err(LaunchCause::ImageDigest {
            key: format!("images.{name}"),
            wanted: image.to_string(),
            found,
            program: bottles.engine.info().program.clone(),
        });
    }
    Ok(())
}

/// Checks that only its owner, who must be this user, can read a key. ssh refuses any other key. Git-gate runs as this
/// user and cannot read files of another one.
fn check_identity(what: &str, path: &Path, uid: u32) -> Result<(), LaunchCause> {
    let metadata = fs::metadata(path);
    usable(what, path, metadata.as_ref().map(fs::Metadata::is_file).map_err(copy_error), "is not a regular file")?;
    // No bit for group or others.
    let private = metadata.as_ref().map(|metadata| metadata.permissions().mode().trailing_zeros() >= 6);
    usable(what, path, private.map_err(copy_error), "can be read by others; accepted: mode 0600 or 0400")?;
    let own = metadata.map(|metadata| metadata.uid() == uid);
    usable(what, path, own, &format!("belongs to another user; git-gate runs as user {uid} and cannot read it"))
}

fn copy_error(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn usable(what: &str, path: &Path, holds: io::Result<bool>, problem: &str) -> Result<(), LaunchCause> {
    let problem = match holds {
        Ok(true) => return Ok(()),
        Ok(false) => problem.to_owned(),
        Err(error) => format!("cannot be used: {error}"),
    };
    Err(LaunchCause::Unusable { what: what.to_owned(), path: path.to_owned(), problem })
}
