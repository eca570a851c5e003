//! The owner of a bottle: a Lease in its namespace, which the launching process renews.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bottle_exec::chain;
use bottle_kube_render::object::{LeaseSpec, Metadata, Object, Spec};
use bottle_lifecycle::{Liveness, Owner};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::client::Kubectl;
use crate::error::KubeError;

/// Name of the Lease.
pub(crate) const NAME: &str = "owner";
/// Seconds after its last renewal from which a bottle counts as abandoned.
const DURATION: u32 = 40;
/// Time between two renewals.
const RENEWAL: Duration = Duration::from_secs(10);

/// Returns the Lease of an owner.
pub(crate) fn object(namespace: &str, labels: &BTreeMap<String, String>, owner: &Owner) -> Object {
    let metadata = Metadata {
        name: NAME.to_owned(),
        namespace: Some(namespace.to_owned()),
        labels: labels.clone(),
        annotations: BTreeMap::new(),
    };
    let spec = LeaseSpec { holder_identity: owner.to_string(), lease_duration_seconds: DURATION, renew_time: now() };
    Object { api_version: "coordination.k8s.io/v1", kind: "Lease", metadata, spec: Some(Spec::Lease(spec)) }
}

/// Returns the time in the format of a Lease.
fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::now_utc().format(&format).unwrap_or_default()
}

/// The renewal of a Lease, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Renewal {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Renewal {
    /// Starts to renew the Lease of a namespace.
    pub(crate) fn start(cluster: Kubectl, namespace: String) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (flag, changed) = &*stopped;
            loop {
                let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = changed.wait_timeout_while(guard, RENEWAL, |is_over| !*is_over);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
                let patch = json!({"spec": {"renewTime": now()}});
                if let Err(error) = cluster.patch(&namespace, &format!("lease/{NAME}"), &patch) {
                    tracing::warn!(namespace, error = chain(&error), "the owner's Lease is not renewed");
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to return.
            let _ = thread.join();
        }
    }
}

/// The owner of a bottle, as its Lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The launching process runs, or has renewed the Lease lately.
    Owned,
    /// The launching process has ended.
    Abandoned,
}

/// Returns whether the owner of a bottle still exists. A process of this machine is looked up. For any other, the last change
/// of the Lease counts, with both times from the API server's clock, so that no other clock has to be right.
///
/// A namespace without a Lease is abandoned once it is as old as a Lease may be.
pub(crate) fn ownership(lease: Option<&Value>, created: &str, server_time: &str) -> Ownership {
    let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str()?.parse::<Owner>().ok());
    match holder.map(|owner| owner.liveness(false)) {
        Some(Liveness::Alive) => return Ownership::Owned,
        Some(Liveness::Gone) => return Ownership::Abandoned,
        Some(Liveness::Unknown) | None => {}
    }
    let managed = lease.and_then(|lease| lease["metadata"]["managedFields"].as_array());
    let changes = managed.into_iter().flatten().filter_map(|entry| entry["time"].as_str());
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let last = changes.chain([created]).filter_map(parse).max();
    match (last, parse(server_time)) {
        (Some(last), Some(now)) if (now - last).whole_seconds() > i64::from(DURATION) => Ownership::Abandoned,
        _ => Ownership::Owned,
    }
}

impl Kubectl {
    /// Returns the time of the API server, which only tells it with an object. None is created.
    pub(crate) fn server_time(&self) -> Result<String, KubeError> {
        let args = ["create", "configmap", "time", "--namespace", "default", "--dry-run=server", "--output", "json"];
        let object = self.json(&self.command(args))?;
        Ok(object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: &str) -> Value {
        json!({"spec": {"holderIdentity": holder}, "metadata": {"managedFields": [{"time": renewed}]}})
    }

    #[test]
    fn a_process_of_this_machine_is_looked_up() {
        let owner = Owner::of_process(std::process::id());
        let (old, now) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        assert_eq!(ownership(Some(&lease(&owner.to_string(), old)), old, now), Ownership::Owned);
        let gone = Owner { start_time: owner.start_time.map(|start| start - 1), ..owner };
        assert_eq!(ownership(Some(&lease(&gone.to_string(), now)), now, now), Ownership::Abandoned);
    }

    #[test]
    fn a_process_of_another_machine_has_to_renew_its_lease() {
        let elsewhere = "7:1:00000000.1";
        let state =
            |renewed| ownership(Some(&lease(elsewhere, renewed)), "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert_eq!(state("2026-01-01T00:59:30Z"), Ownership::Owned);
        assert_eq!(state("2026-01-01T00:59:10Z"), Ownership::Abandoned);
        assert_eq!(ownership(None, "2026-01-01T00:59:50Z", "2026-01-01T01:00:00Z"), Ownership::Owned);
        assert_eq!(ownership(None, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"), Ownership::Abandoned);
        assert_eq!(
            ownership(None, "never", "2026-01-01T01:00:00Z"),
            Ownership::Owned,
            "what is unknown is not removed"
        );
    }

    #[test]
    fn a_lease_is_what_the_api_describes() {
        let lease = object("demo", &BTreeMap::new(), &Owner::of_process(std::process::id()));
        let lease = serde_json::to_value(lease).unwrap();
        assert_eq!(bottle_testing::kubernetes::ApiSchema::default().problems(&lease), [""; 0]);
    }

    #[test]
    fn a_time_has_the_format_of_the_api() {
        let time = now();
        assert!(time.len() == 27 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    }
}
