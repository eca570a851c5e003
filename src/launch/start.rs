//! Creation and start of the services.

use std::collections::BTreeMap;

use bottle_compose::document::Condition;
use bottle_compose::sidecar::CREDENTIALS;
use bottle_compose::{ComposeFile, STORE, StartOrder};
use bottle_engine::{ComposeProject, Start};
use bottle_plan::Service;
use bottle_plan::manifest::SecretsMode;
use bottle_store::Content;

use super::context::{Launch, both};
use crate::launch_error::{LaunchCause, LaunchError, Step};
use crate::lifecycle::{ServiceImage, Undo, hand_over, images};

/// Creates the services, starts all of them at once, and waits until they are healthy. Each sidecar gets its credentials as
/// soon as it runs, and `provision` is called as soon as the agent's container runs. Returns the services' images.
pub(super) fn start(
    launch: &Launch<'_>,
    project: &ComposeProject,
    document: &ComposeFile,
    provision: impl Fn() -> Result<(), LaunchError> + Sync,
) -> Result<BTreeMap<String, ServiceImage>, LaunchError> {
    let failed = |cause| LaunchError::new(Step::Up, cause);
    create(launch, project, document).map_err(failed)?;
    if let Some(content) = content(document) {
        let started = content.start(launch.engine(), &project.name, launch.bottles.wait);
        started.map_err(|error| failed(error.into()))?;
    }
    let containers = order(document);
    let agent = launch.plan.names.container(Service::Agent);
    let then = |container: &str| {
        if container == agent {
            return provision();
        }
        let is_wanted = |sidecar: &str| sidecar == container && launch.bottles.hands_over;
        let credentials = document.credentials.iter().find(|(sidecar, _)| is_wanted(sidecar));
        let handed = credentials.map_or(Ok(()), |one| {
            hand_over(launch.engine(), CREDENTIALS, std::slice::from_ref(one), &launch.ready.inputs.credentials)
        });
        handed.map_err(|error| failed(error.into()))
    };
    let images = || images(launch.engine(), &launch.plan.names).map_err(|error| failed(error.into()));
    let start = || launch.engine().start_all(&project.name, &containers, launch.bottles.wait, then);
    both(start, images).map(|((), images)| images)
}

/// Returns the containers in the order of their start, without the store, which is started before them.
pub(super) fn order(document: &ComposeFile) -> Vec<Start> {
    let store = content(document).map(|content| content.container);
    let order = document.start_order();
    order.iter().filter(|start| store.as_deref() != Some(start.container)).map(start_of).collect()
}

/// Returns what the store gets. `None` if the containers bind this host's files.
pub(super) fn content(document: &ComposeFile) -> Option<Content> {
    let store = document.service(STORE).filter(|_| !document.stored.is_empty())?;
    Some(Content { container: store.container_name.clone(), files: document.stored.clone() })
}

fn start_of(order: &StartOrder<'_>) -> Start {
    let after = |condition| {
        let named = order.after.iter().filter(move |(_, wanted)| *wanted == condition);
        named.map(|(container, _)| (*container).to_owned()).collect()
    };
    Start {
        container: order.container.to_owned(),
        after_started: after(Condition::ServiceStarted),
        after_healthy: after(Condition::ServiceHealthy),
        has_check: order.has_check,
    }
}

/// Creates volumes and containers. The journal has them first.
fn create(launch: &Launch<'_>, project: &ComposeProject, document: &ComposeFile) -> Result<(), LaunchCause> {
    let (name, project_dir) = (project.name.clone(), launch.state.dir().to_owned());
    let compose_file = launch.state.compose_file();
    // The networks are in the journal already. Now the images have to outlive the project.
    launch.guard.record_last(launch.compose_down())?;
    let log = launch.state.compose_log();
    launch.guard.record(Undo::DumpLogs { project: name, compose_file, project_dir, log })?;
    let inputs = &launch.ready.inputs;
    let credentials = inputs.credentials.iter().filter(|_| launch.plan.secrets == SecretsMode::Environment);
    let secrets = inputs.compose_environment.iter().chain(credentials);
    let secrets = secrets.map(|(name, value)| (name.to_string(), value.clone()));
    if launch.engine().is_podman() {
        let containers = document.podman_containers().into_iter().map(|creation| creation.arguments);
        let commands: Vec<_> = document.podman_volumes().into_iter().chain(containers).collect();
        return Ok(launch.engine().create_each(commands.iter().map(Vec::as_slice), &secrets.collect::<Vec<_>>())?);
    }
    Ok(launch.engine().compose(project)?.create(secrets)?)
}
