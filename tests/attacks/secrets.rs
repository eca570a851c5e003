//! The secrets of a bottle under attack, and the forms in which they could leave it.

use std::path::Path;

use bottle_testing::lab::base64;
use serde_json::Value;

use crate::site::{API, OTHER};

/// Secrets, each with its name and every form that is searched for.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    pub(crate) api: String,
    pub(crate) other: String,
    pub(crate) basic: String,
    pub(crate) web: String,
    forms: Vec<(String, Vec<String>)>,
}

impl Secrets {
    /// Returns the tokens of a bottle.
    pub(crate) fn of(slug: &str) -> Self {
        let mut secrets = Self {
            api: format!("sk-ant-api03-REAL-aPi/+{slug}-0a1B2c3D4e"),
            other: format!("sk-proj-REAL-oTher-{slug}-5f6G7h8I9j"),
            basic: format!("ghs-REAL-bAsic-{slug}-k0L1m2N3o4"),
            web: format!("glpat-REAL-wEb-{slug}-p5Q6r7S8t9"),
            forms: Vec::new(),
        };
        let named =
            [("api", &secrets.api), ("other", &secrets.other), ("basic", &secrets.basic), ("web", &secrets.web)];
        let named: Vec<(String, String)> = named.map(|(name, value)| (name.to_owned(), value.clone())).into();
        for (name, value) in named {
            secrets.add(&format!("the token `{name}`"), &value);
        }
        secrets
    }

    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.forms.push((name.to_owned(), forms(value)));
    }

    /// Adds the private keys in the files below a directory.
    pub(crate) fn add_keys(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                self.add_keys(&path);
            } else if path.metadata().is_ok_and(|metadata| metadata.is_file())
                && let Ok(text) = std::fs::read_to_string(&path)
                && text.contains("PRIVATE KEY-----")
            {
                let lines: Vec<&str> = text.lines().skip_while(|line| !line.contains("PRIVATE KEY-----")).collect();
                let line = lines.iter().skip(1).rfind(|line| line.len() >= 20 && !line.starts_with('-'));
                self.forms.extend(line.map(|line| (format!("the key {}", path.display()), vec![(*line).to_owned()])));
            }
        }
    }

    /// Returns the names of the secrets in a text.
    pub(crate) fn found_in<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let holds = move |forms: &[String]| forms.iter().any(|form| text.contains(form.as_str()));
        self.forms.iter().filter(move |(_, forms)| holds(forms)).map(|(name, _)| name.as_str())
    }

    /// Returns true for a header in which a host may get its own token.
    pub(crate) fn belongs(&self, host: &str, target: &str, header: &Value) -> bool {
        let (name, value) = (header[0].as_str().unwrap_or_default(), header[1].as_str().unwrap_or_default());
        let basic = format!("Basic {}", base64(&format!("x-access-token:{}", self.basic)));
        match host {
            API if target.starts_with("/demo.git") => name.eq_ignore_ascii_case("authorization") && value == basic,
            API => name.eq_ignore_ascii_case("x-api-key") && value == self.api,
            OTHER => name.eq_ignore_ascii_case("authorization") && value == format!("Bearer {}", self.other),
            // Git-gate's own requests to its upstream.
            _ if target.contains("/web.git/") => {
                name.eq_ignore_ascii_case("authorization") && value.starts_with("Basic ")
            }
            _ => false,
        }
    }
}

/// Returns the forms in which a value is recognised: as it is, each half, and in the usual encodings.
fn forms(value: &str) -> Vec<String> {
    let all = |one: &dyn Fn(u8) -> String| value.bytes().map(one).collect::<String>();
    let mut forms = vec![value.to_owned(), value.to_uppercase(), value.to_lowercase()];
    forms.push(
        value
            .chars()
            .map(|letter| if letter.is_uppercase() { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() })
            .collect(),
    );
    let half = value.len() / 2;
    // A value that is cut in two requests is as good as a whole one.
    if value.len() >= 24 {
        forms.extend([value[..half + 4].to_owned(), value[half..].to_owned()]);
    }
    forms.extend([all(&|byte| format!("{byte:02x}")), all(&|byte| format!("{byte:02X}"))]);
    forms.extend([all(&|byte| format!("%{byte:02x}")), all(&|byte| format!("%{byte:02X}"))]);
    forms.extend([
        all(&|byte| format!("\\u{byte:04x}")),
        all(&|byte| format!("&#{byte};")),
        all(&|byte| format!("&#x{byte:x};")),
    ]);
    forms.push(value.replace('/', "\\/"));
    forms.push(value.replace('/', "%2F").replace('+', "%2B"));
    for shift in 0..3 {
        let encoded = base64(&format!("{}{value}", &"xx"[..shift.min(2)]));
        let inner: String = encoded.trim_end_matches('=').chars().skip(4).collect();
        let inner = inner[..inner.len().saturating_sub(2)].to_owned();
        forms.push(inner.replace('+', "-").replace('/', "_"));
        forms.push(inner);
    }
    forms.sort();
    forms.dedup();
    forms
}
