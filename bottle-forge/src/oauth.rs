//! OAuth tokens of a subscription, refreshed in the file of the program that the user has logged in with.

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bottle_files::{FileLock, NewFile, sync_directory};
use bottle_lifecycle::{Secret, SecretSource};
use bottle_plan::SecretValue;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::client::client;
use crate::token::{PrivateFile, TokenError, post};

/// The access token of a Claude or Codex subscription, as a source of a credential.
///
/// The source reads the credential file of Claude Code or the Codex CLI on this host, and refreshes its tokens before they
/// expire. The bottle gets the access token alone, in egress. The refresh token stays in the file, which is replaced by a new
/// one in the same directory and with the same mode. Fields that the source does not know are kept. A server that fails is an
/// error only once the token has expired.
///
/// The file is locked meanwhile. Any number of bottles and processes can share it: what one has refreshed, the others read.
/// The programs themselves do not know this lock. If one of them refreshes at the same moment, its tokens are used.
///
/// ```no_run
/// use bottle_forge::OAuthSource;
/// use bottle_lifecycle::SecretSource;
///
/// let secret = OAuthSource::claude("/home/me/.claude/.credentials.json").value()?;
/// assert!(secret.expires.is_some());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
///
/// # Sources of the defaults
///
/// Codex: `codex-rs/login/src/auth/` in <https://github.com/openai/codex> has the file's format (`storage.rs`), the address of
/// the token server and the client id (`manager.rs`). Claude: <https://code.claude.com/docs/en/authentication> names the file;
/// the vendor does not document its format, the address and the client id, which other public clients use as they are here.
/// On macOS, Claude Code keeps its credentials in the Keychain and has no such file.
#[derive(Debug, Clone)]
pub struct OAuthSource {
    path: PathBuf,
    format: Format,
    token_url: String,
    client_id: String,
    margin: Duration,
    timeout: Duration,
    proxy: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Claude,
    Codex,
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    refresh_token: Option<String>,
    id_token: Option<String>,
    /// In seconds.
    expires_in: Option<u64>,
}

/// The tokens in a credential file.
struct Stored {
    document: Value,
    mode: u32,
    access: SecretValue,
    refresh: SecretValue,
    /// End of the access token's validity. `None` if it is unknown.
    expires: Option<SystemTime>,
}

impl OAuthSource {
    /// Returns the source for the file of Claude Code: `~/.claude/.credentials.json`.
    pub fn claude(path: impl Into<PathBuf>) -> Self {
        let client_id = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";
        Self::new(path.into(), Format::Claude, "https://platform.claude.com/v1/oauth/token", client_id)
    }

    /// Returns the source for the file of the Codex CLI: `~/.codex/auth.json`.
    pub fn codex(path: impl Into<PathBuf>) -> Self {
        let client_id = "app_EMoamEEZ73f0CkXaXp7hrann";
        Self::new(path.into(), Format::Codex, "https://auth.openai.com/oauth/token", client_id)
    }

    fn new(path: PathBuf, format: Format, token_url: &str, client_id: &str) -> Self {
        let (margin, timeout) = (Duration::from_secs(300), Duration::from_secs(30));
        let (token_url, client_id) = (token_url.to_owned(), client_id.to_owned());
        Self { path, format, token_url, client_id, margin, timeout, proxy: None }
    }

    /// Sets the address of the token server. Default: the vendor's.
    #[must_use]
    pub fn with_token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = url.into();
        self
    }

    /// Sets the id of the client at the token server. Default: that of the vendor's program, which got the refresh token.
    #[must_use]
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Sets the rest of its validity at which a token is refreshed. Default: 5 minutes.
    #[must_use]
    pub const fn with_margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Sets the timeout of a request, and of the wait for another process that refreshes. Default: 30 s.
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

    /// Returns a token that is valid for longer than the margin if the server gives one, otherwise one that is still valid.
    fn current(&self) -> Result<Secret, TokenError> {
        let io = |action: &'static str| {
            let path = self.path.clone();
            move |source| TokenError::Io { action, path, source }
        };
        // A link stays a link when the file is replaced.
        let path = fs::canonicalize(&self.path).map_err(io("find"))?;
        let before = self.read(&path)?;
        if before.is_valid_for(self.margin) {
            return Ok(before.secret());
        }
        let until = Instant::now() + self.timeout;
        let lock = FileLock::wait_unless(&path, || Instant::now() >= until).map_err(io("lock"))?;
        if lock.is_none() {
            let problem = format!("another process has locked it for {} s", self.timeout.as_secs());
            return Err(TokenError::File { path, problem });
        }
        let stored = self.read(&path)?;
        if stored.is_valid_for(self.margin) || stored.replaces(&before) {
            return Ok(stored.secret());
        }
        // Created first: what cannot be written must not be asked for, because the server may take back the old token.
        let file = NewFile::create(&path, stored.mode).map_err(io("replace"))?;
        let answer = match self.refresh(&stored) {
            Ok(answer) => answer,
            Err(error) => {
                let now = self.read(&path)?;
                // It is asked for again before the end, and the server may answer then.
                return if now.is_valid_for(Duration::ZERO) { Ok(now.secret()) } else { Err(error) };
            }
        };
        // A login of another account meanwhile is kept.
        let mut now = self.read(&path)?;
        if now.refresh == stored.refresh {
            self.format.store(&mut now.document, &answer);
            put(file, &path, &now.document).map_err(io("replace"))?;
        }
        let expires = self.format.expires(&answer.access_token, answer.expires_in.map(Duration::from_secs));
        Ok(Secret { value: SecretValue::new(answer.access_token), expires })
    }

    fn read(&self, path: &Path) -> Result<Stored, TokenError> {
        let PrivateFile { content, mode } = PrivateFile::read(path)?;
        let unusable = |problem: String| TokenError::File { path: path.to_owned(), problem };
        let program = self.format.program();
        let document: Value = serde_json::from_slice(&content).map_err(|_| unusable("it is not JSON".into()))?;
        let (tokens, access, refresh) = self.format.fields();
        let text = |name: &str| document[tokens][name].as_str().filter(|text| !text.is_empty());
        let token = |name: &str| {
            let missing = || unusable(format!("it has no `{tokens}.{name}`; log in with `{program}` on this host"));
            text(name).map(SecretValue::new).ok_or_else(missing)
        };
        let (access, refresh) = (token(access)?, token(refresh)?);
        let expires = match self.format {
            Format::Claude => match &document[tokens]["expiresAt"] {
                Value::Null => None,
                time => {
                    let odd = || unusable(format!("its `{tokens}.expiresAt` is not a whole number of milliseconds"));
                    Some(UNIX_EPOCH + Duration::from_millis(time.as_u64().ok_or_else(odd)?))
                }
            },
            Format::Codex => self.format.expires(access.expose(), None),
        };
        Ok(Stored { document, mode, access, refresh, expires })
    }

    fn refresh(&self, stored: &Stored) -> Result<Answer, TokenError> {
        let unusable = |error: ureq::Error| TokenError::Unusable {
            url: self.token_url.clone(),
            problem: format!("its proxy is not valid: {error}"),
        };
        let agent = client(self.timeout, self.proxy.as_deref()).map_err(unusable)?;
        let secrets = [stored.refresh.expose(), stored.access.expose()];
        let body = json!({"client_id": self.client_id, "grant_type": "refresh_token", "refresh_token": secrets[0]});
        let answer: Answer = post(&agent, &self.token_url, &[("Accept", "application/json")], &body, &secrets)?;
        if answer.access_token.is_empty() {
            return Err(TokenError::Malformed { url: self.token_url.clone() });
        }
        Ok(answer)
    }
}

impl SecretSource for OAuthSource {
    fn value(&self) -> Result<Secret, Box<dyn Error + Send + Sync>> {
        Ok(self.current()?)
    }
}

impl Stored {
    fn is_valid_for(&self, time: Duration) -> bool {
        self.expires.is_none_or(|expires| expires > SystemTime::now() + time)
    }

    /// Returns true if this token is valid and came after that of an earlier reading.
    fn replaces(&self, earlier: &Self) -> bool {
        self.access != earlier.access && self.is_valid_for(Duration::ZERO)
    }

    fn secret(self) -> Secret {
        Secret { value: self.access, expires: self.expires }
    }
}

impl Format {
    const fn program(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
        }
    }

    /// Returns the key of the tokens, and in it those of the access and the refresh token.
    const fn fields(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Claude => ("claudeAiOauth", "accessToken", "refreshToken"),
            Self::Codex => ("tokens", "access_token", "refresh_token"),
        }
    }

    /// Returns the end of an access token's validity: after `lifetime`, or as Codex's token says itself.
    fn expires(self, access: &str, lifetime: Option<Duration>) -> Option<SystemTime> {
        #[derive(Deserialize)]
        struct Claims {
            exp: u64,
        }
        let after = lifetime.and_then(|lifetime| SystemTime::now().checked_add(lifetime));
        let payload = access.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        let claims = payload.and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok());
        let said = claims.and_then(|claims| UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)));
        match self {
            Self::Claude => after,
            Self::Codex => said.or(after),
        }
    }

    /// Puts an answer into the document.
    fn store(self, document: &mut Value, answer: &Answer) {
        let (tokens, access, refresh) = self.fields();
        document[tokens][access] = json!(answer.access_token);
        if let Some(token) = &answer.refresh_token {
            document[tokens][refresh] = json!(token);
        }
        let now = SystemTime::now();
        match self {
            Self::Claude => {
                let expires = answer.expires_in.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
                let since = expires.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                // Without it the old time stays, and the next question refreshes again.
                if let Some(milliseconds) = since.and_then(|since| u64::try_from(since.as_millis()).ok()) {
                    document[tokens]["expiresAt"] = json!(milliseconds);
                }
            }
            Self::Codex => {
                if let Some(token) = &answer.id_token {
                    document[tokens]["id_token"] = json!(token);
                }
                document["last_refresh"] = json!(OffsetDateTime::from(now).format(&Rfc3339).ok());
            }
        }
    }
}

/// Writes the document and puts the file in its place.
fn put(mut file: NewFile, path: &Path, document: &Value) -> io::Result<()> {
    let text = Zeroizing::new(serde_json::to_vec_pretty(document)?);
    file.write_all(&text)?;
    file.sync()?;
    file.replace()?;
    path.parent().map_or(Ok(()), sync_directory)
}
