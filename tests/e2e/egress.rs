//! Egress: credentials that the agent never holds.

mod bypass;
mod credentials;
mod dlp;
mod load;
mod refusals;
mod renewal;
mod streams;

use std::ffi::OsString;
use std::time::Duration;

use bottle::exec::engine::Exec;
use bottle::plan::Service;
use bottle::{Bottle, Bottles, Host};
use serde_json::{Value, json};

use bottle_testing::lab::{FORBIDDEN, Finished, Lab, OUTSIDE, base64, docker, figure, host, sh};

/// The routed host. `OUTSIDE` is allowed without a route.
const API: &str = "api.anthropic.com";

const BOTTLE: &str = "\
env:
  ANTHROPIC_API_KEY: {placeholder: true}
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: \"1\"
egress:
  allow: [outside.test]
  routes:
    - name: api
      host: api.anthropic.com
      paths: [/v1/, /echo, /sse, /big, /upload, /slow]
      methods: [GET, POST]
      inject: {token: E2E_API_KEY, scheme: header}
    - name: git
      host: api.anthropic.com
      paths: [/demo.git]
      inject: {token: E2E_GIT_TOKEN, scheme: basic}";

/// Default value of a placeholder.
const PLACEHOLDER: &str = "placeholder-egress-injects-the-real-one";

/// The tokens of one test. They cannot occur by chance.
struct Tokens {
    api: String,
    git: String,
}

impl Tokens {
    fn of(lab: &Lab) -> Self {
        Self { api: format!("sk-ant-api03-REAL-{}", lab.slug), git: format!("ghp-REAL-{}", lab.slug) }
    }

    /// Returns the lab's options, on a host that has the tokens.
    fn options(&self, lab: &Lab) -> Bottles {
        let mut options = lab.options();
        options = options.with_host(host_with(&[("E2E_API_KEY", &self.api), ("E2E_GIT_TOKEN", &self.git)]));
        options
    }

    fn launch(&self, lab: &Lab) -> Bottle {
        let bottle = self.options(lab).launch(lab.plan(BOTTLE, "")).unwrap_or_else(|error| panic!("{error}"));
        lab.outside.connect(&bottle.names().egress_network());
        bottle
    }

    /// Returns every form in which a token is sent: plain, and in base64 with its user name.
    fn forms(&self) -> Vec<String> {
        vec![self.api.clone(), self.git.clone(), base64(&format!("x-access-token:{}", self.git))]
    }

    /// Asserts that the text contains no token in any form.
    #[track_caller]
    fn assert_absent(&self, place: &str, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        for form in self.forms() {
            let found = text.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "a token is in {place}");
        }
    }
}

pub(crate) fn host_with(variables: &[(&str, &str)]) -> Host {
    let host = host();
    let added = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Host::new(host.facts.clone(), host.environment().chain(added))
}

/// Runs a Python script as the agent.
fn python(bottle: &Bottle, script: &str, arguments: &[&str]) -> Finished {
    let argv = ["python3", "-c", script].into_iter().chain(arguments.iter().copied());
    let output = bottle.exec(Exec::new(argv).with_timeout(Duration::from_secs(120))).unwrap();
    Finished {
        code: output.status.as_shell_code(),
        stdout: output.stdout.text(),
        stderr: output.stderr.text(),
        duration: output.duration,
    }
}

/// Returns the requests that have reached the outside host and whose target contains a text.
pub(crate) fn arrived(lab: &Lab, target: &str) -> Vec<Value> {
    let holds = |event: &Value| event["target"].as_str().is_some_and(|text| text.contains(target));
    lab.outside.events().into_iter().filter(holds).collect()
}

/// Returns the values of a request's header. The name's case does not matter.
pub(crate) fn header(event: &Value, name: &str) -> Vec<String> {
    let pairs = event["headers"].as_array().into_iter().flatten();
    let named = pairs.filter(|pair| pair[0].as_str().is_some_and(|text| text.eq_ignore_ascii_case(name)));
    named.filter_map(|pair| pair[1].as_str().map(ToOwned::to_owned)).collect()
}

fn egress_container(bottle: &Bottle) -> String {
    bottle.names().container(Service::Egress)
}

/// Launches a bottle of another manifest, with the usual tokens.
fn launch_of(lab: &Lab, tokens: &Tokens, manifest: &str) -> Bottle {
    let bottle = tokens.options(lab).launch(lab.plan(manifest, "")).unwrap_or_else(|error| panic!("{error}"));
    lab.outside.connect(&bottle.names().egress_network());
    bottle
}
