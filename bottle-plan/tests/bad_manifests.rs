//! Every mistake in a manifest gives one error that says where it is and what is accepted.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bottle_plan::manifest::MAX_MANIFEST_BYTES;
use bottle_plan::{Manifest, ManifestError};

/// The manifests under `tests/bad`, in order of their names.
fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn mistake(path: &Path) -> ManifestError {
    let mut error = Manifest::read(path).expect_err(&format!("{} is accepted", path.display()));
    assert_eq!(error.file.as_deref(), Some(path));
    error.file = path.file_name().map(Into::into);
    error
}

#[test]
fn every_bad_manifest_has_clear_errors() {
    let mut shown = String::new();
    for path in fixtures() {
        writeln!(shown, "{}", mistake(&path)).unwrap();
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_mistake_is_one_line_with_a_place_and_nothing_of_the_parsers_own_terms() {
    for path in fixtures() {
        let error = mistake(&path);
        assert_eq!(
            error.to_string().lines().count(),
            if error.mistakes.len() == 1 { 1 } else { error.mistakes.len() + 1 }
        );
        for mistake in &error.mistakes {
            let text = mistake.to_string();
            let empty = text.starts_with("it is empty");
            assert!(empty || (mistake.line.is_some() && mistake.column.is_some()), "no line: {text}");
            assert!(!text.contains('\n'), "{text}");
            for term in
                ["untagged", "data did not match", "struct ", "enum ", "expected", "variant", "unit value", "u16"]
            {
                assert!(mistake.problem.starts_with("it is not YAML") || !text.contains(term), "`{term}` in: {text}");
            }
        }
    }
}

#[test]
fn a_mistake_is_drawn_below_its_line() {
    let drawn = |text: &str| {
        let mut error = Manifest::parse(text).unwrap_err();
        error.file = Some("bottle.yaml".into());
        error.drawn(false)
    };
    let many = "bottles:
  dev:
    egres: {}
    env: {A: 1.5, my-var: x, TOKEN: \"${HOME}/x\"}
    egress:
      allow: [Example.com, example.org]
      routes:
        - host: api.example.com
          methods: [get]
          inject: {token: sk-ant-api03-Zm9vYmFyYmF6cXV4}
        - host: api.example.com
          prot: 443
    runtime: runcs
    runtime: runc
agents:
  demo: {bottle: dve, command: [id, 5]}
  other: {command: [id]}
";
    let broken = "bottles: {dev: {egress: {allow: [a.example.com}}}\n";
    insta::assert_snapshot!([drawn(many), drawn(broken), drawn("# nothing\n")].join("\n"));
    let colored = Manifest::parse(many).unwrap_err().drawn(true);
    assert!(colored.contains("\u{1b}[") && !drawn(many).contains('\u{1b}'));
}

#[test]
fn one_mistake_does_not_make_others_up() {
    for (text, keys) in [
        // A bottle, a provider, an item and a required key that are wrong are not told as missing as well.
        ("bottles: {dev: 5}\nagents: {demo: {bottle: dev, command: [id]}}", vec!["bottles.dev"]),
        ("bottles: {dev: {}}\nagents: {demo: {bottle: dev, provider: claud}}", vec!["agents.demo.provider"]),
        ("bottles: {dev: {}}\nagents: {demo: {bottle: 5, command: [id]}}", vec!["agents.demo.bottle"]),
        (
            "bottles: {dev: {egress: {routes: [{host: X}, {host: a.example.com}, {host: a.example.com}]}}}\nagents: {demo: {bottle: dev, command: [id]}}",
            // Two routes are alike, whatever the one before them is.
            vec!["bottles.dev.egress.routes[0].host", "bottles.dev.egress.routes[2]"],
        ),
        // What a rule says of a value that could not be read is not told, nor what only follows from it.
        (
            "bottles: {dev: {egress: {routes: [{host: a.example.com, port: x}, {host: a.example.com}]}}}\nagents: {demo: {bottle: dev, command: [id]}}",
            vec!["bottles.dev.egress.routes[0].port"],
        ),
        ("bottles: {dev: {}}\nagents: {demo: {bottle: dev, comand: [id]}}", vec!["agents.demo.comand"]),
        ("bottles: {dev: {}}\nagents: {demo: {bottle: dev, command: [5]}}", vec!["agents.demo.command[0]"]),
        (
            "bottles: {dev: {git: {upstreams: [{name: app, url: 5, known_hosts: [git.example.com ssh-ed25519 AAAA]}]}}}\nagents: {demo: {bottle: dev, command: [id]}}",
            vec!["bottles.dev.git.upstreams[0].url"],
        ),
        (
            "bottles: {dev: {tls: {lifetime: 1s}, runtime: x}}\nagents: {demo: {bottle: dve, command: [id]}}",
            vec!["bottles.dev.tls.lifetime", "bottles.dev.runtime", "agents.demo.bottle"],
        ),
    ] {
        let error = Manifest::parse(text).unwrap_err();
        let told: Vec<_> = error.mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(told, keys, "{error}");
    }
}

#[test]
fn one_mistake_hides_no_other() {
    let text = "bottles:
  Dev_1:
    env: {my-var: {forward: true}, EGRESS_X: x}
    egress:
      routes:
        - inject: {token: sk-ant-api03-Zm9vYmFyYmF6cXV4, scheme: header, template: none}
        - {host: a.example.com, name: a, inject: {token: TOKEN, header: x-key}}
        - {host: b.example.com, name: a, paths: [v1, /v1, /v1]}
    git:
      upstreams:
        - {name: App, url: 'git@git.example.com:a/b', identity_file: key}
        - {name: one, url: 'https://git.example.com/b/c', username: 'a:b'}
        - {name: one, url: 'https://git.example.com/b/c', push: {max_size: 5}}
        - {name: two, url: 'git@git.example.com:d/e', identity_file: key, known_hosts: [x]}
    limits: {agent: {memory: 4GB, pids: 1}}
agents:
  Demo: {bottle: Dev_1}
  pipelock: {bottle: dev, command: [id], prompt: x, prompt_file: y}
";
    let error = Manifest::parse(text).unwrap_err();
    insta::assert_snapshot!(error);
}

#[test]
fn what_may_be_a_secret_is_not_repeated() {
    for path in fixtures() {
        let error = mistake(&path);
        let text = format!("{error}\n{}\n{error:?}", error.drawn(true));
        for secret in ["Zm9v", "hunter2", "sk-real", "b3BlbnNzaC1rZXk"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // The secrets are there to be repeated.
    let all: String = fixtures().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(["Zm9v", "hunter2", "sk-real", "b3BlbnNzaC1rZXk"].iter().all(|secret| all.contains(secret)));
}

#[test]
fn what_is_no_text_file_of_a_usual_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let huge = vec![b'#'; usize::try_from(MAX_MANIFEST_BYTES).unwrap() + 1];
    let paths = [
        write("empty.yaml", b""),
        write("blank.yaml", b" \n\n"),
        write("huge.yaml", &huge),
        write("latin-1.yaml", b"bottles:\n  dev: {env: {NAME: M\xfcller}}\n"),
        write("utf-16.yaml", b"\xff\xfeb\x00:\x00"),
        write("nul.yaml", b"bottles:\n  dev: \0\n"),
        dir.path().join("missing.yaml"),
        dir.path().to_owned(),
    ];
    let shown: String = paths
        .iter()
        .map(|path| {
            mistake(path).to_string().replace(&*dir.path().file_name().unwrap().to_string_lossy(), "<directory>")
        })
        .fold(String::new(), |all, line| all + &line + "\n");
    insta::assert_snapshot!(shown);
}

/// Documents that a parser without bounds would need hours, gigabytes or an endless stack for.
#[test]
fn hostile_documents_are_refused_in_bounded_time() {
    let size = usize::try_from(MAX_MANIFEST_BYTES).unwrap();
    let long = "x".repeat(size / 2);
    let aliases = format!("a: &a \"{long}\"\nb: [{}]\n", "*a,".repeat(size / 8));
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..60 {
        let items = format!("*a{},", level - 1).repeat(10);
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    let nested: Vec<_> = (0..700).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let hostile = [
        ("brackets", "[".repeat(size)),
        ("braces", "{".repeat(size)),
        ("lists", "- ".repeat(size / 2)),
        ("keys", "? ".repeat(size / 2)),
        ("mappings", nested.concat()),
        ("aliases of one long text", aliases),
        ("aliases of aliases", bomb),
        ("itself", "a: &a [*a]\n".to_owned()),
        ("many keys", (0..size / 10).map(|key| format!("k{key}:\n")).collect::<Vec<_>>().concat()),
        ("tabs", "\t".repeat(size)),
        ("quotes", "\"".to_owned() + &"\\".repeat(size)),
    ];
    for (what, text) in hostile {
        let start = Instant::now();
        let error = Manifest::parse(&text).expect_err(what).to_string();
        assert!(start.elapsed() < Duration::from_secs(5), "{what} took {:?}", start.elapsed());
        assert!(error.len() < 10_000, "{what}: {error}");
    }
}
