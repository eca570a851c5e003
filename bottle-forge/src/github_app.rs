//! Installation tokens of a GitHub App.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bottle_lifecycle::{Secret, SecretSource};
use bottle_plan::manifest::Forge;
use bottle_plan::plan::{DeployKey, GitAuth};
use bottle_plan::value::CredentialName;
use bottle_plan::{BottlePlan, SecretValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::client;
use crate::token::{PrivateFile, TokenError, post};

/// An installation token of a GitHub App, as a source of a credential. It is valid for an hour and for the named
/// repositories alone.
///
/// The app's private key is read from a file of this host that only its owner can read. It signs a request and goes nowhere.
/// See <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>.
///
/// ```no_run
/// use bottle_forge::GithubApp;
/// use bottle_lifecycle::SecretSource;
///
/// let app = GithubApp::new("123456", 7890, "/home/me/app.private-key.pem");
/// let secret = app.with_repository("api").with_permission("contents", "write").value()?;
/// assert!(secret.expires.is_some());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GithubApp {
    app: String,
    installation: u64,
    key: PathBuf,
    api_url: String,
    repositories: BTreeSet<String>,
    permissions: BTreeMap<String, String>,
    timeout: Duration,
    proxy: Option<String>,
}

impl GithubApp {
    /// Returns the source for an app, by its id or client id, the id of its installation, and the file of its private key
    /// (PEM, RSA). It needs at least one repository.
    pub fn new(app: impl Into<String>, installation: u64, key: impl Into<PathBuf>) -> Self {
        Self {
            app: app.into(),
            installation,
            key: key.into(),
            api_url: DeployKey::public_api(Forge::Github).to_owned(),
            repositories: BTreeSet::new(),
            permissions: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            proxy: None,
        }
    }

    /// Adds a repository of the installation's account, by its name without the owner.
    #[must_use]
    pub fn with_repository(mut self, name: impl Into<String>) -> Self {
        self.repositories.insert(name.into());
        self
    }

    /// Adds a permission, such as `contents` and `write`. Default: all that the installation has.
    #[must_use]
    pub fn with_permission(mut self, name: impl Into<String>, access: impl Into<String>) -> Self {
        self.permissions.insert(name.into(), access.into());
        self
    }

    /// Sets the base URL of the API, for GitHub Enterprise Server `https://<host>/api/v3`. Default: that of github.com.
    #[must_use]
    pub fn with_api_url(mut self, url: impl Into<String>) -> Self {
        let url: String = url.into();
        url.trim_end_matches('/').clone_into(&mut self.api_url);
        self
    }

    /// Sets the timeout of a request. Default: 30 s.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a proxy, such as `http://proxy.example:3128`. Default: none, whatever the environment says.
    #[must_use]
    pub fn with_proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = Some(proxy.into());
        self
    }

    /// Limits the token to what a plan needs it for: the repositories of the git upstreams with this token, and of their
    /// contents what they may do, `read`, or `write` if one of them allows pushes.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use bottle_forge::GithubApp;
    /// # fn f(plan: &bottle_plan::BottlePlan) -> Result<(), Box<dyn std::error::Error>> {
    /// let token = "GITHUB_TOKEN".parse()?;
    /// let source = GithubApp::new("123456", 7890, "/home/me/app.private-key.pem").for_plan(plan, &token);
    /// // let host = host.with_secret(&token, Arc::new(source));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_plan(mut self, plan: &BottlePlan, token: &CredentialName) -> Self {
        let mut is_written = false;
        for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
            if matches!(&upstream.auth, GitAuth::Token { token: its, .. } if its == token) {
                let path = upstream.url.path();
                let path = path.strip_suffix(".git").unwrap_or(path);
                self.repositories.insert(path.rsplit('/').next().unwrap_or(path).to_owned());
                is_written |= upstream.push.enabled;
            }
        }
        self.with_permission("contents", if is_written { "write" } else { "read" })
    }

    fn token(&self) -> Result<Secret, TokenError> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
            expires_at: String,
        }
        let url = format!("{}/app/installations/{}/access_tokens", self.api_url, self.installation);
        let unusable = |problem: String| TokenError::Unusable { url: url.clone(), problem };
        // GitHub would give a token for all of them.
        if self.repositories.is_empty() {
            return Err(unusable("it needs the names of its repositories".into()));
        }
        let proxy = |error: ureq::Error| unusable(format!("its proxy is not valid: {error}"));
        let agent = client(self.timeout, self.proxy.as_deref()).map_err(proxy)?;
        let assertion = self.assertion()?;
        let mut body = json!({"repositories": self.repositories});
        if !self.permissions.is_empty() {
            body["permissions"] = json!(self.permissions);
        }
        let authorization = format!("Bearer {}", assertion.expose());
        let headers = [("Authorization", &*authorization), ("Accept", "application/vnd.github+json")];
        let answer: Answer = post(&agent, &url, &headers, &body, &[assertion.expose()])?;
        let expires = OffsetDateTime::parse(&answer.expires_at, &Rfc3339);
        let expires = expires.map_err(|_| TokenError::Malformed { url: url.clone() })?;
        Ok(Secret { value: SecretValue::new(answer.token), expires: Some(expires.into()) })
    }

    /// Returns a JSON web token that proves to GitHub which app asks. It is valid for nine minutes; GitHub accepts ten.
    fn assertion(&self) -> Result<SecretValue, TokenError> {
        let unusable = |problem: &str| TokenError::File { path: self.key.clone(), problem: problem.to_owned() };
        let file = PrivateFile::read(&self.key)?;
        let accepted = "it is not a private RSA key in PEM of at least 2048 bits, as GitHub creates it";
        let block = pem::parse(&*file.content).map_err(|_| unusable(accepted))?;
        let key = match block.tag() {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(block.contents()),
            _ => RsaKeyPair::from_pkcs8(block.contents()),
        };
        let key = key.map_err(|_| unusable(accepted))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // A minute ago, because the two clocks may differ.
        let claims = json!({"iss": self.app, "iat": now.saturating_sub(60), "exp": now + 480});
        let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&json!({"alg": "RS256", "typ": "JWT"})), encoded(&claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| unusable("it cannot sign"))?;
        Ok(SecretValue::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

impl SecretSource for GithubApp {
    fn value(&self) -> Result<Secret, Box<dyn Error + Send + Sync>> {
        Ok(self.token()?)
    }
}
