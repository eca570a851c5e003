//! OAuth tokens against a server whose refresh tokens are used once.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bottle_forge::OAuthSource;
use bottle_lifecycle::SecretSource;
use bottle_testing::tokens::{FakeTokens, Fault, access, refresh};
use serde_json::{Value, json};

const FIRST: &str = "the-refresh-token-of-the-login";
const OLD: &str = "the-access-token-of-the-login";

/// A home directory with a credential file, whose access token has expired.
struct Bench {
    home: tempfile::TempDir,
    server: FakeTokens,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn write(path: &Path, document: &Value, mode: u32) {
    fs::write(path, document.to_string()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Bench {
    fn new() -> Self {
        let bench = Self { home: tempfile::tempdir().unwrap(), server: FakeTokens::start(FIRST) };
        bench.write(&json!({"claudeAiOauth": {
            "accessToken": OLD, "refreshToken": FIRST, "expiresAt": (now() - 5) * 1000,
            "scopes": ["user:inference"], "subscriptionType": "max",
        }, "other": {"kept": true}}));
        bench
    }

    fn path(&self) -> PathBuf {
        self.home.path().join(".credentials.json")
    }

    fn write(&self, document: &Value) {
        write(&self.path(), document, 0o600);
    }

    fn document(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path()).unwrap()).unwrap()
    }

    fn source(&self) -> OAuthSource {
        OAuthSource::claude(self.path()).with_token_url(self.server.token_url()).with_timeout(Duration::from_secs(2))
    }

    fn value(&self) -> Result<String, String> {
        match self.source().value() {
            Ok(secret) => Ok(secret.value.expose().to_owned()),
            Err(error) => {
                let text = bottle_exec::chain(&*error);
                for token in [FIRST, OLD, &access(1), &refresh(1)] {
                    assert!(!text.contains(token) && !format!("{error:?}").contains(token), "{error:?}");
                }
                let text = text.replace(&self.server.url(), "<server>");
                Err(text.replace(&*self.home.path().canonicalize().unwrap().to_string_lossy(), "<home>"))
            }
        }
    }
}

#[test]
fn a_token_is_refreshed_in_its_file_and_nothing_else_is_changed() {
    let bench = Bench::new();
    let secret = bench.source().value().unwrap();
    assert_eq!(secret.value.expose(), access(1));
    let left = secret.expires.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(3500), "{left:?}");
    let document = bench.document();
    let tokens = &document["claudeAiOauth"];
    assert_eq!((&tokens["accessToken"], &tokens["refreshToken"]), (&json!(access(1)), &json!(refresh(1))));
    assert!(tokens["expiresAt"].as_u64().unwrap() > (now() + 3500) * 1000, "{tokens}");
    assert_eq!((&tokens["scopes"], &tokens["subscriptionType"]), (&json!(["user:inference"]), &json!("max")));
    assert_eq!(document["other"], json!({"kept": true}));
    assert_eq!(fs::metadata(bench.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(bench.home.path()).unwrap().count(), 1, "a file is left behind");
    // It is valid now.
    assert_eq!(bench.value().unwrap(), access(1));
    assert_eq!(bench.server.refreshed(), 1);
    let body: Value = serde_json::from_slice(&bench.server.requests()[0].body).unwrap();
    let client = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";
    assert_eq!(body, json!({"grant_type": "refresh_token", "refresh_token": FIRST, "client_id": client}));
    // Less than the margin is left, so the next refresh token is used.
    bench.server.set_lifetime(20);
    assert_eq!(bench.source().with_margin(Duration::from_secs(7200)).value().unwrap().value.expose(), access(2));
    assert_eq!(bench.document()["claudeAiOauth"]["refreshToken"], json!(refresh(2)));
}

#[test]
fn a_linked_file_stays_linked() {
    let bench = Bench::new();
    let link = bench.home.path().join("link.json");
    symlink(bench.path(), &link).unwrap();
    let source = OAuthSource::claude(&link).with_token_url(bench.server.token_url());
    assert_eq!(source.value().unwrap().value.expose(), access(1));
    assert!(link.is_symlink());
    assert_eq!(bench.document()["claudeAiOauth"]["refreshToken"], json!(refresh(1)));
}

#[test]
fn the_file_of_codex_says_itself_when_its_token_expires() {
    let bench = Bench::new();
    let token = |expires: u64| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"exp": expires}).to_string()));
    let document = |expires: u64| {
        json!({"OPENAI_API_KEY": null, "last_refresh": "2026-01-01T00:00:00Z",
            "tokens": {"id_token": "x.y.z", "access_token": token(expires), "refresh_token": FIRST, "account_id": "a"}})
    };
    let source = OAuthSource::codex(bench.path()).with_token_url(bench.server.token_url());
    bench.write(&document(now() + 3600));
    assert_eq!(source.value().unwrap().value.expose(), token(now() + 3600));
    assert_eq!(bench.server.refreshed(), 0);

    bench.write(&document(now() + 10));
    bench.server.set_fault(Some(Fault::Text(
        json!({"access_token": token(now() + 864_000), "refresh_token": refresh(1), "id_token": "new"}).to_string(),
    )));
    let secret = source.value().unwrap();
    assert!(secret.expires.unwrap() > SystemTime::now() + Duration::from_secs(863_000));
    let written = bench.document();
    assert_eq!(written["tokens"]["access_token"], json!(secret.value.expose()));
    assert_eq!(written["tokens"]["refresh_token"], json!(refresh(1)));
    assert_eq!((&written["tokens"]["id_token"], &written["tokens"]["account_id"]), (&json!("new"), &json!("a")));
    assert_ne!(written["last_refresh"], json!("2026-01-01T00:00:00Z"));
    assert!(written.as_object().unwrap().contains_key("OPENAI_API_KEY"));
}

#[test]
fn a_server_that_fails_is_reported_without_a_token_and_changes_nothing() {
    let bench = Bench::new();
    let before = fs::read(bench.path()).unwrap();
    let mut shown = String::new();
    for fault in [
        Fault::Status(400),
        Fault::Status(500),
        Fault::Status(302),
        Fault::Text("<html>no JSON</html>".into()),
        Fault::Text(json!({"token": FIRST}).to_string()),
        Fault::Text(json!({"access_token": [FIRST, OLD]}).to_string()),
        Fault::Text(json!({"access_token": ""}).to_string()),
        Fault::Silent,
    ] {
        bench.server.set_fault(Some(fault.clone()));
        let asked = Instant::now();
        writeln!(shown, "{}", bench.value().unwrap_err()).unwrap();
        assert!(asked.elapsed() < Duration::from_secs(10), "{fault:?}");
        assert_eq!(fs::read(bench.path()).unwrap(), before, "{fault:?}");
        assert_eq!(fs::read_dir(bench.home.path()).unwrap().count(), 1, "{fault:?}");
    }
    insta::assert_snapshot!(shown);
    // A server that is slow is waited for.
    bench.server.set_fault(Some(Fault::Late(Duration::from_secs(1))));
    assert_eq!(bench.value().unwrap(), access(1));
}

#[test]
fn a_token_is_used_to_its_end_while_the_server_fails() {
    let bench = Bench::new();
    let mut document = bench.document();
    document["claudeAiOauth"]["expiresAt"] = json!((now() + 2) * 1000);
    bench.write(&document);
    bench.server.set_fault(Some(Fault::Status(500)));
    assert_eq!(bench.value().unwrap(), OLD);
    thread::sleep(Duration::from_millis(2100));
    assert!(bench.value().unwrap_err().contains("500"));
    bench.server.set_fault(None);
    assert_eq!(bench.value().unwrap(), access(1));
}

#[test]
fn a_file_that_cannot_be_used_is_reported() {
    let bench = Bench::new();
    let mut shown = String::new();
    let tokens = |tokens: Value| json!({"claudeAiOauth": tokens});
    for (document, mode) in [
        (tokens(json!({"accessToken": OLD})), 0o600),
        (tokens(json!({"accessToken": 5, "refreshToken": FIRST})), 0o600),
        (tokens(json!({"accessToken": OLD, "refreshToken": FIRST})), 0o640),
        (json!("text"), 0o600),
    ] {
        write(&bench.path(), &document, mode);
        writeln!(shown, "{}", bench.value().unwrap_err()).unwrap();
    }
    write(&bench.path(), &json!({}), 0o600);
    fs::write(bench.path(), format!("{{\"refreshToken\": \"{FIRST}")).unwrap();
    writeln!(shown, "{}", bench.value().unwrap_err()).unwrap();
    fs::remove_file(bench.path()).unwrap();
    writeln!(shown, "{}", bench.value().unwrap_err()).unwrap();
    fs::create_dir(bench.path()).unwrap();
    writeln!(shown, "{}", bench.value().unwrap_err()).unwrap();
    insta::assert_snapshot!(shown);
    assert!(bench.server.requests().is_empty());
    let elsewhere = OAuthSource::claude(Bench::new().path()).with_token_url("http://auth.example.com/token");
    assert!(elsewhere.value().is_err());
}

#[test]
fn tokens_that_another_program_refreshed_meanwhile_are_used_and_kept() {
    // The program does not know the lock: it writes while the server refuses its old refresh token.
    for (server_answers, used) in [(false, "theirs"), (true, "ours")] {
        let bench = Bench::new();
        bench.server.set_fault(Some(Fault::Late(Duration::from_millis(800))));
        let theirs = json!({"claudeAiOauth": {
            "accessToken": "theirs", "refreshToken": "their-refresh-token", "expiresAt": (now() + 3000) * 1000,
        }});
        if !server_answers {
            bench.server.set_fault(Some(Fault::Silent));
        }
        let value = std::thread::scope(|scope| {
            let asked = scope.spawn(|| bench.value().unwrap());
            let until = Instant::now() + Duration::from_secs(10);
            while bench.server.requests().is_empty() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            bench.write(&theirs);
            asked.join().unwrap()
        });
        assert_eq!(value, if used == "ours" { access(1) } else { used.to_owned() });
        assert_eq!(bench.document(), theirs, "their login is kept");
    }
}

/// Variable with the file and the server of [`child_that_asks`].
const CHILD: &str = "BOTTLE_FORGE_OAUTH_CHILD";

#[test]
fn a_time_that_is_no_whole_number_is_refused() {
    let bench = Bench::new();
    for odd in [json!(-1), json!(1.5), json!("1790000000000"), json!(true)] {
        let tokens = json!({"accessToken": OLD, "refreshToken": FIRST, "expiresAt": odd});
        bench.write(&json!({"claudeAiOauth": tokens}));
        let error = bench.source().value().unwrap_err();
        let error = bottle_exec::chain(&*error);
        assert!(error.contains("its `claudeAiOauth.expiresAt` is not a whole number of milliseconds"), "{error}");
    }
    assert_eq!(bench.server.requests().len(), 0);
}

#[test]
#[ignore = "started by another test"]
fn child_that_asks() {
    #[expect(clippy::disallowed_methods, reason = "the variable is set by the test that starts it")]
    let Ok(given) = std::env::var(CHILD) else { return };
    let (path, url) = given.split_once(' ').unwrap();
    let secret = OAuthSource::claude(path).with_token_url(url).value().unwrap();
    println!("value: {}", secret.value.expose());
}

#[test]
fn processes_that_ask_at_once_refresh_once() {
    let bench = Bench::new();
    // Shorter than the margin: for each of them alone, the token would have to be refreshed.
    bench.server.set_lifetime(60);
    bench.server.set_fault(Some(Fault::Late(Duration::from_secs(1))));
    let start = || {
        let given = format!("{} {}", bench.path().display(), bench.server.token_url());
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_that_asks", "--nocapture"])
            .env(CHILD, given)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..6).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("value: {}", access(1))), "{text}");
    }
    assert_eq!(bench.server.refreshed(), 1);
    assert_eq!(bench.server.requests().len(), 1);
}
