//! The state of a Pod, as the API server tells it.

use bottle_kube_render::{GATE, MAIN};
use serde_json::Value;

/// The state of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodState {
    /// It is not ready yet.
    Starting {
        /// `true` once its gate runs and can receive files.
        is_receiving: bool,
        /// State in words.
        detail: String,
    },
    /// All of its containers are ready.
    Ready,
    /// It does not become ready.
    Failed {
        /// Name of the container that failed.
        container: String,
        /// Reason.
        reason: String,
    },
}

/// Reasons for which a container never starts. Other ones pass, such as the first failure of a pull.
const FINAL: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "CrashLoopBackOff",
];

impl PodState {
    /// Reads a Pod.
    pub(crate) fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let containers = ["initContainerStatuses", "containerStatuses"].map(|key| status[key].as_array());
        for container in containers.into_iter().flatten().flatten() {
            if let Some(reason) = failure(container) {
                return Self::Failed { container: container["name"].as_str().unwrap_or(MAIN).to_owned(), reason };
            }
        }
        if status["phase"] == "Failed" {
            let reason = format!("{}: {}", text(&status["reason"]), text(&status["message"]));
            return Self::Failed { container: MAIN.to_owned(), reason };
        }
        let conditions = status["conditions"].as_array();
        let condition = |kind: &str| conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
        if condition("Ready").is_some_and(|ready| ready["status"] == "True") {
            return Self::Ready;
        }
        let gate = status["initContainerStatuses"].as_array().into_iter().flatten().find(|gate| gate["name"] == GATE);
        let is_receiving = gate.is_some_and(|gate| gate["state"].get("running").is_some());
        let unscheduled = condition("PodScheduled").filter(|scheduled| scheduled["status"] == "False");
        let waits = status["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|c| c["state"]["waiting"]["reason"].as_str());
        let detail = match unscheduled {
            Some(condition) => text(&condition["message"]).to_owned(),
            None if is_receiving => "its gate waits".to_owned(),
            None => waits.unwrap_or("not ready").to_owned(),
        };
        Self::Starting { is_receiving, detail }
    }
}

/// Returns the reason why a container does not become ready.
fn failure(container: &Value) -> Option<String> {
    let waiting = &container["state"]["waiting"];
    if let Some(reason) = waiting["reason"].as_str().filter(|reason| FINAL.contains(reason)) {
        return Some(format!("{reason}: {}", text(&waiting["message"])));
    }
    let ended = [&container["state"]["terminated"], &container["lastState"]["terminated"]];
    let code = ended.into_iter().find_map(|ended| ended["exitCode"].as_i64().filter(|code| *code != 0))?;
    Some(format!("container `{}` ended with status {code}", text(&container["name"])))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gate(state: &Value) -> Value {
        json!({"status": {"phase": "Pending", "initContainerStatuses": [{"name": "gate", "state": state}]}})
    }

    #[test]
    fn a_pod_receives_its_files_while_its_gate_runs() {
        let receiving =
            |state: Value| matches!(PodState::of(&gate(&state)), PodState::Starting { is_receiving: true, .. });
        assert!(receiving(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})));
        assert!(!receiving(json!({"waiting": {"reason": "PodInitializing"}})));
        assert!(!receiving(json!({"terminated": {"exitCode": 0}})));
    }

    #[test]
    fn what_does_not_pass_is_a_failure() {
        let reason = |state: Value| match PodState::of(&gate(&state)) {
            PodState::Failed { reason, .. } => Some(reason),
            PodState::Starting { .. } | PodState::Ready => None,
        };
        assert_eq!(reason(json!({"waiting": {"reason": "ErrImagePull"}})), None);
        let backoff = reason(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
        assert_eq!(backoff.as_deref(), Some("ImagePullBackOff: no such image"));
        let ended = reason(json!({"terminated": {"exitCode": 1}}));
        assert_eq!(ended.as_deref(), Some("container `gate` ended with status 1"));
        let evicted =
            PodState::of(&json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}}));
        assert_eq!(evicted, PodState::Failed { container: "main".into(), reason: "Evicted: low on memory".into() });
    }

    #[test]
    fn a_pod_is_ready_when_the_api_server_says_so() {
        let pod =
            |status: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        assert_eq!(PodState::of(&pod("True")), PodState::Ready);
        assert!(matches!(PodState::of(&pod("False")), PodState::Starting { is_receiving: false, .. }));
    }
}
