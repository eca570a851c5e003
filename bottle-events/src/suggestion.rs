//! The smallest manifest that covers what a bottle used.

use std::fmt;

use bottle_compose::to_plain_yaml;
use bottle_plan::manifest::EgressSpec;
use bottle_plan::{BottlePlan, Slug};
use bottle_posture::{Posture, PostureDiff};
use bottle_sidecars::audit::{AuditLine, Usage};
use serde_json::{Map, Value, json};

/// The smallest `egress` of a manifest that covers what a bottle used. `Bottles::suggest` of the crate `bottle` returns it.
///
/// `Display` writes it as YAML, to be put below the bottle's name in the manifest, with the difference of the postures as
/// comments.
///
/// ```
/// # use bottle_events::Suggestion;
/// # use bottle_plan::{HostFacts, Manifest, PlanRequest, UserIds};
/// # let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } };
/// let text = "bottles: {dev: {egress: {allow: ['*.example.com']}}}\nagents: {demo: {bottle: dev, command: [id]}}";
/// let plan = Manifest::parse(text)?.plan(PlanRequest::new(&host, [0; 5]))?;
/// let line = r#"{"ts":"2026-01-02T03:04:05.678Z","sidecar":"pipelock","event":"tunnel","outcome":"done",
///     "host":"api.example.com","port":443}"#;
/// let suggestion = Suggestion::new(&plan, [serde_json::from_str(line)?]);
/// assert!(suggestion.to_string().ends_with("egress:\n  allow:\n    - api.example.com\n"), "{suggestion}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Suggestion {
    /// The bottle.
    pub slug: Slug,
    /// The hosts and routes that were used.
    pub usage: Usage,
    /// The section of the manifest.
    pub egress: EgressSpec,
    /// Difference between the posture of the bottle and the one with this section.
    pub diff: PostureDiff,
}

impl Suggestion {
    /// Creates the suggestion for a plan in effect and the audit lines of its bottle.
    pub fn new(plan: &BottlePlan, lines: impl IntoIterator<Item = AuditLine>) -> Self {
        let usage = Usage::of(lines);
        let egress = plan.egress_for(&usage.hosts, &usage.routes);
        let diff = Posture::of(plan).diff(&Posture::of(&plan.with_egress(egress.clone())));
        Self { slug: plan.names.slug().clone(), usage, egress, diff }
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut header = vec![
            format!("Enough for the {} requests of bottle {}.", self.usage.requests, self.slug),
            "Below the bottle's name in the manifest it changes this:".to_owned(),
        ];
        header.extend(self.diff.to_string().lines().map(|line| format!("  {line}")));
        f.write_str(&to_plain_yaml(&json!({ "egress": without_defaults(&self.egress) }), &header))
    }
}

/// Returns the section without the keys that have their default value.
fn without_defaults(egress: &EgressSpec) -> Map<String, Value> {
    let fields = |egress: &EgressSpec| match serde_json::to_value(egress) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let defaults = fields(&EgressSpec::default());
    fields(egress).into_iter().filter(|(key, value)| defaults.get(key) != Some(value)).collect()
}
