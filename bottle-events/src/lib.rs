//! The events of a bottle as one stream: requests, pushes, proposals, decisions, limits, health and the steps of the launcher.
//!
//! The sidecars print audit lines, and the launcher appends an [`EventRecord`] for each of its events to a file. A
//! [`BottleEvent`] is either, with its time and a type for each kind. `Bottles::events` of the crate `bottle` reads both. The JSON
//! Schema of both kinds of line is `schema/event.schema.json`. A [`Suggestion`] is the smallest part of a manifest that covers the requests among them.

mod event;
mod event_log;
mod file;
mod stream;
mod suggestion;

pub use bottle_sidecars::audit::{ApplyStatus, ApprovalEnd, DecidedBy, Decider};
pub use event::{
    AppliedChange, ApprovalEnded, BottleEvent, DecisionEvent, EventData, EventKind, EventSource, GitAction, GitEvent,
    GitFinding, HealthEvent, LauncherEvent, LimitEvent, ProposalEvent, ProposalRefused, Proposed, RefUpdate,
    RequestEvent, Settled, SettledState, SidecarEvent, TunnelEvent, json_schema,
};
pub use event_log::{Beside, EventLog, EventRecord};
pub use file::EventFile;
pub use stream::{AuditSink, EventStream};
pub use suggestion::Suggestion;
