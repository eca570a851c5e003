//! Forges over HTTP.

use std::time::Duration;

use bottle_plan::SecretValue;
use bottle_plan::manifest::Forge as Kind;
use serde::de::DeserializeOwned;
use serde_json::json;
use ureq::http::{Method, Request, header};

use super::client::{LONGEST_ANSWER, client, legible, message};
use super::forge::{Forge, ForgeError, Forges, NewKey, RegisteredKey};

/// Forges over HTTPS, with the certificates that the system trusts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpForges {
    /// Timeout of a request. Default: 30 s.
    pub timeout: Duration,
    /// Time after an unanswered request within which a key may still appear. Default: 10 s.
    pub settle: Duration,
    /// A proxy, such as `http://proxy.example:3128`. Default: none, whatever the environment says.
    pub proxy: Option<String>,
}

impl Default for HttpForges {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), settle: Duration::from_secs(10), proxy: None }
    }
}

impl HttpForges {
    /// Sets the timeout of a request.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the time after an unanswered request within which a key may still appear.
    #[must_use]
    pub const fn with_settle(mut self, settle: Duration) -> Self {
        self.settle = settle;
        self
    }

    /// Sets a proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = Some(proxy.into());
        self
    }
}

impl Forges for HttpForges {
    fn connect(&self, kind: Kind, api_url: &str, token: SecretValue) -> Result<Box<dyn Forge>, ForgeError> {
        let unusable = |error: ureq::Error| ForgeError::Unusable { reason: error.to_string() };
        let agent = client(self.timeout, self.proxy.as_deref()).map_err(unusable)?;
        Ok(Box::new(Api { agent, base: api_url.to_owned(), token, dialect: dialect(kind) }))
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn settle(&self) -> Duration {
        self.settle
    }
}

/// The API of a forge: its address, token and dialect.
struct Api {
    agent: ureq::Agent,
    base: String,
    token: SecretValue,
    dialect: &'static Dialect,
}

/// The differences between forges.
struct Dialect {
    /// Header of the token.
    header: &'static str,
    /// Text before the token in the header.
    scheme: &'static str,
    /// Requested media type.
    accept: &'static str,
    /// Path of a repository's keys before and after the repository's name.
    keys: (&'static str, &'static str),
    /// True if the repository's name is one path segment, with its `/` encoded.
    one_segment: bool,
    /// Parameter that limits a page of the list, with its largest value.
    page: &'static str,
    /// Field of a new key that controls whether it may push, and its value if it may.
    push: (&'static str, bool),
}

/// github.com and GitHub Enterprise Server: "REST API endpoints for deploy keys".
const GITHUB: Dialect = Dialect {
    header: "Authorization",
    scheme: "Bearer ",
    accept: "application/vnd.github+json",
    keys: ("/repos/", "/keys"),
    one_segment: false,
    page: "per_page=100",
    push: ("read_only", false),
};

/// Gitea and Forgejo: the `repository` group of their interface.
const GITEA: Dialect = Dialect { scheme: "token ", accept: "application/json", page: "limit=50", ..GITHUB };

/// gitlab.com and self-managed GitLab: "Deploy keys API".
const GITLAB: Dialect = Dialect {
    header: "PRIVATE-TOKEN",
    scheme: "",
    accept: "application/json",
    keys: ("/projects/", "/deploy_keys"),
    one_segment: true,
    push: ("can_push", true),
    ..GITHUB
};

const fn dialect(kind: Kind) -> &'static Dialect {
    match kind {
        Kind::Github => &GITHUB,
        Kind::Gitea => &GITEA,
        Kind::Gitlab => &GITLAB,
    }
}

impl Dialect {
    /// Returns the path of a repository's keys.
    fn keys(&self, repository: &str) -> String {
        format!("{}{}{}", self.keys.0, in_path(repository, !self.one_segment), self.keys.1)
    }
}

/// Maximum number of pages, so that a forge that repeats itself does not cause an endless loop.
const MOST_PAGES: usize = 100;

impl Forge for Api {
    fn create(&self, repository: &str, key: &NewKey<'_>) -> Result<u64, ForgeError> {
        let (member, may_push) = self.dialect.push;
        let body = json!({"title": key.title, "key": key.public_key, member: key.read_only != may_push});
        let created = self.ask(Method::POST, &self.dialect.keys(repository), body.to_string())?;
        parsed::<RegisteredKey>(&created).map(|key| key.id)
    }

    /// Reads pages until one is empty, because a forge may return fewer items per page than requested.
    fn list(&self, repository: &str) -> Result<Vec<RegisteredKey>, ForgeError> {
        let path = format!("{}?{}&page=", self.dialect.keys(repository), self.dialect.page);
        let mut keys = Vec::new();
        for page in 1..=MOST_PAGES {
            let more: Vec<RegisteredKey> = parsed(&self.ask(Method::GET, &format!("{path}{page}"), String::new())?)?;
            if more.is_empty() {
                return Ok(keys);
            }
            keys.extend(more);
        }
        Err(ForgeError::Malformed { reason: format!("the list of keys has more than {MOST_PAGES} pages") })
    }

    fn delete(&self, repository: &str, id: u64) -> Result<(), ForgeError> {
        self.ask(Method::DELETE, &format!("{}/{id}", self.dialect.keys(repository)), String::new()).map(drop)
    }
}

impl Api {
    fn ask(&self, method: Method, path: &str, body: String) -> Result<Vec<u8>, ForgeError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(self.dialect.header, format!("{}{}", self.dialect.scheme, self.token.expose()))
            .header(header::ACCEPT, self.dialect.accept);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let unusable = "the address, or the token as a header's value, is not valid";
        let request = request.body(body).map_err(|_| ForgeError::Unusable { reason: unusable.into() })?;
        let mut response = self.agent.run(request).map_err(|error| self.failure(&error))?;
        let status = response.status().as_u16();
        let content = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        match status {
            200..300 => content.map_err(|error| self.failure(&error)),
            500.. => Err(ForgeError::Failed { status, message: self.message(&content.unwrap_or_default()) }),
            _ => Err(ForgeError::Refused { status, message: self.message(&content.unwrap_or_default()) }),
        }
    }

    /// Returns the error of a failed request, including whether the request can have arrived.
    fn failure(&self, error: &ureq::Error) -> ForgeError {
        use ureq::{Error, Timeout};
        let reason = self.legible(&error.to_string());
        match error {
            Error::HostNotFound | Error::ConnectionFailed | Error::Tls(_) | Error::Rustls(_) => {
                ForgeError::Unreachable { reason }
            }
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => ForgeError::Unreachable { reason },
            Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                ForgeError::Unreachable { reason }
            }
            Error::BadUri(_) | Error::Http(_) | Error::InvalidProxyUrl => ForgeError::Unusable { reason },
            _ => ForgeError::Unanswered { reason },
        }
    }

    /// Returns the message in an error answer.
    fn message(&self, content: &[u8]) -> String {
        self.legible(&message(content))
    }

    fn legible(&self, text: &str) -> String {
        legible(text, [self.token.expose()])
    }
}

fn parsed<T: DeserializeOwned>(content: &[u8]) -> Result<T, ForgeError> {
    serde_json::from_slice(content).map_err(|error| ForgeError::Malformed { reason: error.to_string() })
}

/// Encodes a text as part of a URL's path. `/` stays if it is a separator.
fn in_path(text: &str, separates: bool) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (separates && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_as_a_whole_or_by_segments() {
        assert_eq!(in_path("group/sub/a+b", false), "group%2Fsub%2Fa%2Bb");
        assert_eq!(in_path("team/a b", true), "team/a%20b");
    }
}
