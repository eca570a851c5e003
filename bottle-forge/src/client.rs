//! The HTTP client.

use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig};

/// Maximum length of an answer, in bytes. A page of keys is far smaller.
pub(crate) const LONGEST_ANSWER: u64 = 4 << 20;

/// Returns a client that trusts the system's certificates, follows no redirect, and returns every status.
pub(crate) fn client(timeout: Duration, proxy: Option<&str>) -> Result<ureq::Agent, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy.map(ureq::Proxy::new).transpose()?)
        .user_agent(concat!("claude-bottle/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
    Ok(config.build().new_agent())
}

/// Returns one short line of a text, with the secrets redacted.
pub(crate) fn legible<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
    let text = secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[token]"));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// Returns the message in the JSON of an error's answer, as forges and token servers write it. Empty if there is none.
pub(crate) fn message(content: &[u8]) -> String {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(content) else { return String::new() };
    let mut said: Vec<String> = Vec::new();
    for field in ["message", "error", "error_description", "errors"] {
        match &json[field] {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => said.push(text.clone()),
            // GitLab returns an object, GitHub a list.
            other => said.push(other.to_string()),
        }
    }
    said.join("; ")
}
