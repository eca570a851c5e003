//! The sidecars' own tests, each in its image, and the files that Rust writes for them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bottle::Manifest;
use bottle::plan::plan::{InjectionValue, Route};
use bottle::plan::{BottlePlan, PlanRequest, Prefix};
use bottle::sidecars::{BuildContext, egress, git_gate, supervise};
use serde_json::{Value, json};

use bottle_testing::lab::{host, run, scratch};

/// Builds the image of a context, under the tag that a launch gives it.
fn image(context: &BuildContext) -> String {
    let plan = plan(r#"{"bottles": {"b": {}}, "agents": {"a": {"bottle": "b", "command": ["id"]}}}"#).unwrap();
    let args = BTreeMap::from([("BASE".to_owned(), plan.images.base.to_string())]);
    let tag = plan.names.built_image(context.name, &context.content_hash(&args));
    if run(Command::new("docker").args(["image", "inspect", &tag])).code != 0 {
        let base = format!("BASE={}", plan.images.base);
        let dir = tempfile::Builder::new().prefix("context-").tempdir_in(scratch()).unwrap();
        for file in context.files {
            let path = dir.path().join(file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file.content).unwrap();
        }
        run(Command::new("docker").args(["build", "--build-arg", &base, "--tag", &tag]).arg(dir.path())).ok();
    }
    tag
}

fn images() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "bottle-sidecars/images"].iter().collect()
}

fn plan(manifest: &str) -> Option<bottle::BottlePlan> {
    let host = host();
    let request = PlanRequest {
        agent: None,
        slug: Some("sidecars".parse().unwrap()),
        prefix: Prefix::default(),
        manifest_dir: None,
        host: &host.facts,
        random: [0; 5],
    };
    Manifest::parse(manifest).ok().map(|manifest| manifest.plan(request).unwrap())
}

#[test]
#[ignore = "needs a container engine"]
fn egress_passes_its_own_tests() {
    let finished = run(Command::new(images().join("egress/tests/run")).arg(image(&egress::CONTEXT)));
    finished.ok();
    assert!(finished.stderr.contains("\nOK"), "{finished:?}");
}

#[test]
#[ignore = "needs a container engine"]
fn supervise_passes_its_own_tests() {
    let finished = run(Command::new(images().join("supervise/tests/run")).arg(image(&supervise::CONTEXT)));
    finished.ok();
    assert!(finished.stderr.contains("\nOK"), "{finished:?}");
}

#[test]
#[ignore = "needs a container engine"]
fn git_gate_passes_its_own_tests() {
    let mount = format!("{}:/images:ro", images().display());
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]);
    command.args(["--user", "65534:65534", "--env", "HOME=/tmp", "--volume", &mount, "--entrypoint", "python3"]);
    let finished = run(command.args([&image(&git_gate::CONTEXT), "/images/git-gate/tests/test_gitgate.py"]));
    assert!(finished.ok().ends_with(" passed"), "{finished:?}");
}

/// Returns a manifest with these routes. JSON is YAML.
fn manifest(routes: &Value) -> String {
    json!({"bottles": {"b": {"egress": {"routes": routes}}}, "agents": {"a": {"bottle": "b", "command": ["id"]}}})
        .to_string()
}

/// Returns the result of the addon's parser for each text.
fn parsed_by_the_addon(texts: &[String]) -> Vec<Value> {
    let input = tempfile::Builder::new().prefix("routes-").tempfile_in(scratch()).unwrap();
    std::fs::write(input.path(), Value::from(texts).to_string()).unwrap();
    let output = Command::new("docker")
        .args(["run", "--rm", "--interactive", "--network", "none", "--read-only"])
        .args(["--entrypoint", "/opt/egress/bin/python", &image(&egress::CONTEXT)])
        .args(["-B", "-c", include_str!("sidecars/parse_routes.py")])
        .stdin(Stdio::from(File::open(input.path()).unwrap()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs a container engine"]
fn egress_reads_every_value_of_a_manifest_unchanged() {
    // Words, numbers and dates of YAML 1.1 and 1.2, punctuation, line ends, lengths.
    let long = format!("{}.example.com", "a".repeat(63));
    let hosts =
        ["a.b", "1e3.example", "0.example", "no.no", "x.0x1f", "x.0x", "xn--a.example", &long, "*.a.b", "*.0.b", "*.b"]
            .map(|host| json!({"host": host}));
    let names =
        ["1_000", "2024-01-01", "null", "true", "no", "0x1f", "1e3", "1.5", "0", "a.b_c-d", "12345678901234567890"]
            .map(|name| json!({"host": "a.b", "name": name}));
    let paths = [
        "/", "/v1", "/v1/", "/a;b", "/a,b", "/a:b", "/a=b", "/a@b", "/a$b", "/$HOME", "/a'b", "/a&b", "/(a)", "/*",
        "/~a",
    ]
    .map(|path| json!({"host": "a.b", "paths": [path]}));
    let methods = ["GET", "NO", "Y", "ON", "OFF", "NULL", "TRUE", "PROPFIND", "TRACE"]
        .map(|method| json!({"host": "a.b", "methods": [method]}));
    let headers = [
        "authorization",
        "x-api-key",
        "cookie",
        "content-type",
        "accept-encoding",
        "connection",
        "host",
        "upgrade",
        "expect",
        "te",
        "trailer",
        "keep-alive",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "proxy-authorization",
        "proxy-connection",
        "null",
        "1-2",
    ]
    .map(|header| json!({"host": "a.b", "inject": {"token": "T", "scheme": "header", "header": header}}));
    let templates = [
        "{token}",
        "Token {token}",
        "a: {token} # b",
        " {token}",
        "{token} ",
        "\"{token}'",
        "${token}",
        "{token}{token}",
        "ä{token}",
    ]
    .map(|template| json!({"host": "a.b", "inject": {"token": "T", "scheme": "header", "template": template}}));
    let usernames = ["git", "no", "1e3", " a", "a ", "ä", "a:b", "a b", "-", "~"]
        .map(|username| json!({"host": "a.b", "inject": {"token": "T", "scheme": "basic", "username": username}}));
    let others = [
        json!({"host": "a.b", "inject": {"token": "T"}}),
        json!({"host": "a.b", "port": 65535}),
        json!({"host": "a.b", "port": 1}),
    ];
    let candidates = hosts.into_iter().chain(names).chain(paths).chain(methods).chain(headers).chain(templates);
    let candidates: Vec<Value> = candidates.chain(usernames).chain(others).collect();

    let accepted: Vec<(Value, BottlePlan)> =
        candidates.into_iter().filter_map(|route| Some((route.clone(), plan(&manifest(&json!([route])))?))).collect();
    assert!(accepted.len() > 50, "only {} are accepted", accepted.len());
    let texts: Vec<String> = accepted.iter().map(|(_, plan)| egress::routes(plan)).collect();
    for ((route, plan), read) in accepted.iter().zip(parsed_by_the_addon(&texts)) {
        let meant: Vec<Value> = plan.egress.iter().flat_map(|egress| &egress.routes).map(meant).collect();
        assert_eq!(read["routes"], Value::from(meant), "{route}: {read}");
    }
}

/// Returns a route as the addon should have parsed it, with the token `t0ken`.
fn meant(route: &Route) -> Value {
    let mut methods: Vec<&str> = route.methods.iter().map(AsRef::as_ref).collect();
    methods.sort_unstable();
    let inject = route.inject.as_ref().map(|inject| {
        let value = match &inject.value {
            InjectionValue::Template(template) => template.replace("{token}", "t0ken"),
            InjectionValue::Basic { username } => {
                format!("Basic {}", bottle_testing::lab::base64(&format!("{username}:t0ken")))
            }
        };
        json!([inject.header.as_str(), value])
    });
    json!({
        "name": route.name,
        "host": route.host.as_str(),
        "port": route.port,
        "paths": route.paths.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "methods": methods,
        "inject": inject,
    })
}

#[test]
#[ignore = "needs a container engine"]
fn manifest_and_egress_refuse_the_same_ambiguous_routes() {
    let hosts = [json!({"host": "a.b.c"}), json!({"host": "*.b.c"}), json!({"host": "a.b.c", "port": 8443})];
    let paths = [json!(null), json!(["/v1"]), json!(["/v1/"]), json!(["/v1", "/v2"])];
    let methods = [json!(null), json!(["GET"]), json!(["GET", "POST"]), json!(["POST"])];
    let mut shapes = Vec::new();
    for (host, path, method) in hosts
        .iter()
        .flat_map(|host| paths.iter().map(move |path| (host, path)))
        .flat_map(|(host, path)| methods.iter().map(move |method| (host, path, method)))
    {
        let mut shape = host.clone();
        for (key, value) in [("paths", path), ("methods", method)].into_iter().filter(|(_, value)| !value.is_null()) {
            shape[key] = value.clone();
        }
        shapes.push(shape);
    }
    let named = |shape: &Value, name: &str| {
        let mut shape = shape.clone();
        shape["name"] = name.into();
        shape
    };
    let pairs: Vec<Value> = (0..shapes.len())
        .flat_map(|one| (one..shapes.len()).map(move |other| (one, other)))
        .map(|(one, other)| json!([named(&shapes[one], "one"), named(&shapes[other], "other")]))
        .collect();
    // A manifest's route has the same form as the file's, except for its credential.
    let texts: Vec<String> = pairs.iter().map(|routes| json!({"version": 1, "routes": routes}).to_string()).collect();
    let mut ambiguous = 0;
    for (routes, read) in pairs.iter().zip(parsed_by_the_addon(&texts)) {
        let parsed = Manifest::parse(&manifest(routes));
        let agreed = parsed.is_err() == read["error"].is_string();
        assert!(agreed, "{routes}: the manifest says {:?}, egress says {read}", parsed.err());
        ambiguous += usize::from(parsed.is_err());
    }
    assert!(ambiguous > shapes.len() && ambiguous < pairs.len() / 2, "{ambiguous} of {}", pairs.len());
}
