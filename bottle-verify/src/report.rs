//! The results of the probes.

use std::fmt;
use std::time::Duration;

use bottle_engine::EngineError;
use serde::Serialize;

/// Level of verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// No probe.
    Off,
    /// Every probe that takes milliseconds. The default.
    #[default]
    Quick,
    /// Also a scan of all TCP ports of every sidecar, from the agent's container. It takes seconds, under gVisor half a
    /// minute.
    Full,
}

/// Outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The protection holds.
    Held,
    /// The protection is missing.
    Failed,
    /// The probe does not apply to this bottle.
    NotRun,
}

/// One probe and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The protection that was probed.
    pub protection: &'static str,
    /// The outcome.
    pub outcome: Outcome,
    /// Observation, such as the error of a connection attempt. It never holds a secret.
    pub detail: String,
}

impl Probe {
    pub(crate) fn held(protection: &'static str, detail: impl Into<String>) -> Self {
        Self { protection, outcome: Outcome::Held, detail: detail.into() }
    }

    pub(crate) fn failed(protection: &'static str, detail: impl Into<String>) -> Self {
        Self { protection, outcome: Outcome::Failed, detail: detail.into() }
    }

    pub(crate) fn not_run(protection: &'static str, detail: impl Into<String>) -> Self {
        Self { protection, outcome: Outcome::NotRun, detail: detail.into() }
    }

    /// Returns `held` with a detail, or `failed` with every problem.
    pub(crate) fn of(protection: &'static str, problems: &[String], detail: impl Into<String>) -> Self {
        if problems.is_empty() { Self::held(protection, detail) } else { Self::failed(protection, problems.join("; ")) }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.protection, self.detail)
    }
}

/// The results of a verification. `Display` is a table with one line for each probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The probes, in the order of the table.
    pub probes: Vec<Probe>,
    /// Duration of the verification.
    pub took: Duration,
}

impl Verification {
    /// Returns true if probes ran and no protection is missing. Returns false for [`Verify::Off`], which proves nothing.
    pub fn holds(&self) -> bool {
        let held = self.probes.iter().any(|probe| probe.outcome == Outcome::Held);
        held && self.failed().next().is_none()
    }

    /// Returns the probes that found a protection missing.
    pub fn failed(&self) -> impl Iterator<Item = &Probe> {
        self.probes.iter().filter(|probe| probe.outcome == Outcome::Failed)
    }

    /// Returns the verification, or an error if a protection is missing or no probe ran.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Unprotected`] with every missing protection.
    pub fn into_result(self) -> Result<Self, VerifyError> {
        if self.holds() { Ok(self) } else { Err(VerifyError::Unprotected { failed: self.failed().cloned().collect() }) }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.probes.iter().map(|probe| probe.protection.len()).max().unwrap_or_default();
        for Probe { protection, outcome, detail } in &self.probes {
            let outcome = match outcome {
                Outcome::Held => "held",
                Outcome::Failed => "MISSING",
                Outcome::NotRun => "not run",
            };
            writeln!(f, "{protection:width$}  {outcome:7}  {detail}")?;
        }
        write!(f, "{} probes in {} ms", self.probes.len(), self.took.as_millis())
    }
}

/// A failed verification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A protection is missing.
    #[error("prove that each protection holds: {}", listed(failed))]
    Unprotected {
        /// The probes that found it missing.
        failed: Vec<Probe>,
    },
    /// The engine reported an error, so the protections are unknown.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The attacking program could not be taken from the seal's image.
    #[error("read the probe from the seal's image")]
    Program(#[source] std::io::Error),
    /// The protections that the bottle should have are unknown.
    #[error(
        "determine the bottle's protections: neither its journal nor its Compose document lists them; launch the bottle again"
    )]
    Unknown,
}

fn listed(failed: &[Probe]) -> String {
    if failed.is_empty() {
        return "no probe ran".to_owned();
    }
    failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_without_a_probe_proves_nothing() {
        let of = |probes: Vec<Probe>| Verification { probes, took: Duration::ZERO };
        assert!(of(vec![Probe::held("proxy", "it refuses"), Probe::not_run("environment", "no secret")]).holds());
        assert!(!of(vec![Probe::held("proxy", "it refuses"), Probe::failed("limits", "none")]).holds());
        for nothing in [vec![], vec![Probe::not_run("environment", "no secret")]] {
            let found = of(nothing);
            assert!(!found.holds());
            assert_eq!(found.into_result().unwrap_err().to_string(), "prove that each protection holds: no probe ran");
        }
    }
}
