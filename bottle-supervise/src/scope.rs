//! The scope of an approval, and its end.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bottle_plan::BottlePlan;
use bottle_plan::plan::TemporaryHost;
use bottle_plan::value::AllowedHost;

use super::{Change, Proposal, When};

/// The scope of an approval.
///
/// An approval that ends is for one host, in a bottle with egress, which refuses the host from the end on, whether or not a
/// process of the launcher runs. The end counts in whole seconds. An exchange that has begun continues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// The bottle and its next launches, without an end.
    #[default]
    Always,
    /// Every request within this time: 1 s to 30 days. The next launch does not have it.
    For(Duration),
    /// One request within this time.
    Once(Duration),
}

const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Scope {
    /// Returns the host of a proposal and its end, or `None` without an end.
    pub(super) fn end(
        self,
        plan: &BottlePlan,
        proposal: &Proposal,
        when: When,
        now: SystemTime,
    ) -> Result<Option<(AllowedHost, TemporaryHost)>, String> {
        let (within, once) = match self {
            Self::Always => return Ok(None),
            Self::For(within) => (within, false),
            Self::Once(within) => (within, true),
        };
        let host = match &proposal.change {
            Change::AllowHost { host } if host.domain().is_none() => host,
            _ => return Err("only the approval of a single host can have an end".into()),
        };
        if within < Duration::from_secs(1) || within > LONGEST {
            return Err("the time of an approval is out of range; accepted: from one second to 30 days".into());
        }
        if when != When::Now {
            return Err(format!("an approval that {when} cannot have an end"));
        }
        let Some(egress) = &plan.egress else {
            return Err(
                "nothing in the bottle would end it; an end needs egress, such as by `egress.on_denied: propose`"
                    .into(),
            );
        };
        let lasts = |other: &&AllowedHost| !egress.temporary.contains_key(*other) && other.covers(host);
        if let Some(other) = plan.proxy.allow.iter().find(lasts) {
            return Err(format!("{other} is allowed without an end already"));
        }
        let until = (now + within).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Some((host.clone(), TemporaryHost { proposal: proposal.id.to_string(), until, once })))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("without an end"),
            Self::For(within) => write!(f, "for {} s", within.as_secs()),
            Self::Once(within) => write!(f, "for one request within {} s", within.as_secs()),
        }
    }
}

/// Returns the hosts whose time is over.
pub(super) fn ended(plan: &BottlePlan, now: SystemTime) -> Vec<(AllowedHost, TemporaryHost)> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let hosts = plan.egress.iter().flat_map(|egress| &egress.temporary);
    hosts.filter(|(_, end)| end.until <= now).map(|(host, end)| (host.clone(), end.clone())).collect()
}

/// Returns the plan without these hosts.
pub(super) fn without(plan: &BottlePlan, hosts: &[(AllowedHost, TemporaryHost)]) -> BottlePlan {
    let mut plan = plan.clone();
    let stays = |host: &AllowedHost| hosts.iter().all(|(ended, _)| ended != host);
    plan.proxy.allow.retain(stays);
    plan.proxy.content.retain(stays);
    plan.egress.iter_mut().for_each(|egress| egress.temporary.retain(|host, _| stays(host)));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use bottle_plan::Manifest;
    use bottle_sidecars::egress;
    use bottle_testing::plans;

    use crate::change::edit;

    fn plan(egress: &str) -> BottlePlan {
        let manifest = format!(
            "bottles: {{dev: {{supervise: true, egress: {egress}}}}}\nagents: {{demo: {{bottle: dev, command: [id]}}}}\n"
        );
        plans::plan(&Manifest::parse(&manifest).unwrap())
    }

    fn proposal(kind: &str, host: &str) -> Proposal {
        let text = format!(
            r#"{{"agent_reason":"x","change":{{"host":"{host}"}},"created":"2026-01-02T03:04:05.678Z","id":"1700000000000-aaaaaaaaaaaaaaaa","kind":"{kind}","slug":"demo-1","version":1}}"#
        );
        Proposal::parse(text.as_bytes()).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const HALF_HOUR: Scope = Scope::For(Duration::from_secs(1800));

    #[test]
    fn a_host_is_allowed_until_its_end_and_not_in_the_next_launch() {
        let before = plan("{allow: [b.example.com, {host: c.example.com, inspect: content}], on_denied: propose}");
        let asked = proposal("allow_host", "a.example.com");
        let (host, end) = HALF_HOUR.end(&before, &asked, When::Now, at(1000)).unwrap().unwrap();
        let mut during = edit(&before, Some(&before), &asked).plan;
        during.egress.as_mut().unwrap().temporary.insert(host.clone(), end);

        let routes = egress::routes(&during);
        assert!(
            routes.contains("allow:\n  - b.example.com\n  - c.example.com\ntemporary:\n  - host: a.example.com\n"),
            "{routes}"
        );
        assert!(routes.contains("    until: 2800\n"), "{routes}");
        assert_eq!(ended(&during, at(2799)), []);
        let over = ended(&during, at(2800));
        assert_eq!(over.len(), 1);
        assert_eq!(without(&during, &over), before);

        // A lasting approval of the same host takes away the end.
        let lasting = edit(&during, Some(&before), &asked).plan;
        assert_eq!((ended(&lasting, at(9999)), lasting.proxy.allow.contains(&host)), (Vec::new(), true));
    }

    #[test]
    fn only_a_single_host_that_egress_can_refuse_again_has_an_end() {
        let proposing = plan("{allow: ['*.b.example.com'], on_denied: propose}");
        let end = |scope: Scope, plan: &BottlePlan, kind: &str, host: &str, when: When| {
            scope.end(plan, &proposal(kind, host), when, at(0)).unwrap_err()
        };
        for (why, told) in [
            ("single host", end(HALF_HOUR, &proposing, "allow_host", "*.a.example.com", When::Now)),
            ("single host", end(HALF_HOUR, &proposing, "route", "a.example.com", When::Now)),
            (
                "needs egress",
                end(HALF_HOUR, &plan("{allow: [b.example.com]}"), "allow_host", "a.example.com", When::Now),
            ),
            ("without an end already", end(HALF_HOUR, &proposing, "allow_host", "x.b.example.com", When::Now)),
            ("launched again cannot", end(HALF_HOUR, &proposing, "allow_host", "a.example.com", When::NextLaunch)),
            ("out of range", end(Scope::Once(Duration::ZERO), &proposing, "allow_host", "a.example.com", When::Now)),
        ] {
            assert!(told.contains(why), "{told}");
        }
        let always = Scope::Always.end(&proposing, &proposal("route", "a.example.com"), When::NextLaunch, at(0));
        assert_eq!(always, Ok(None));
    }
}
