//! The egress of a plan, limited to what was used.

use std::collections::{BTreeMap, BTreeSet};

use crate::BottlePlan;
use crate::manifest::{
    AllowSpec, BottleSpec, EgressMode, EgressSpec, InjectScheme, InjectSpec, Inspect, RequestScan, RouteSpec,
};
use crate::plan::{Injection, InjectionValue, Route};
use crate::prepare;
use crate::value::{AllowedHost, DEFAULT_PORTS};

impl BottlePlan {
    /// Returns `egress` of a manifest that allows these hosts on these ports, and the routes with these names. Everything
    /// else is as in this plan.
    pub fn egress_for(&self, hosts: &BTreeMap<AllowedHost, BTreeSet<u16>>, routes: &BTreeSet<String>) -> EgressSpec {
        let egress = self.egress.as_ref();
        let allow = hosts.iter().flat_map(|(host, ports)| {
            let has_default = ports.iter().any(|port| DEFAULT_PORTS.contains(port));
            let others = ports.iter().copied().filter(|port| !DEFAULT_PORTS.contains(port)).map(Some);
            has_default.then_some(None).into_iter().chain(others).map(|port| AllowSpec {
                host: host.clone(),
                port,
                inspect: self.inspect(host),
                dlp: self.dlp(host),
            })
        });
        let routes = egress.iter().flat_map(|egress| &egress.routes).filter(|route| routes.contains(&route.name));
        EgressSpec {
            allow: allow.collect(),
            routes: routes.map(|route| self.route(route)).collect(),
            scan_requests: self.proxy.scan_requests,
            dlp: egress.map(|egress| egress.dlp),
            on_denied: egress.map(|egress| egress.on_denied).unwrap_or_default(),
            mode: EgressMode::Enforce,
        }
    }

    /// Returns this plan with another `egress` in the manifest.
    #[must_use]
    pub fn with_egress(&self, egress: EgressSpec) -> Self {
        let bottle = BottleSpec { egress, limits: self.limits.clone(), ..BottleSpec::default() };
        let name = self.source.bottle.as_ref().map_or("bottle", AsRef::as_ref);
        let egress = prepare::egress(&bottle, &format!("bottles.{name}"));
        Self { proxy: prepare::proxy(&bottle), egress, ..self.clone() }
    }

    fn inspect(&self, host: &AllowedHost) -> Option<Inspect> {
        self.proxy.content.iter().any(|content| content.covers(host)).then_some(Inspect::Content)
    }

    /// Returns the search for credentials of the longest entry that covers a host.
    fn dlp(&self, host: &AllowedHost) -> Option<RequestScan> {
        let entries = self.egress.iter().flat_map(|egress| &egress.dlp_of_hosts);
        let covering = entries.filter(|(entry, _)| entry.covers(host));
        covering.max_by_key(|(entry, _)| entry.as_str().len()).map(|(_, dlp)| *dlp)
    }

    fn route(&self, route: &Route) -> RouteSpec {
        let is_default = route.name == route.host.as_str().replace('*', "any");
        RouteSpec {
            name: route.name.parse().ok().filter(|_| !is_default),
            host: route.host.clone(),
            port: route.port,
            paths: route.paths.clone(),
            methods: route.methods.clone(),
            headers: route.headers.clone(),
            inject: route.inject.as_ref().map(inject),
            inspect: self.inspect(&route.host.to_allowed()),
            dlp: route.dlp,
        }
    }
}

fn inject(injection: &Injection) -> InjectSpec {
    let Injection { token, header, value, .. } = injection;
    let spec =
        |scheme, header, template, username| InjectSpec { token: token.clone(), scheme, header, template, username };
    match value {
        InjectionValue::Basic { username } => spec(InjectScheme::Basic, None, None, Some(username.clone())),
        InjectionValue::Template(text) if text == "Bearer {token}" && header.as_str() == "authorization" => {
            spec(InjectScheme::Bearer, None, None, None)
        }
        InjectionValue::Template(text) => spec(InjectScheme::Header, Some(header.clone()), Some(text.clone()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostFacts, Manifest, PlanRequest, UserIds};

    #[test]
    fn the_whole_egress_of_a_plan_makes_the_same_plan() {
        let manifest = Manifest::parse(include_str!("../tests/good/fullest.yaml")).unwrap();
        let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1, gid: 1 } };
        let agent = manifest.agents.keys().next();
        let request = PlanRequest { agent, ..PlanRequest::new(&host, [0; 5]) };
        let plan = manifest.plan(request).unwrap();
        let egress = plan.egress.as_ref().unwrap();
        let of_routes: BTreeSet<AllowedHost> = egress.routes.iter().map(|route| route.host.to_allowed()).collect();
        let hosts = plan.proxy.allow.iter().filter(|host| !of_routes.contains(host));
        let hosts = hosts.map(|host| (host.clone(), plan.proxy.ports_of(host))).collect();
        let routes = egress.routes.iter().map(|route| route.name.clone()).collect();
        let same = plan.with_egress(plan.egress_for(&hosts, &routes));
        assert_eq!((&same.proxy, &same.egress), (&plan.proxy, &plan.egress));

        let none = plan.with_egress(plan.egress_for(&BTreeMap::new(), &BTreeSet::new()));
        assert!(none.proxy.allow.is_empty() && none.egress.unwrap().routes.is_empty());
    }
}
