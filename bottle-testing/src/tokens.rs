//! A server of tokens that keeps state: OAuth with refresh tokens that are used once, and the installation tokens of a
//! GitHub App.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Request, serve};

/// A running server. It stops with the process.
#[derive(Clone)]
pub struct FakeTokens {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The one refresh token that is accepted.
    refresh: String,
    /// Number of refreshes.
    refreshed: u32,
    requests: Vec<Request>,
    fault: Option<Fault>,
    lifetime: u64,
}

/// Fault of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, with a body that repeats what was sent.
    Status(u16),
    /// This text, with status 200.
    Text(String),
    /// No answer.
    Silent,
    /// The right answer, after this time.
    Late(Duration),
}

impl FakeTokens {
    /// Returns a server that accepts this refresh token first. Access tokens are valid for an hour.
    pub fn start(refresh: &str) -> Self {
        let state = State { refresh: refresh.into(), refreshed: 0, requests: Vec::new(), fault: None, lifetime: 3600 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let port = serve(move |request| answer(&shared, request));
        Self { port, state }
    }

    /// Returns the address of the server.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.url())
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Sets how many seconds the next access tokens are valid.
    pub fn set_lifetime(&self, seconds: u64) {
        self.state().lifetime = seconds;
    }

    /// Returns the number of refreshes.
    pub fn refreshed(&self) -> u32 {
        self.state().refreshed
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The access token of the refresh with this number, from 1.
pub fn access(number: u32) -> String {
    format!("access-token-number-{number}-of-the-fake-server")
}

/// The refresh token that the refresh with this number returns, from 1.
pub fn refresh(number: u32) -> String {
    format!("refresh-token-number-{number}-of-the-fake-server")
}

/// The installation token.
pub const INSTALLATION: &str = "ghs_installation-token-of-the-fake-server";

fn answer(state: &Mutex<State>, request: &Request) -> Option<(u16, String)> {
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        state.fault.clone()
    };
    match fault {
        Some(Fault::Status(status)) => {
            let sent = format!("{} {}", String::from_utf8_lossy(&request.body), request.header("authorization"));
            return Some((status, json!({"error": "invalid_grant", "error_description": sent}).to_string()));
        }
        Some(Fault::Text(text)) => return Some((200, text)),
        Some(Fault::Silent) => return None,
        Some(Fault::Late(time)) => std::thread::sleep(time),
        None => {}
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let mut state = state.lock().unwrap();
    if request.target.starts_with("/app/installations/") {
        return Some((201, json!({"token": INSTALLATION, "expires_at": "2099-01-02T03:04:05Z"}).to_string()));
    }
    if body["grant_type"] != "refresh_token" || body["refresh_token"] != *state.refresh {
        return Some((400, json!({"error": "invalid_grant"}).to_string()));
    }
    state.refreshed += 1;
    state.refresh = refresh(state.refreshed);
    let answer = json!({
        "access_token": access(state.refreshed),
        "refresh_token": state.refresh,
        "expires_in": state.lifetime,
        "token_type": "Bearer",
    });
    Some((200, answer.to_string()))
}
