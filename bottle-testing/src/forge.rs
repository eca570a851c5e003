//! A forge that keeps state: the deploy keys of one repository, as GitHub, Gitea and GitLab show them.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Request, serve};

/// The token that may administer keys.
pub const TOKEN: &str = "forge-token-that-is-seen-nowhere";
/// The one repository, as forges name it.
pub const REPOSITORY: &str = "team/app";

/// A running forge. It stops with the process.
#[derive(Clone)]
pub struct FakeForge(Arc<Shared>);

struct Shared {
    port: OnceLock<u16>,
    token: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

/// Receives every public key.
type OnChange = dyn Fn(&[String]) + Send + Sync;

#[derive(Default)]
struct State {
    keys: BTreeMap<u64, Key>,
    /// Number of keys that were ever created.
    made: u64,
    /// Method, path and status of every request that was answered.
    log: Vec<String>,
    fault: Option<Fault>,
    hold: Option<Moment>,
    reached: bool,
    on_change: Option<Arc<OnChange>>,
}

/// A deploy key of the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub title: String,
    pub public: String,
    pub read_only: bool,
}

/// Fault in the creation of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and creates nothing.
    Status(u16),
    /// Creates the key but answers with this status.
    MadeBut(u16),
    /// Does not answer, and creates the key after this time.
    Late(Duration),
}

/// Point at which a request stops and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    BeforeCreate,
    AfterCreate,
    BeforeDelete,
    AfterDelete,
}

impl FakeForge {
    pub fn start() -> Self {
        Self::accepting(TOKEN)
    }

    /// Returns a forge that accepts this token alone.
    pub fn accepting(token: &'static str) -> Self {
        let forge =
            Self(Arc::new(Shared { port: OnceLock::new(), token, state: Mutex::default(), changed: Condvar::new() }));
        let serving = forge.clone();
        let port = serve(move |request| serving.answer_logged(request));
        forge.0.port.get_or_init(|| port);
        forge
    }

    /// Returns a forge on whose port nothing listens.
    pub fn dead(port: u16) -> Self {
        Self(Arc::new(Shared { port: port.into(), token: TOKEN, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Deletes every key as a person would.
    pub fn remove_all(&self) {
        self.state().keys.clear();
    }

    /// Returns the base URL of the API. `kind` is `github`, `gitea` or `gitlab`.
    pub fn api_url(&self, kind: &str) -> String {
        format!("http://127.0.0.1:{}/{kind}", self.0.port.get().unwrap())
    }

    pub fn keys(&self) -> Vec<Key> {
        self.state().keys.values().cloned().collect()
    }

    pub fn made(&self) -> u64 {
        self.state().made
    }

    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Adds a key as another bottle or a person would.
    pub fn add(&self, title: &str, key: &str) {
        let mut state = self.state();
        state.made += 1;
        let id = state.made;
        state.keys.insert(id, Key { title: title.into(), public: key.into(), read_only: true });
    }

    /// Sets a function that is called with all public keys after each change.
    pub fn on_change(&self, call: impl Fn(&[String]) + Send + Sync + 'static) {
        self.state().on_change = Some(Arc::new(call));
    }

    /// Makes the next request stop at this moment.
    pub fn hold(&self, moment: Moment) {
        let mut state = self.state();
        (state.hold, state.reached) = (Some(moment), false);
    }

    pub fn is_holding(&self) -> bool {
        self.state().reached
    }

    /// Lets the waiting request continue.
    pub fn release(&self) {
        self.state().hold = None;
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn pass(&self, moment: Moment) {
        let mut state = self.state();
        let until = Instant::now() + Duration::from_secs(60);
        while state.hold == Some(moment) && Instant::now() < until {
            state.reached = true;
            state = self.0.changed.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
        }
    }

    fn answer_logged(&self, request: &Request) -> Option<(u16, String)> {
        let Request { method, target, headers, body } = request;
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        let (status, content) = self.answer(method, target, headers, &body)?;
        self.state().log.push(format!("{method} {target} {status}"));
        Some((status, if content.is_null() { String::new() } else { content.to_string() }))
    }

    /// Returns status and content. `None`: no answer.
    fn answer(
        &self,
        method: &str,
        target: &str,
        headers: &BTreeMap<String, String>,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let token = self.0.token;
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        let encoded = REPOSITORY.replace('/', "%2F");
        let (authorized, keys, read_only) = if path.starts_with("/github/") {
            let authorized = header("authorization") == format!("Bearer {token}") && !header("user-agent").is_empty();
            (authorized, format!("/github/repos/{REPOSITORY}/keys"), body["read_only"].as_bool())
        } else if path.starts_with("/gitea/") {
            let authorized = header("authorization") == format!("token {token}");
            (authorized, format!("/gitea/repos/{REPOSITORY}/keys"), body["read_only"].as_bool())
        } else {
            let read_only = body["can_push"].as_bool().map(|can_push| !can_push);
            (header("private-token") == token, format!("/gitlab/projects/{encoded}/deploy_keys"), read_only)
        };
        if !authorized {
            return Some((401, json!({"message": "Bad credentials"})));
        }
        let Some(rest) = path.strip_prefix(&keys) else {
            return Some((404, json!({"message": "Not Found"})));
        };
        match (method, rest) {
            ("POST", "") => self.create(body, read_only),
            ("GET", "") => {
                // Two keys per page, so that a client that reads only the first page fails the tests.
                let page: usize = query.rsplit("page=").next().and_then(|page| page.parse().ok()).unwrap_or(1);
                let state = self.state();
                let shown = state.keys.iter().skip((page - 1) * 2).take(2);
                Some((200, shown.map(|(id, key)| json!({"id": id, "title": key.title, "key": key.public})).collect()))
            }
            ("DELETE", id) => Some(self.delete(id.trim_start_matches('/').parse().ok()?)),
            _ => Some((405, Value::Null)),
        }
    }

    fn create(&self, body: &Value, read_only: Option<bool>) -> Option<(u16, Value)> {
        self.pass(Moment::BeforeCreate);
        let fault = self.state().fault;
        match fault {
            Some(Fault::Status(422)) => {
                return Some((
                    422,
                    json!({"message": "Validation Failed", "errors": [{"message": "key is already in use"}]}),
                ));
            }
            Some(Fault::Status(401)) => {
                return Some((401, json!({"message": format!("Bad credentials: {}", self.0.token)})));
            }
            Some(Fault::Status(404)) => return Some((404, json!({"message": "Not Found"}))),
            Some(Fault::Status(status)) => return Some((status, json!({"message": "out of order"}))),
            Some(Fault::Late(delay)) => std::thread::sleep(delay),
            Some(Fault::MadeBut(_)) | None => {}
        }
        let (Some(title), Some(key), Some(read_only)) = (body["title"].as_str(), body["key"].as_str(), read_only)
        else {
            return Some((422, json!({"message": "a field is missing"})));
        };
        let id = {
            let mut state = self.state();
            state.made += 1;
            let id = state.made;
            state.keys.insert(id, Key { title: title.into(), public: key.into(), read_only });
            id
        };
        self.tell();
        self.pass(Moment::AfterCreate);
        match fault {
            Some(Fault::Late(_)) => None,
            Some(Fault::MadeBut(status)) => Some((status, json!({"message": "out of order"}))),
            // GitLab and GitHub may add a comment to what they show.
            _ => Some((201, json!({"id": id, "title": title, "key": format!("{key} comment")}))),
        }
    }

    fn delete(&self, id: u64) -> (u16, Value) {
        self.pass(Moment::BeforeDelete);
        let gone = self.state().keys.remove(&id).is_none();
        self.tell();
        self.pass(Moment::AfterDelete);
        if gone { (404, json!({"message": "Not Found"})) } else { (204, Value::Null) }
    }

    fn tell(&self) {
        let (call, keys) = {
            let state = self.state();
            (state.on_change.clone(), state.keys.values().map(|key| key.public.clone()).collect::<Vec<_>>())
        };
        if let Some(call) = call {
            call(&keys);
        }
    }
}
